"""The statistics of an evaluation: numpy and scipy only, no model, no files.

Shapes are part of the names: `I` items, `S` samples of one item, `R` training seeds, `J` quantities measured together, `T` tasks
(a list: they have different numbers of items), `B` bootstrap draws. `correct_IS` holds 0 or 1; `rate_RI` holds each item's share of
right samples, one row per training seed.

Items are the unit of sampling: the S answers to one item are not independent, so they are averaged first and only items are
counted (Miller 2024, "Adding Error Bars to Evals", arXiv:2411.00640). Where there are several training seeds they are a second
unit, crossed with the items. With one seed every interval is over items only and does not allow for other training seeds; callers
must label it so. docs/statistics.md states what each interval is for, and bench/coverage.py measures how often it is right.
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
WITHIN = 0.8
"""How much of what the residual explains of the variance between seeds counts in its degrees of freedom (`mean_covariance`)."""


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
    """The smallest true difference that this comparison detects with a power of 80%."""


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


def mean_covariance(*task_RIJ: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Covariance (J, J) of the mean over seeds and items of J quantities, and the degrees of freedom (J,) of its diagonal.

    Several tasks, each (R, I, J) with items of its own and the same seeds, count equally: the mean is that of their means.

    One seed: s^2 / I with I - 1 degrees of freedom. Several: seeds and items are crossed random effects, so the variance is
    between seeds / R + between items / I - residual / (R I) (two-way analysis of variance without replication; both observed
    terms contain the residual, hence the subtraction), and at least the larger of the two terms.

    Degrees of freedom by Satterthwaite (1946), never fewer than the smaller of R - 1 and I - 1. With f = R - 1 as small as 2 his
    estimate is too large exactly where the seeds happen to agree, since an estimate with f degrees of freedom has a squared
    coefficient of variation of 2 / f; so the square of what the seeds add beyond the residual is counted 1 + 2 / f times. It is too
    small where seeds add nothing, since the residual is known better than the seeds tell; so what it explains of the variance
    between seeds is counted `WITHIN` times. Simulated at 95% over mixtures of the three variances, t intervals from these cover .945 to
    .98 with 5 seeds, .93 to .98 with 3 and .89 to .98 with 2.
    """
    seeds, tasks = len(task_RIJ[0]), len(task_RIJ)
    if any(len(x) != seeds for x in task_RIJ) or min(x.shape[1] for x in task_RIJ) < 2:
        raise ValueError(f"a standard error needs at least 2 items, and tasks the same seeds; got {[x.shape[:2] for x in task_RIJ]}")
    by_item = [_Component.of(x.mean(axis=0), x.shape[1] - 1, x.shape[1] * tasks**2) for x in task_RIJ]
    between_items = np.sum([part.covariance for part in by_item], axis=0)
    if seeds == 1:
        return between_items, _satterthwaite(np.diag(between_items), by_item)
    by_cell = [
        _Component.of(x - x.mean(axis=0) - x.mean(axis=1)[:, None], (seeds - 1) * (x.shape[1] - 1), seeds * x.shape[1] * tasks**2)
        for x in task_RIJ
    ]
    residual = np.sum([part.covariance for part in by_cell], axis=0)
    by_seed = _Component.of(np.mean([x.mean(axis=1) for x in task_RIJ], axis=0), seeds - 1, seeds)
    covariance = by_seed.covariance + between_items - residual
    variance_J = np.maximum.reduce([np.diag(x) for x in (covariance, by_seed.covariance, between_items)])
    limit = np.sqrt(np.outer(variance_J, variance_J))
    covariance = np.clip(covariance, -limit, limit)
    np.fill_diagonal(covariance, variance_J)
    seeds_J = np.diag(by_seed.covariance)
    beyond_J = np.maximum(seeds_J - np.diag(residual), 0)
    counted_J = (beyond_J + WITHIN * (seeds_J - beyond_J)) ** 2 + 2 / by_seed.freedom * beyond_J**2
    more_J = (counted_J - seeds_J**2) / by_seed.freedom
    return covariance, _satterthwaite(variance_J, [by_seed, *by_item, *by_cell], more_J)


@dataclass(frozen=True)
class _Component:
    """A term of the variance of a mean: its covariance (J, J) and the degrees of freedom it is estimated with."""

    covariance: FloatArray
    freedom: int

    @classmethod
    def of(cls, deviations: FloatArray, freedom: int, count: int) -> _Component:
        """From `count` effects (..., J) whose mean need not be zero."""
        flat = deviations.reshape(-1, deviations.shape[-1])
        flat = flat - flat.mean(axis=0)
        return cls(flat.T @ flat / (freedom * count), freedom)


def _satterthwaite(variance_J: FloatArray, parts: Sequence[_Component], more_J: FloatArray | float = 0.0) -> FloatArray:
    """Degrees of freedom (J,) of a variance made of independent terms; `more_J` adds to the sum of their squares over theirs."""
    spread_J = more_J + np.sum([np.diag(part.covariance) ** 2 / part.freedom for part in parts], axis=0)
    fewest = float(min(part.freedom for part in parts))
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom_J = np.where(spread_J > 0, variance_J**2 / spread_J, max(part.freedom for part in parts))  # 0 / 0: nothing varies
    return np.maximum(freedom_J, fewest)


def pass_rate(rate_RI: ArrayLike, level: float = 0.95) -> Rate:
    """Mean over seeds and items with a Wilson interval at the effective number of trials p(1 - p) / SE^2.

    Unlike mean +- t SE it stays between 0 and 1 and does not collapse where every item has the same outcome; there the effective
    number is the number of items. t replaces z. (Franco et al. 2019, "Comparative study of confidence intervals for proportions in
    complex sample surveys".)
    """
    return mean_pass_rate([np.atleast_2d(np.asarray(rate_RI, dtype=np.float64))], level)


def mean_pass_rate(rate_TRI: Sequence[FloatArray], level: float = 0.95) -> Rate:
    """Mean over tasks of their pass rates, (R, I) each with the same seeds; the interval as in `pass_rate`."""
    covariance, freedom = mean_covariance(*(rate_RI[:, :, None] for rate_RI in rate_TRI))
    mean, trials = float(np.mean([rate_RI.mean() for rate_RI in rate_TRI])), sum(rate_RI.shape[1] for rate_RI in rate_TRI)
    return share(mean, math.sqrt(covariance[0, 0]), trials, freedom[0], level)


def share(mean: float, se: float, trials: float, freedom: float, level: float = 0.95) -> Rate:
    """A share with its standard error and Wilson's interval at the effective number of trials; `trials`: the number where SE is 0."""
    effective = mean * (1 - mean) / se**2 if se > 0 and 0 < mean < 1 else trials
    return Rate(mean, se, *_wilson(mean, effective, critical_t(freedom, level)))


def paired_difference(a_RI: ArrayLike, b_RI: ArrayLike, level: float = 0.95) -> Difference:
    """a - b on the same items: SE = sd(a_i - b_i) / sqrt(I) (Miller 2024), t interval and paired t test.

    Both are item rates, (I,) or (R, I). Several training seeds are paired too (row r of both was trained with the same seed); a
    policy without training seed, (I,), is compared with every row.
    """
    a, b = np.asarray(a_RI, dtype=np.float64), np.asarray(b_RI, dtype=np.float64)
    if a.shape[-1] != b.shape[-1] or (a.ndim == b.ndim == 2 and a.shape != b.shape):
        raise ValueError(f"a paired difference needs the same items and seeds, got shapes {a.shape} and {b.shape}")
    return mean_difference([np.atleast_2d(a - b)], level)


def mean_difference(gap_TRI: Sequence[FloatArray], level: float = 0.95) -> Difference:
    """Mean over tasks of a paired difference: `gap_TRI` holds a - b of every seed and item, one array for each task."""
    covariance, freedom = mean_covariance(*(gap_RI[:, :, None] for gap_RI in gap_TRI))
    difference, se = float(np.mean([gap_RI.mean() for gap_RI in gap_TRI])), math.sqrt(covariance[0, 0])
    half = critical_t(freedom[0], level) * se
    p = float(2 * stats.t.sf(abs(difference) / se, freedom[0])) if se > 0 else float(difference == 0)
    return Difference(difference, se, difference - half, difference + half, p, minimum_detectable_effect(se, freedom[0], level))


def mcnemar(a_I: ArrayLike, b_I: ArrayLike) -> float:
    """Exact two-sided p value that two policies solve as many items, from one outcome (0 or 1) of each on the same items.

    Of the items that just one of them solves each is as likely to be a's as b's: a binomial test (McNemar 1947). For greedy
    decoding, where few items differ and the t test's p value is only approximate; 1 where none does.
    """
    a, b = np.asarray(a_I), np.asarray(b_I)
    if a.ndim != 1 or a.shape != b.shape or not np.isin([a, b], [0, 1]).all():
        raise ValueError(f"McNemar's test needs one outcome of 0 or 1 per item, got shapes {a.shape} and {b.shape}")
    only_a, only_b = int((a > b).sum()), int((b > a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def minimum_detectable_effect(se: float, freedom: float = math.inf, level: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference that a two-sided test finds with probability `power`: (t_level + t_power) SE (Miller 2024)."""
    return (critical_t(freedom, level) + float(stats.t.ppf(power, freedom))) * se


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
    numerator_TRI: Sequence[FloatArray], denominator_TRI: Sequence[FloatArray], *, draws: int, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of mean(N) / mean(D), the means over tasks; items, and training seeds where there are several, are drawn
    again for both together.

    Efron and Tibshirani 1993, chapter 13. R - 1 of R seeds are drawn (`seed_weights`). At 95% this bootstrap covers
    .83 to .99 with three to five seeds; Fieller's set is the primary one. Draws whose denominator is exactly zero are left out.
    """
    rng = np.random.default_rng(seed)
    seed_BR = seed_weights(rng, len(denominator_TRI[0]), draws)
    numerator_B, denominator_B = np.zeros(draws), np.zeros(draws)
    for numerator_RI, denominator_RI in zip(numerator_TRI, denominator_TRI, strict=True):
        item_BI = item_weights(rng, denominator_RI.shape[1], draws)
        numerator_B += ((seed_BR @ numerator_RI) * item_BI).sum(axis=1)
        denominator_B += ((seed_BR @ denominator_RI) * item_BI).sum(axis=1)
    usable = denominator_B != 0
    low, high = np.quantile(numerator_B[usable] / denominator_B[usable], [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def item_weights(rng: np.random.Generator, items: int, draws: int) -> FloatArray:
    """Weights (B, I) that draw the items again with replacement; each row adds up to 1."""
    return rng.multinomial(items, np.full(items, 1 / items), size=draws) / items


def seed_weights(rng: np.random.Generator, seeds: int, draws: int) -> FloatArray:
    """Weights (B, R) that draw R - 1 of R seeds with replacement; R of R would understate their variance (Rao and Wu 1988)."""
    drawn = max(1, seeds - 1)
    return rng.multinomial(drawn, np.full(seeds, 1 / seeds), size=draws) / drawn


def _items_by_samples(correct_IS: ArrayLike) -> FloatArray:
    correct = np.asarray(correct_IS, dtype=np.float64)
    if correct.ndim != 2 or 0 in correct.shape:
        raise ValueError(f"outcomes must be items x samples, got shape {correct.shape}")
    return correct
