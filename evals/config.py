"""Configuration of the evaluation: which held-out items, how many samples of each."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..agents.config import EndpointConfig


class EvalConfig(BaseModel):
    """Every policy is evaluated twice on the same items: sampled and greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str | None = Field(
        default=None,
        description="suite to evaluate on, NAME or NAME/SPLIT, a suite or the id of an environment (null: the test split of env)",
    )
    items: int | None = Field(default=None, ge=2, description="use the first N items of the split (null: all)")
    n: int = Field(default=4, ge=1, description="samples of each item at the sampling temperature; greedy takes one more")
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="sampling temperature")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="sampled replies take the fewest likeliest tokens that have this probability together (1: all)"
    )
    top_k: int = Field(default=0, ge=0, description="sampled replies take so many of the likeliest tokens, before eval.top_p (0: all)")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="most tokens of a reply in evaluations and held-out curves (null: agent.max_tokens, which training keeps to)",
    )
    seed: int = Field(default=0, ge=0, description="seed that every item's sampling seeds derive from")
    every: int | None = Field(
        default=None,
        ge=1,
        description="`train` and `study`: steps between points of the held-out curve, for which the policy in training plays a panel of "
        "the validation split; it plays before the first step and after the last one too (null: no curve)",
    )
    panel_items: int = Field(default=64, ge=2, description="first items of the validation split, which are the panel")
    panel_n: int = Field(default=1, ge=1, description="sampled replies to each item of the panel; greedy takes one more")
    keep_best: bool = Field(
        default=False,
        description="`train` and `study`, with eval.every: also keep the patch of the point of the held-out curve with the highest pass@1 "
        "at the sampling temperature (for full a file as large as the model); a study evaluates it beside the last one",
    )
    endpoint: EndpointConfig | None = Field(
        default=None, description="`onelayer eval`: a server of chat completions that plays in place of a model here"
    )
