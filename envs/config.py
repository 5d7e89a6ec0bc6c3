"""Configuration of the environments: which problems, from where, how hard."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FieldMapping(BaseModel):
    """Which keys of a JSON line or data-set row hold what; null tries the usual names in turn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str | None = Field(None, description="key of the problem's text (tries question, problem, prompt)")
    answer: str | None = Field(None, description="key of the gold answer (tries answer, gold, solution)")
    id: str | None = Field(None, description="key of the item's id (default: the file's name and the line number)")


class MathConfig(BaseModel):
    """`onelayer/Math-v0`: one question, one answer, graded by value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Literal["onelayer/Math-v0"] = Field("onelayer/Math-v0", description="the Gymnasium id")
    suite: str = Field(
        "arithmetic",
        description="a built-in suite (arithmetic, gsm8k, math, math500, aime24, aime25, amc23), "
        "a .jsonl file, or hub:OWNER/NAME for a Hugging Face data set",
    )
    size: int | None = Field(None, ge=1, description="take this many items (null: all; arithmetic: 4096 to train, 512 else)")
    difficulty: int = Field(3, ge=1, le=12, description="arithmetic: operations in a problem")
    seed: int = Field(0, ge=0, description="arithmetic: seed of the generator")
    fields: FieldMapping = FieldMapping()


EnvConfig = MathConfig
