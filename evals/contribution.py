"""Layer contribution: the share of the full run's gain that one trained set reaches."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, Field

from .statistics import Difference, bootstrap_ratio, critical_t, fieller, mean_covariance, paired_difference

SHOWN_FROM = 4.0
"""A ratio is shown as a figure only where |D| / SE(D) is at least this: below it the ratio's distribution is far from normal."""


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


def contribution(
    base_I: ArrayLike, full_RI: ArrayLike, layer_RI: ArrayLike, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Contribution:
    """C(k) with Fieller's set and a paired bootstrap, from item rates on the same items.

    base_I: share of right samples per item, (I,). full_RI, layer_RI: the same after training, one row per training seed, rows paired
    by seed ((I,) is one seed). The critical value is Student's t with the fewer of the degrees of freedom of N and D. Raises
    ValueError where the shapes differ.
    """
    base = np.asarray(base_I, dtype=np.float64)
    full, layer = np.atleast_2d(np.asarray(full_RI, dtype=np.float64)), np.atleast_2d(np.asarray(layer_RI, dtype=np.float64))
    if base.ndim != 1 or full.shape != layer.shape or full.shape[1] != len(base):
        raise ValueError(f"contribution needs (I,), (R, I) and (R, I), got {base.shape}, {full.shape} and {layer.shape}")
    gain_RI, full_RI = layer - base, full - base
    numerator, denominator = float(gain_RI.mean()), float(full_RI.mean())
    covariance, freedom = mean_covariance(np.stack([gain_RI, full_RI], axis=-1))
    se = math.sqrt(covariance[1, 1])
    strength = abs(denominator) / se if se > 0 else None
    shown = denominator != 0 and (strength is None or strength >= SHOWN_FROM)
    interval = fieller(numerator, denominator, covariance, critical_t(freedom.min(), level))
    return Contribution(
        point=numerator / denominator if shown else None,
        fieller=interval or "unbounded",
        bootstrap=bootstrap_ratio(gain_RI, full_RI, draws=draws, seed=seed, level=level) if interval else None,
        gain=paired_difference(layer, base, level),
        gain_full=paired_difference(full, base, level),
        to_full=paired_difference(layer, full, level),
        strength=strength,
        interval_over="items" if len(full) == 1 else "seeds and items",
    )
