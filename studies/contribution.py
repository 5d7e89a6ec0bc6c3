"""Layer contribution: the share of the full run's gain that one trained set reaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from ..evals.statistics import Difference, FloatArray, bootstrap_ratio, critical_t, fieller, mean_covariance, mean_difference

SHOWN_FROM = 4.0
"""A ratio is shown as a figure only where |D| / SE(D) is at least this: below it the ratio's distribution is far from normal."""
FEWEST_ITEMS = 40
"""Nor is it shown on fewer items: on 30 its interval is wider than 1, and full passes `SHOWN_FROM` by luck (docs/statistics.md)."""


class Contribution(BaseModel):
    """C(k) = (S_k - S_base) / (S_full - S_base) = N / D, or the reason why it is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    point: float | None = Field(description="N / D; null where it may not be shown as a figure")
    fieller: tuple[float, float] | Literal["unbounded"] = Field(description="Fieller's set; unbounded: D cannot be told from zero")
    bootstrap: tuple[float, float] | None = Field(description="percentile interval, the policies resampled together; null where unbounded")
    gain: Difference = Field(description="N: this policy minus base, paired")
    gain_full: Difference = Field(description="D: full minus base, paired")
    to_full: Difference = Field(description="this policy minus full, paired")
    strength: float | None = Field(description="|D| / SE(D); null where SE(D) is zero")
    interval_over: Literal["items", "seeds and items"] = Field(description="what the intervals allow for; items alone: not retraining")
    items: int | None = Field(default=None, description="items that it was measured on, of all tasks together; null: not recorded")

    @property
    def strength_text(self) -> str:
        """With one digit, rounded down, so that what is below a threshold never reads as reaching it; empty without a strength."""
        return "" if self.strength is None else f"{math.floor(10 * self.strength) / 10:.1f}"


def contribution(
    base_I: ArrayLike, full_RI: ArrayLike, layer_RI: ArrayLike, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Contribution:
    """C(k) with Fieller's set and a paired bootstrap, from item rates on the same items.

    base_I: share of right samples per item, (I,). full_RI, layer_RI: the same after training, one row per training seed, rows paired
    by seed ((I,) is one seed). Raises ValueError where the shapes differ.
    """
    return contribution_over_tasks([base_I], [full_RI], [layer_RI], level=level, draws=draws, seed=seed)


def contribution_over_tasks(
    base_TI: Sequence[ArrayLike],
    full_TRI: Sequence[ArrayLike],
    layer_TRI: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Contribution:
    """C(k) of the average over tasks: the ratio of the mean gains, as C_math over its suites; never the mean of the tasks' ratios,
    which a task without gain alone could move anywhere.

    Lists with one entry for each task, as in `contribution`; the rows of all tasks are the same training seeds. Raises ValueError
    where the shapes differ.
    """
    numerator_TRI, denominator_TRI = [], []
    for base_I, full_RI, layer_RI in zip(base_TI, full_TRI, layer_TRI, strict=True):
        base = np.asarray(base_I, dtype=np.float64)
        full, layer = np.atleast_2d(np.asarray(full_RI, dtype=np.float64)), np.atleast_2d(np.asarray(layer_RI, dtype=np.float64))
        if base.ndim != 1 or full.shape != layer.shape or full.shape[1] != len(base):
            raise ValueError(f"contribution needs (I,), (R, I) and (R, I), got {base.shape}, {full.shape} and {layer.shape}")
        numerator_TRI.append(layer - base)
        denominator_TRI.append(full - base)
    gain, gain_full = mean_difference(numerator_TRI, level), mean_difference(denominator_TRI, level)
    strength = abs(gain_full.difference) / gain_full.se if gain_full.se > 0 else None
    items = sum(gap_RI.shape[1] for gap_RI in denominator_TRI)
    shown = gain_full.difference != 0 and (strength is None or strength >= SHOWN_FROM) and items >= FEWEST_ITEMS
    interval = fieller_about_the_ratio(numerator_TRI, denominator_TRI, level)
    return Contribution(
        point=gain.difference / gain_full.difference if shown else None,
        fieller=interval or "unbounded",
        bootstrap=bootstrap_ratio(numerator_TRI, denominator_TRI, draws=draws, seed=seed, level=level) if interval else None,
        gain=gain,
        gain_full=gain_full,
        to_full=mean_difference([n - d for n, d in zip(numerator_TRI, denominator_TRI, strict=True)], level),
        strength=strength,
        interval_over="items" if len(denominator_TRI[0]) == 1 else "seeds and items",
        items=items,
    )


def fieller_about_the_ratio(
    numerator_TRI: Sequence[FloatArray], denominator_TRI: Sequence[FloatArray], level: float = 0.95
) -> tuple[float, float] | None:
    """Fieller's set of C = N / D, or None where it is unbounded. N and D: means over tasks of arrays (R, I), the same seeds and items.

    What is tested at each ratio r is N - r D, and near the estimate c the items that all policies solve or fail alike cancel in it:
    seeds may rule its variance where items rule those of N and D. So the set is computed for (N - c D) / D, which is C - c, and the
    variance and degrees of freedom are measured where they matter, at c and at infinity (D, which decides what is unbounded). The critical
    value is Student's t with the fewer of the two.
    """
    numerator, denominator = (float(np.mean([x_RI.mean() for x_RI in x_TRI])) for x_TRI in (numerator_TRI, denominator_TRI))
    if denominator == 0:
        return None
    c = numerator / denominator
    rest_and_full = [np.stack([n - c * d, d], axis=-1) for n, d in zip(numerator_TRI, denominator_TRI, strict=True)]
    covariance, freedom = mean_covariance(*rest_and_full)
    found = fieller(0.0, denominator, covariance, critical_t(freedom.min(), level))
    return (c + found[0], c + found[1]) if found else None
