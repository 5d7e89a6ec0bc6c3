"""What a report and a comparison tell alike of a policy under one decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..evals.records import Scores
from ..evals.replies import ReplyStatistics, pooled_statistics
from ..evals.statistics import Rate
from .pairing import SeedRates


class _Solved(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pass_rate: Rate = Field(description="pass@1")
    by_seed: list[float] = Field(description="pass@1 of each training seed")


class PolicyFigures(ReplyStatistics, _Solved):
    """The evaluations of a policy under one decoding, pooled over its training seeds."""

    errors: int = Field(default=0, ge=0, description="samples lost to failing environments, all seeds together; they count as wrong")


def policy_figures(rates: SeedRates, scores: Sequence[Scores]) -> dict[str, Any]:
    """The fields of `PolicyFigures`. scores: of the evaluation of each training seed."""
    errors = sum(score.errors for score in scores)
    return {"pass_rate": rates.pass_rate, "by_seed": rates.means, **pooled_statistics(scores), "errors": errors}
