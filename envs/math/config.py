"""Configuration of `onelayer/Math-v0`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from ..environment import BuiltIn, SuiteListing

DATA = "ONELAYER_DATA or the hub"


class FieldMapping(BaseModel, extra="forbid", frozen=True):
    """Which keys of a JSON line or data-set row hold what, nested ones joined by dots; null tries the usual names in turn."""

    question: str | None = Field(default=None, description="key of the problem's text (tries question, problem, prompt)")
    answer: str | None = Field(
        default=None, description="key of the gold answer (tries answer, final_answer, gold, reward_model.ground_truth, solution)"
    )
    several: Literal["all", "any"] | None = Field(
        default=None,
        description="what a list under the answer's key means: a response must give all of them, or any one (null: all of final_answer, "
        "any of a ground_truth or of a built-in suite's, else refused)",
    )
    unit: str | None = Field(
        default=None, description="key of the unit that an answer may carry or leave out (tries unit beside final_answer)"
    )
    precision: str | None = Field(
        default=None, description="key of the absolute error within which a number is right (tries error beside final_answer)"
    )
    id: str | None = Field(default=None, description="key of the item's id (default: the file's name and the line number)")


class MathConfig(BuiltIn, extra="forbid", frozen=True):
    """`onelayer/Math-v0`: a question, an answer, graded by value."""

    CLASS: ClassVar = "math.env:MathEnv"
    SOURCE: ClassVar = "math.sources"
    TITLE: ClassVar = "one question, one answer, graded by value"
    SUITES: ClassVar = (
        SuiteListing("arithmetic", "sums and differences, generated", "train, validation, test"),
        SuiteListing("gsm8k", "grade-school word problems", "train, validation, test", DATA),
        SuiteListing("math", "competition problems to train on", "train, validation", DATA),
        SuiteListing("math500", "competition problems", "test", DATA),
        SuiteListing("aime24, aime25, amc23", "contests", "test", DATA),
        SuiteListing("minerva, olympiadbench", "undergraduate science, olympiads", "test", DATA),
        SuiteListing("numinamath", "competition problems to train on", "train, validation, test", DATA),
        SuiteListing("deepscaler, skywork", "competition problems to train on", "train, validation", DATA),
        SuiteListing("FILE.jsonl, hub:...", "your own questions and answers", "train, validation, test", are_own=True),
    )
    GENERATED: ClassVar = "arithmetic"
    DOMAIN: ClassVar = "math"
    HISTORY: ClassVar = 0
    IN_PROCESS: ClassVar = True

    id: Literal["onelayer/Math-v0"] = Field(default="onelayer/Math-v0", description="the Gymnasium id")
    suite: str = Field(
        default="arithmetic",
        description="a built-in suite (arithmetic, gsm8k, math, math500, aime24, aime25, amc23, minerva, olympiadbench, numinamath, "
        "deepscaler, skywork), "
        "a .jsonl file, or hub:OWNER/NAME for a Hugging Face data set; built-in data is found under ONELAYER_DATA, else on the hub",
    )
    size: int | None = Field(default=None, ge=1, description="take the first N items (null: all; arithmetic: 4096 to train, 512 else)")
    difficulty: int = Field(default=3, ge=1, le=12, description="arithmetic: operations in a problem")
    seed: int = Field(default=0, ge=0, description="arithmetic: seed of the generator")
    max_turns: int = Field(default=1, ge=1, description="responses an episode may take; after a wrong one its answer is shown")
    unreadable: Literal["skip", "refuse"] = Field(
        default="skip", description="items whose answer cannot be graded: left out, named and counted, or an error"
    )
    fields: FieldMapping = FieldMapping()

    @property
    def turns(self) -> int:
        return self.max_turns
