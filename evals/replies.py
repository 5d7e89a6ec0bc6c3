"""Statistics of the replies besides whether they are right. One of them is a function here and a field of `ReplyStatistics`.

From the field follow the manifest of an evaluation, the table that `onelayer eval` prints, a study's report, the comparison, and the
leaderboard's page, JSON and CSV.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from .samples import Sample


@dataclass(frozen=True)
class Statistic:
    """How a statistic is computed and shown."""

    of: Callable[[Sequence[Sample]], float | None]
    """The figure of the samples of one decoding; None where they do not tell it."""
    label: str
    """Head of its column."""
    is_share: bool = False
    """Whether it is shown in percent."""

    def text(self, value: float | None) -> str:
        """The figure as tables show it."""
        if value is None:
            return "-"
        return f"{value:.1%}" if self.is_share else f"{value:.1f}"


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean; None where there is nothing, or something was not measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _tokens(samples: Sequence[Sample]) -> float | None:
    return mean_of([sample.tokens for sample in samples])


def _cut_off(samples: Sequence[Sample]) -> float | None:
    return mean_of([sample.truncated for sample in samples])


def _valid(samples: Sequence[Sample]) -> float | None:
    return mean_of([step.valid for sample in samples for step in sample.steps])


class ReplyStatistics(BaseModel):
    """The statistics of the replies; null: not measured. One that came later has a default, null, for the manifests of earlier releases."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mean_tokens: Annotated[float | None, Statistic(_tokens, "tokens")] = Field(ge=0, description="tokens of a response, mean")
    truncated: Annotated[float | None, Statistic(_cut_off, "cut off", is_share=True)] = Field(
        ge=0, le=1, description="share of responses that reached max_tokens"
    )
    valid: Annotated[float | None, Statistic(_valid, "valid", is_share=True)] = Field(
        default=None,
        ge=0,
        le=1,
        description="share of actions that the environment took for one of its own (math: an answer was found, code: there was code); "
        "1 where it tells of none that it did not",
    )


STATISTICS: dict[str, Statistic] = {
    name: row for name, field in ReplyStatistics.model_fields.items() for row in field.metadata if isinstance(row, Statistic)
}
"""By the name of the field."""


def mean_metrics(found: Iterable[Any]) -> dict[str, float]:
    """The mean of each figure over the samples that have it. found: of each sample a mapping, its pairs, or null."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for metrics in found:
        for name, value in dict(metrics or {}).items():
            values[name].append(value)
    return {name: float(np.mean(of)) for name, of in values.items()}


def reply_statistics(samples: Sequence[Sample]) -> dict[str, Any]:
    """The fields of `ReplyStatistics`, of the samples of one decoding."""
    return {name: statistic.of(samples) for name, statistic in STATISTICS.items()}


def pooled_statistics(several: Sequence[ReplyStatistics], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """The fields of `ReplyStatistics`: their means over the evaluations of a policy; null where one of these does not tell it.

    weights: of each evaluation; None: equal ones.
    """
    found = {name: [getattr(one, name) for one in several] for name in STATISTICS}
    return {name: None if None in values else float(np.average(values, weights=weights)) for name, values in found.items()}
