"""The statistics of an evaluation: numpy and scipy only, no model, no files.

Shapes are part of the names: `I` items, `S` samples of one item, `R` training seeds, `J` quantities measured together, `B` bootstrap draws.
`correct_IS` holds 0 or 1; `rate_RI` holds each item's share of right samples, one row per training seed.

Items are the unit of sampling: the S answers to one item are not independent, so they are averaged first and only items are
counted (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640). Where there are several training seeds they are a second
unit, crossed with the items. With one seed every interval is over items only and says nothing about training again; callers
must label it so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """A share between 0 and 1 with its uncertainty."""

    mean: float
    se: float
    """Standard error, clustered by item (and by training seed where there are several)."""
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much more one policy solves than another on the same items."""

    difference: float
    se: float
    """Standard error of the paired difference."""
    low: float
    high: float
    p: float
    """Two-sided p value of the paired t test that the difference is zero."""
    detectable: float
    """Smallest true difference that this comparison would find in 80% of repetitions."""


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a share of independent trials (Wilson 1927); both arguments may be fractional effective counts."""
    if not n > 0 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n > 0, got {successes} of {n}")
    return _wilson(successes / n, n, float(stats.norm.ppf(0.5 + level / 2)))


def _wilson(p: float, n: float, critical: float) -> tuple[float, float]:
    z2 = critical**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = critical / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
    # At 0 and 1 the bound is exact; rounding must not leave it a hair inside.
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def pass_at_k(correct_IS: ArrayLike, k: int) -> float:
    """Chance that at least one of k samples is right, averaged over items: mean of 1 - C(n - c, k) / C(n, k).

    Unbiased, unlike 1 - (1 - p)^k (Chen et al. 2021, arXiv:2107.03374, equation 1). NaN where an item has fewer than k samples.
    """
    correct = _items_by_samples(correct_IS)
    n = correct.shape[1]
    if k < 1:
        raise ValueError(f"pass@k needs k >= 1, got {k}")
    if n < k:
        return math.nan
    wrong_I = n - correct.sum(axis=1)
    drawn = np.arange(k)
    miss_I = np.prod(np.clip(wrong_I[:, None] - drawn, 0, None) / (n - drawn), axis=1)
    return float(1 - miss_I.mean())


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer. None (nothing could be extracted) never wins unless there is nothing else.

    Among equally frequent answers the one that was sampled first wins: samples are exchangeable, so this is as good as a random
    draw, and it depends neither on how the answers are spelled nor on which of them is right.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=counts.__getitem__) if counts else None  # max and Counter both keep the first


def majority_correct(answers_IS: Sequence[Sequence[str | None]], correct_IS: ArrayLike, k: int) -> FloatArray:
    """Per item, the share of right majority votes over its floor(S / k) disjoint blocks of k samples; shape (I,).

    Self-consistency (Wang et al. 2023, arXiv:2203.11171). Disjoint blocks keep every vote an independent draw. The vote is right
    where the first sample that gave the winning answer is.
    """
    correct = _items_by_samples(correct_IS)
    samples = correct.shape[1]
    if not 1 <= k <= samples:
        raise ValueError(f"maj@{k} needs 1 <= k <= {samples} samples")
    vote_I = np.zeros(len(correct))
    for i, answers in enumerate(answers_IS):
        votes = []
        for start in range(0, samples - k + 1, k):
            winner = majority(answers[start : start + k])
            votes.append(0.0 if winner is None else correct[i, answers.index(winner, start)])
        vote_I[i] = np.mean(votes)
    return vote_I


def maj_at_k(answers_IS: Sequence[Sequence[str | None]], correct_IS: ArrayLike, k: int) -> float:
    """Share of right majority votes of k samples, averaged over items."""
    return float(majority_correct(answers_IS, correct_IS, k).mean())


def mean_and_se(correct_IS: ArrayLike) -> tuple[float, float]:
    """pass@1 and its standard error clustered by item: s(item means) / sqrt(I) (Miller 2024)."""
    rate_I = _items_by_samples(correct_IS).mean(axis=1)
    return float(rate_I.mean()), math.sqrt(mean_covariance(rate_I[None, :, None])[0][0, 0])


def mean_covariance(x_RIJ: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Covariance (J, J) of the mean over seeds and items of J quantities, and the degrees of freedom (J,) of its diagonal.

    One seed: s^2 / I with I - 1 degrees of freedom. Several: seeds and items are crossed random effects, so the variance is
    between seeds / R + between items / I - residual / (R I) (two-way analysis of variance without replication; both observed
    terms contain the residual, hence the subtraction), and at least the larger of the two terms. Degrees of freedom by
    Satterthwaite (1946), never fewer than the smaller of R - 1 and I - 1. Simulated at 95% over mixtures of the three variances, t
    intervals from these cover .94 to .98 with 5 seeds, .93 to .98 with 3 and .89 to .98 with 2.
    """
    seeds, items, _ = x_RIJ.shape
    if items < 2:
        raise ValueError("a standard error needs at least 2 items")
    item_RJ, seed_IJ, grand_J = x_RIJ.mean(axis=1), x_RIJ.mean(axis=0), x_RIJ.mean(axis=(0, 1))

    def scatter(centred: FloatArray, freedom: int) -> FloatArray:
        flat = centred.reshape(-1, centred.shape[-1])
        return flat.T @ flat / freedom

    between_items = scatter(seed_IJ - grand_J, items - 1) / items
    if seeds == 1:
        return between_items, np.full(len(grand_J), items - 1.0)
    between_seeds = scatter(item_RJ - grand_J, seeds - 1) / seeds
    residual = scatter(x_RIJ - item_RJ[:, None] - seed_IJ[None] + grand_J, (seeds - 1) * (items - 1)) / (seeds * items)
    covariance = between_seeds + between_items - residual
    variance = np.maximum.reduce([np.diag(covariance), np.diag(between_seeds), np.diag(between_items)])
    limit = np.sqrt(np.outer(variance, variance))
    covariance = np.clip(covariance, -limit, limit)
    np.fill_diagonal(covariance, variance)
    spread = (
        np.diag(between_seeds) ** 2 / (seeds - 1)
        + np.diag(between_items) ** 2 / (items - 1)
        + np.diag(residual) ** 2 / ((seeds - 1) * (items - 1))
    )
    fewest = min(seeds, items) - 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(spread > 0, variance**2 / spread, items - 1.0)  # nothing varies: not even seeds
    return covariance, np.maximum(freedom, fewest)


def pass_rate(rate_RI: ArrayLike, level: float = 0.95) -> Rate:
    """Mean over seeds and items with a Wilson interval at the effective number of trials p(1 - p) / SE^2.

    Unlike mean +- t SE it stays between 0 and 1 and does not collapse where every item has the same outcome; there the effective
    number is the number of items. t replaces z. (Franco et al. 2019, "Comparative study of confidence intervals for proportions in
    complex sample surveys".)
    """
    rates = np.atleast_2d(np.asarray(rate_RI, dtype=np.float64))
    covariance, freedom = mean_covariance(rates[:, :, None])
    mean, se = float(rates.mean()), math.sqrt(covariance[0, 0])
    effective = mean * (1 - mean) / se**2 if se > 0 and 0 < mean < 1 else rates.shape[1]
    low, high = _wilson(mean, effective, critical_t(freedom[0], level))
    return Rate(mean, se, low, high)


def paired_difference(a_RI: ArrayLike, b_RI: ArrayLike, level: float = 0.95) -> Difference:
    """a - b on the same items: SE = sd(a_i - b_i) / sqrt(I) (Miller 2024), t interval and paired t test.

    Both are item rates, (I,) or (R, I). Several training seeds are paired too (row r of both was trained with the same seed); a
    policy without training seed, (I,), is compared with every row.
    """
    a, b = np.asarray(a_RI, dtype=np.float64), np.asarray(b_RI, dtype=np.float64)
    if a.shape[-1] != b.shape[-1] or (a.ndim == b.ndim == 2 and a.shape != b.shape):
        raise ValueError(f"a paired difference needs the same items and seeds, got shapes {a.shape} and {b.shape}")
    gap = np.atleast_2d(a - b)
    covariance, freedom = mean_covariance(gap[:, :, None])
    difference, se = float(gap.mean()), math.sqrt(covariance[0, 0])
    half = critical_t(freedom[0], level) * se
    p = float(2 * stats.t.sf(abs(difference) / se, freedom[0])) if se > 0 else float(difference == 0)
    return Difference(difference, se, difference - half, difference + half, p, minimum_detectable_effect(se, freedom[0], level))


def minimum_detectable_effect(se: float, freedom: float = math.inf, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided test finds with probability `power`: (t_level + t_power) SE (Miller 2024)."""
    return (critical_t(freedom, level) + float(stats.t.ppf(power, freedom))) * se


def seed_interval(mean_R: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """t interval with R - 1 degrees of freedom over the means of R training seeds: other seeds, these very items. Needs R >= 2."""
    means = np.asarray(mean_R, dtype=np.float64)
    if means.ndim != 1 or len(means) < 2:
        raise ValueError("an interval over training seeds needs at least 2 seeds")
    half = critical_t(len(means) - 1, level) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return float(means.mean()) - half, float(means.mean()) + half


def critical_t(freedom: float, level: float = 0.95) -> float:
    """Two-sided critical value of Student's t; infinite freedom gives the normal's."""
    return float(stats.t.ppf(0.5 + level / 2, freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for testing all of them (Holm 1979), in the order given."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def fieller(numerator: float, denominator: float, covariance: FloatArray, critical: float) -> tuple[float, float] | None:
    """Confidence set of a ratio N / D: {r : (N - r D)^2 <= t^2 (V_NN - 2 r V_ND + r^2 V_DD)} (Fieller 1954).

    `covariance` is that of (N, D), shape (2, 2). None means unbounded: D cannot be told from zero (D^2 <= t^2 V_DD), so arbitrarily large
    ratios belong to the set.
    """
    t2 = critical**2
    a = denominator**2 - t2 * covariance[1, 1]
    b = numerator * denominator - t2 * covariance[0, 1]
    c = numerator**2 - t2 * covariance[0, 0]
    if a <= 0:
        return None
    root = math.sqrt(max(0.0, b * b - a * c))
    return (b - root) / a, (b + root) / a


def bootstrap_ratio(
    numerator_RI: FloatArray, denominator_RI: FloatArray, *, draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of mean(N) / mean(D): items, and training seeds where there are several, are drawn again for both together.

    Efron and Tibshirani 1993, chapter 13. With three to five seeds this hierarchical bootstrap covers less than it says; Fieller's
    set is the primary one. Draws whose denominator is exactly zero are left out.
    """
    rng = np.random.default_rng(seed)
    seeds, items = denominator_RI.shape
    seed_BR = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws).astype(np.float64)
    item_BI = rng.multinomial(items, np.full(items, 1 / items), size=draws).astype(np.float64)
    numerator_B = ((seed_BR @ numerator_RI) * item_BI).sum(axis=1)
    denominator_B = ((seed_BR @ denominator_RI) * item_BI).sum(axis=1)
    usable = denominator_B != 0
    low, high = np.quantile(numerator_B[usable] / denominator_B[usable], [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _items_by_samples(correct_IS: ArrayLike) -> FloatArray:
    correct = np.asarray(correct_IS, dtype=np.float64)
    if correct.ndim != 2 or 0 in correct.shape:
        raise ValueError(f"outcomes must be items x samples, got shape {correct.shape}")
    return correct
