"""Configuration of who acts: the model, its numeric format, the prompt and the sampling."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelConfig(BaseModel):
    """The base model. `tiny` is the one that ships with the package."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field("tiny", description="tiny, a directory, or a Hugging Face hub name")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="numeric format of the forward pass; trained weights keep a float32 master")
    device: str = Field("auto", description="auto (cuda if there is one, else cpu), cpu, cuda or cuda:N")


class AgentConfig(BaseModel):
    """How an observation becomes a prompt, and how long a reply may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(
        "{observation}\nReason step by step and put the final answer in \\boxed{{}}.",
        description="user message; {observation} is replaced by what the environment says",
    )
    max_tokens: int = Field(40, ge=1, description="most new tokens of one reply")
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False, description="sampling temperature while training")
    max_batch: int = Field(256, ge=1, description="most sequences decoded together")
