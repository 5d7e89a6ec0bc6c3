"""What compares layers and policies with each other: the best layer without selection bias, the share of the middle third, agreement of
two profiles, overlap of solved sets, and a vote over policies.

Shapes as in statistics.py; besides, `K` layers, `P` policies or profiles and `N` pairs of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ..evals.records import Outcomes
from ..evals.statistics import (
    Difference,
    FloatArray,
    Rate,
    bootstrap_ratio,
    majority_correct,
    mean_covariance,
    mean_difference,
    paired_difference,
    pass_rate,
    share,
)
from .contribution import SHOWN_FROM, Contribution, contribution, fieller_about_the_ratio


@dataclass(frozen=True)
class BestLayer:
    """A layer and what it reaches on data that had no part in choosing it."""

    layer: int
    """Its place in the profile, from 0."""
    contribution: Contribution


def best_layer(base_I: ArrayLike, full_RI: ArrayLike, layer_KRI: ArrayLike, *, seed: int = 0) -> BestLayer:
    """The layer with the highest pass rate on one half of the items, and its C(k) on the other.

    With several training seeds their first half (rounded down) chooses, too, and the rest reports: then it is unbiased for training again,
    with one seed for these very weights on new items. The highest of K estimates is on average above the truth of its layer ("winner's
    curse"; Efron 2011, "Tweedie's formula and selection bias"), so max C(k) on one and the same data is biased upward. The first of equal
    layers is chosen. seed: of the random half of the items. Raises ValueError for fewer than 4 items.
    """
    base, full, layers = (np.asarray(x, dtype=np.float64) for x in (base_I, full_RI, layer_KRI))
    seeds, items = full.shape
    if layers.shape[1:] != full.shape or base.shape != (items,):
        raise ValueError(f"best_layer needs (I,), (R, I) and (K, R, I), got {base.shape}, {full.shape} and {layers.shape}")
    if items < 4:
        raise ValueError(f"best_layer needs 4 items or more, got {items}")
    choosing_I = np.random.default_rng(seed).permutation(items) < items // 2
    choosing_R, reporting_R = (slice(seeds // 2), slice(seeds // 2, None)) if seeds > 1 else (slice(None), slice(None))
    best = int(np.argmax(layers[:, choosing_R][..., choosing_I].mean(axis=(1, 2))))
    reported = (base[~choosing_I], full[reporting_R][:, ~choosing_I], layers[best, reporting_R][:, ~choosing_I])
    return BestLayer(best, contribution(*reported))


@dataclass(frozen=True)
class MiddleThird:
    """The share of the total contribution that the layers in the middle third of the model make up."""

    layers: tuple[int, ...]
    """Those of the middle third that were trained."""
    of: int
    """Layers that were trained in all: if all contributed alike, the share would be `len(layers) / of`."""
    point: float | None
    """None where the total cannot be told from zero clearly enough to divide by (`SHOWN_FROM`)."""
    fieller: tuple[float, float] | None
    """None: unbounded."""
    bootstrap: tuple[float, float] | None
    """Percentile interval over items and seeds, all layers drawn together."""


def middle_third(
    base_I: ArrayLike, layer_KRI: ArrayLike, layers: Sequence[int], depth: int, *, draws: int = 4000, seed: int = 0
) -> MiddleThird:
    """Sum of C(k) over the middle third of the layers over the sum of all. The gain of full cancels, so it is a ratio of sums of gains,
    and its intervals are those of C(k): Fieller's set (1954) and beside it a paired bootstrap.

    layer_KRI: rates of the trained layers, in the order of `layers`, their numbers. depth: layers of the model; layer k is in the middle
    third where (k + 1/2) / depth is between 1/3 and 2/3. Raises ValueError where the layers are not evenly spaced over the whole model:
    the share would speak of the choice of layers.
    """
    base, rates = np.asarray(base_I, dtype=np.float64), np.asarray(layer_KRI, dtype=np.float64)
    if rates.ndim != 3 or len(rates) != len(layers) or rates.shape[2:] != base.shape:
        raise ValueError(f"middle_third needs (I,) and (K, R, I) of K layers, got {base.shape} and {rates.shape} of {len(layers)}")
    places = sorted(layers)
    steps = {after - before for before, after in pairwise(places)}
    if len(steps) != 1 or places[0] >= (step := steps.pop()) or places[-1] + step < depth:
        raise ValueError(f"the trained layers {', '.join(map(str, places))} are not evenly spaced over the {depth} layers of the model")
    inside = [depth <= 3 * (layer + 0.5) <= 2 * depth for layer in layers]
    gain_KRI = rates - base
    numerator, denominator = [gain_KRI[inside].sum(axis=0)], [gain_KRI.sum(axis=0)]
    total = mean_difference(denominator)
    shown = total.difference != 0 and abs(total.difference) >= SHOWN_FROM * total.se
    interval = fieller_about_the_ratio(numerator, denominator)
    return MiddleThird(
        layers=tuple(sorted(layer for layer, there in zip(layers, inside, strict=True) if there)),
        of=len(layers),
        point=float(numerator[0].mean() / total.difference) if shown else None,
        fieller=interval,
        bootstrap=bootstrap_ratio(numerator, denominator, draws=draws, seed=seed) if interval else None,
    )


class Coefficient(StrEnum):
    """A measure of agreement between two profiles, from -1 to 1. Both are the same for pass rates and for C(k) where full gains."""

    SPEARMAN = "spearman"
    """Pearson's r of the ranks, ties sharing their mean rank."""
    PEARSON = "pearson"
    """r of the values."""


@dataclass(frozen=True)
class Agreement:
    """How two profiles over the same layers agree."""

    measured: float
    """Coefficient of the measured profiles: nearer to zero than the truth, since both are noisy."""
    corrected: float
    """Median of the coefficient of the true profiles, given what was measured."""
    low: float
    high: float
    """Interval of the coefficient of these layers' true profiles: on all items like these, and over retraining with several seeds."""


def correlation(a_BK: FloatArray, b_BK: FloatArray, coefficient: Coefficient) -> FloatArray:
    """Coefficient of each pair of rows, (B,); NaN where a row is constant."""
    a, b = (stats.rankdata(x, axis=1) if coefficient is Coefficient.SPEARMAN else x for x in (a_BK, b_BK))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


Tasks = Mapping[Any, tuple[float, FloatArray]]
"""A profile that is an average: for each task its weight (they add up to 1) and its rates (K, R, I)."""


def on_common_items(a: Tasks, b: Tasks) -> tuple[FloatArray, FloatArray]:
    """Two profiles that are averages over tasks as two over the items of all tasks of either, (K, R, I) each: for `profile_agreement`.

    Variances and covariances of the averages are kept: an item lies as far from the average as from the mean of its task, times
    weight x all items / items of the task; of an average without its task it tells nothing.
    """
    sizes = {task: rate_KRI.shape[2] for tasks in (a, b) for task, (_, rate_KRI) in tasks.items()}
    items = sum(sizes.values())

    def spread(tasks: Tasks) -> FloatArray:
        mean_KR = np.sum([weight * rate_KRI.mean(axis=2) for weight, rate_KRI in tasks.values()], axis=0)
        found_KRI = [np.zeros((*mean_KR.shape, size)) for size in sizes.values()]
        for deviation_KRI, (task, size) in zip(found_KRI, sizes.items(), strict=True):
            if task in tasks:
                weight, rate_KRI = tasks[task]
                deviation_KRI += weight * items / size * (rate_KRI - rate_KRI.mean(axis=2, keepdims=True))
        return mean_KR[:, :, None] + np.concatenate(found_KRI, axis=2)

    return spread(a), spread(b)


def profile_agreement(
    a_KRI: ArrayLike,
    b_KRI: ArrayLike,
    *,
    same_items: bool,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[Coefficient, Agreement]:
    """Agreement of two contribution profiles from the item rates of their layers, corrected for the noise of both, by each coefficient.

    Noise lowers the agreement of what is measured (Spearman 1904), and a bootstrap that draws the items again and ranks the layers in
    every draw adds that noise a second time: its percentile interval may miss a true .9 nearly always (bench/coverage.py). Here each
    draw is a pair of profiles as the true ones may be, given what was measured, and the layers are ranked in every draw. The model: over
    layers, the true values in both profiles are bivariate normal, mean and covariance unknown with a flat prior (Gelman 2006, "Prior
    distributions for variance parameters"); the noise of the means over items and seeds is normal, as large as the data show.

    a_KRI, b_KRI: (K, R, I), the same layers in both; seeds and items may differ in number. same_items: whether item i is the same in
    both, as for two training sets and one evaluation. Each layer's training runs count as independent of other layers'. Raises ValueError
    for fewer than 6 layers or 2 items, and for profiles without differences.
    """
    profiles = [np.asarray(x, dtype=np.float64) for x in (a_KRI, b_KRI)]
    a, b = profiles
    if a.ndim != 3 or b.ndim != 3 or len(a) != len(b) or len(a) < 6 or min(a.shape[2], b.shape[2]) < 2:
        raise ValueError(f"profiles must be (K, R, I) of the same K >= 6 layers and I >= 2 items, got {a.shape} and {b.shape}")
    if same_items and a.shape[2] != b.shape[2]:
        raise ValueError(f"the same items, but {a.shape[2]} and {b.shape[2]} of them")
    measured_PK = np.stack([x.mean(axis=(1, 2)) for x in profiles]).round(12)  # rounding errors break no ties
    if (np.ptp(measured_PK, axis=1) == 0).any():
        raise ValueError("a profile whose layers are all equal has no order to compare")
    true_BPK = _true_profiles(measured_PK, _noise_covariance(a, b, same_items), draws, np.random.default_rng(seed))
    found = {}
    for coefficient in Coefficient:
        rho_B = correlation(true_BPK[:, 0], true_BPK[:, 1], coefficient)
        low, corrected, high = np.quantile(rho_B, [0.5 - level / 2, 0.5, 0.5 + level / 2])
        measured = correlation(measured_PK[:1], measured_PK[1:], coefficient)[0]
        found[coefficient] = Agreement(float(measured), float(corrected), float(low), float(high))
    return found


def _noise_covariance(a_KRI: FloatArray, b_KRI: FloatArray, same_items: bool) -> FloatArray:
    """Covariance (2K, 2K) of the measured values around the true ones, a's layers first.

    Items are common to all layers of a profile. What seeds add to the variance is averaged over layers: so few seeds do not tell
    layers apart.
    """
    layers = len(a_KRI)
    rates_JI = np.concatenate([a_KRI.mean(axis=1), b_KRI.mean(axis=1)]) if same_items else None
    noise = np.zeros((2 * layers, 2 * layers))
    for at, x_KRI in ((slice(0, layers), a_KRI), (slice(layers, None), b_KRI)):
        seeds, items = x_KRI.shape[1:]
        noise[at, at] = np.cov(x_KRI.mean(axis=1)) / items
        if seeds > 1:
            covariance, _ = mean_covariance(np.moveaxis(x_KRI, 0, -1))
            beyond_items = float(np.mean(np.diag(covariance) - np.diag(noise[at, at])))
            noise[at, at] += max(0.0, beyond_items) * np.eye(layers)
    if rates_JI is not None:
        across = np.cov(rates_JI)[:layers, layers:] / rates_JI.shape[1]
        noise[:layers, layers:], noise[layers:, :layers] = across, across.T
    return noise


def _true_profiles(measured_PK: FloatArray, noise: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws (B, 2, K) of the true profiles given the measured ones, by Gibbs sampling; the first tenth is thrown away.

    In turn: the covariance between layers given their values is inverse Wishart, with K - 4 degrees of freedom under the flat
    prior; the mean is normal; the values are normal: drawn from the model, with noise, and moved by what the measurement then still
    differs by (Matheron's rule).
    """
    layers, rounds = measured_PK.shape[1], draws + draws // 10
    bartlett_B22 = np.zeros((rounds, 2, 2))  # its square is Wishart (Bartlett 1933)
    for at in (0, 1):
        bartlett_B22[:, at, at] = np.sqrt(rng.chisquare(layers - 4 - at, rounds))
    bartlett_B22[:, 1, 0] = rng.normal(size=rounds)
    inverse_B22 = np.linalg.inv(bartlett_B22).transpose(0, 2, 1)
    errors_BJ = rng.multivariate_normal(np.zeros(2 * layers), noise, size=rounds, method="svd")
    true_PK, kept = measured_PK, []
    for error_J, inverse in zip(errors_BJ, inverse_B22, strict=True):
        mean_P = true_PK.mean(axis=1)
        scatter = (true_PK - mean_P[:, None]) @ (true_PK - mean_P[:, None]).T
        scatter += 1e-9 * np.trace(scatter) * np.eye(2)  # equal profiles
        root = np.linalg.cholesky(scatter) @ inverse  # of the covariance between layers
        between = root @ root.T
        prior_J = (mean_P[:, None] + root @ (rng.normal(size=(2, 1)) / math.sqrt(layers) + rng.normal(size=(2, layers)))).ravel()
        signal = np.kron(between, np.eye(layers))
        true_J = prior_J + signal @ np.linalg.solve(signal + noise, measured_PK.ravel() - prior_J - error_J)
        true_PK = true_J.reshape(2, layers)
        kept.append(true_PK)
    return np.stack(kept[draws // 10 :])


def jaccard(solved_PI: ArrayLike, level: float = 0.95) -> Rate:
    """Mean over pairs of policies of |both solve| / |either solves|, with an interval over items (linearised ratio, as `share`).

    solved_PI: one outcome (0 or 1) of each policy per item. Samples of one and the same policy in place of policies give what chance alone
    makes of the overlap: only below that do policies solve different items. Raises ValueError where two policies solve nothing at all.
    """
    solved = np.asarray(solved_PI)
    if solved.ndim != 2 or len(solved) < 2 or solved.shape[1] < 2 or not np.isin(solved, [0, 1]).all():
        raise ValueError(f"jaccard needs outcomes of 0 or 1, policies x items, at least 2 x 2; got shape {solved.shape}")
    first, second = np.triu_indices(len(solved), 1)
    both_NI = (solved[first] * solved[second]).astype(np.float64)
    either_NI = np.maximum(solved[first], solved[second]).astype(np.float64)
    union_N = either_NI.sum(axis=1)
    if not union_N.all():
        raise ValueError("two policies solve no item, so their sets have no overlap to measure")
    overlap_N = both_NI.sum(axis=1) / union_N
    items = solved.shape[1]
    influence_I = ((both_NI - overlap_N[:, None] * either_NI) / union_N[:, None] * items).mean(axis=0)
    se = float(influence_I.std(ddof=1)) / math.sqrt(items)
    return share(float(overlap_N.mean()), se if se > 1e-12 else 0.0, float(union_N.mean()), items - 1, level)  # rounding is no spread


@dataclass(frozen=True)
class VoteComparison:
    """A majority vote over policies against one over as many samples of a single policy, on the same items."""

    samples: int
    """Samples in each vote."""
    policies: Rate
    single: Rate
    difference: Difference
    """Vote over policies minus vote of the single policy, paired."""


def compare_votes(policies: Sequence[Outcomes], single: Outcomes, each: int = 1, level: float = 0.95) -> VoteComparison:
    """Vote over `each` samples of each of P policies, against self-consistency of one policy with the same P x each samples.

    Both are averaged over the disjoint blocks that the samples allow. Raises ValueError where items differ, where there is nothing to
    vote on, or where samples are too few.
    """
    if any(outcomes.items != single.items for outcomes in policies):
        raise ValueError("a paired comparison of votes needs the same items in the same order")
    if not all(outcomes.votable for outcomes in (*policies, single)):
        raise ValueError("there is nothing to vote on: the environment names no answers")
    votes = len(policies) * each
    vote_I = vote_over_policies(policies, each)
    single_I = majority_correct(single.answers_IS, single.correct_IS, votes)
    return VoteComparison(votes, pass_rate(vote_I, level), pass_rate(single_I, level), paired_difference(vote_I, single_I, level))


def vote_over_policies(policies: Sequence[Outcomes], each: int = 1) -> FloatArray:
    """Per item, the share of right majority votes over blocks of `each` samples of every policy; shape (I,).

    Policies take turns in a block, and another one begins at each item: the first sample breaks ties, so no policy is favoured.
    """
    there = min(outcomes.correct_IS.shape[1] for outcomes in policies)
    if not 1 <= each <= there:
        raise ValueError(f"a vote over {each} samples of each policy, which have {there}")
    samples = there // each * each
    answers_IS, correct_IS = [], []
    for item in range(len(policies[0].items)):
        turns = [policies[(item + turn) % len(policies)] for turn in range(len(policies))]
        answers_IS.append([outcomes.answers_IS[item][s] for s in range(samples) for outcomes in turns])
        correct_IS.append([outcomes.correct_IS[item, s] for s in range(samples) for outcomes in turns])
    return majority_correct(answers_IS, correct_IS, len(policies) * each)
