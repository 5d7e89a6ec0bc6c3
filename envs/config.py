"""Configuration of the environments: which problems, from where, how hard."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class FieldMapping(BaseModel, extra="forbid", frozen=True):
    """Which keys of a JSON line or data-set row hold what; null tries the usual names in turn."""

    question: str | None = Field(default=None, description="key of the problem's text (tries question, problem, prompt)")
    answer: str | None = Field(default=None, description="key of the gold answer (tries answer, gold, solution)")
    id: str | None = Field(default=None, description="key of the item's id (default: the file's name and the line number)")


class MathConfig(BaseModel, extra="forbid", frozen=True):
    """`onelayer/Math-v0`: one question, one answer, graded by value."""

    id: Literal["onelayer/Math-v0"] = Field(default="onelayer/Math-v0", description="the Gymnasium id")
    suite: str = Field(
        default="arithmetic",
        description="a built-in suite (arithmetic, gsm8k, math, math500, aime24, aime25, amc23), "
        "a .jsonl file, or hub:OWNER/NAME for a Hugging Face data set; built-in data is found under ONELAYER_DATA, else on the hub",
    )
    size: int | None = Field(default=None, ge=1, description="take the first N items (null: all; arithmetic: 4096 to train, 512 else)")
    difficulty: int = Field(default=3, ge=1, le=12, description="arithmetic: operations in a problem")
    seed: int = Field(default=0, ge=0, description="arithmetic: seed of the generator")
    fields: FieldMapping = FieldMapping()


EnvConfig = MathConfig
