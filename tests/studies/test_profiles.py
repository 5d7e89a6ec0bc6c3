"""What compares layers and policies: correlations, the best layer, overlap of solved sets, votes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onelayer.evals.records import Outcomes
from onelayer.evals.statistics import wilson
from onelayer.studies.profiles import (
    Coefficient,
    best_layer,
    compare_votes,
    correlation,
    jaccard,
    middle_third,
    on_common_items,
    profile_agreement,
    vote_over_policies,
)

SCIPY: dict[Coefficient, Any] = {
    Coefficient.SPEARMAN: stats.spearmanr,
    Coefficient.PEARSON: stats.pearsonr,
}


def profile(gain_K: np.ndarray, hard_I: np.ndarray, rng: np.random.Generator, seeds: int = 1) -> np.ndarray:
    """Item rates (K, R, I) of layers with these pass rates at an item of mean difficulty, 4 samples each."""
    chance = np.clip(gain_K[:, None, None] + hard_I + np.zeros((len(gain_K), seeds, len(hard_I))), 0.02, 0.98)
    return rng.binomial(4, chance) / 4


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=40), st.sampled_from(Coefficient))
def test_correlations_equal_scipy(pairs, coefficient):
    """Few values, so many ties."""
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a) and np.ptp(b):
        assert correlation(a[None], b[None], coefficient)[0] == pytest.approx(SCIPY[coefficient](a, b).statistic)


@pytest.mark.parametrize("coefficient", Coefficient)
@pytest.mark.parametrize(("seeds", "same_items"), [(1, True), (3, False)])
def test_agreement_of_noisy_profiles_is_not_lost(coefficient, seeds, same_items):
    """One and the same true profile, measured twice with much noise: the interval still reaches far above what was measured."""
    rng = np.random.default_rng(0)
    gain_K, hard_I = rng.normal(0.5, 0.02, 28), rng.normal(0, 0.2, 300)
    first, second = (profile(gain_K, hard_I, rng, seeds) for _ in range(2))
    agreement = profile_agreement(first, second, same_items=same_items)
    found = agreement[coefficient]
    assert found.measured < 0.85
    assert found.low < found.corrected < found.high and found.corrected > found.measured and found.high > 0.8
    assert agreement == profile_agreement(first, second, same_items=same_items)


def test_averages_over_tasks_keep_their_means_variances_and_covariances():
    """As C_math and C_all: one task is in both, one in either alone; another number of items and another weight each."""
    rng = np.random.default_rng(2)
    easy_K = rng.uniform(0.3, 0.7, 8)
    task = {name: profile(easy_K, rng.normal(0, 0.2, items), rng, 2) for name, items in (("both", 300), ("first", 500), ("second", 200))}
    first = {"both": (0.25, task["both"]), "first": (0.75, task["first"])}
    second = {"second": (0.5, task["second"]), "both": (0.5, task["both"])}
    a_KRI, b_KRI = on_common_items(first, second)
    assert a_KRI.shape == b_KRI.shape == (8, 2, 1000)
    for found, tasks in ((a_KRI, first), (b_KRI, second)):
        assert found.mean(axis=2) == pytest.approx(sum(weight * rate.mean(axis=2) for weight, rate in tasks.values()))
        of_mean = sum(weight**2 * np.cov(rate.mean(axis=1)) / rate.shape[2] for weight, rate in tasks.values())
        assert np.cov(found.mean(axis=1)) / 1000 == pytest.approx(of_mean, rel=0.01)
    across = np.cov(a_KRI.mean(axis=1), b_KRI.mean(axis=1))[:8, 8:] / 1000
    assert across == pytest.approx(0.25 * 0.5 * np.cov(task["both"].mean(axis=1)) / 300, rel=0.01)
    alone = {"both": (1.0, task["both"])}
    assert on_common_items(alone, alone)[0] == pytest.approx(task["both"])


def test_agreement_of_clear_profiles_is_what_was_measured():
    rng = np.random.default_rng(1)
    true = np.linspace(0.2, 0.8, 10)
    other = np.roll(true, 3)
    agreement = profile_agreement(profile(true, np.zeros(4000), rng), profile(other, np.zeros(4000), rng), same_items=True)
    found = agreement[Coefficient.SPEARMAN]
    assert (found.low, found.high) == pytest.approx((SCIPY[Coefficient.SPEARMAN](true, other).statistic,) * 2, abs=0.05)
    with pytest.raises(ValueError, match="no order"):
        profile_agreement(np.ones((8, 1, 9)), np.ones((8, 1, 9)), same_items=True)


def test_the_best_layer_is_reported_on_what_did_not_choose_it():
    """20 layers that are all equal to full: the highest on the same data is above 1, held out it is 1 on average."""
    naive, held_out = [], {1: [], 2: []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        hard_I = rng.normal(0, 0.2, 200)
        base_I, full_RI = profile(np.array([0.3]), hard_I, rng)[0, 0], profile(np.array([0.6]), hard_I, rng, 2)[0]
        layer_KRI = profile(np.full(20, 0.6), hard_I, rng, 2)
        naive.append(layer_KRI.mean(axis=(1, 2)).max() - full_RI.mean())
        for seeds, found in held_out.items():
            found.append(best_layer(base_I, full_RI[:seeds], layer_KRI[:, :seeds], seed=seed).contribution.to_full.difference)
    assert np.mean(naive) > 0.015
    for seeds, found in held_out.items():
        assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(60), seeds


def test_the_best_layer_is_found_and_parts_do_not_overlap():
    """Layer 2 is best on the items and seeds that choose, whatever it is elsewhere."""
    layer_KRI = np.full((4, 3, 50), 0.5)
    layer_KRI[2, :1] = 1.0
    layer_KRI[3, 1:] = 1.0
    base_I, full_RI = np.zeros(50), np.full((3, 50), 0.5)
    found = best_layer(base_I, full_RI, layer_KRI)
    assert (found.layer, found.contribution.gain.difference) == (2, 0.5)
    with pytest.raises(ValueError, match="4 items or more"):
        best_layer(base_I[:3], full_RI[:, :3], layer_KRI[..., :3])


def test_the_middle_third_is_the_ratio_of_sums_of_gains():
    """12 layers that gain 1, 2 ... 12 points on every item: layers 4 to 7 make up (5 + 6 + 7 + 8) / 78."""
    base_I = np.linspace(0.1, 0.6, 60)
    layer_KRI = base_I + 0.01 * np.arange(1, 13)[:, None, None] + np.zeros((12, 1, 60))
    found = middle_third(base_I, layer_KRI, range(12), 12)
    assert (found.layers, found.of, found.point) == ((4, 5, 6, 7), 12, pytest.approx(26 / 78))
    assert found.fieller == pytest.approx((26 / 78,) * 2) and found.bootstrap == pytest.approx((26 / 78,) * 2)
    every_second = middle_third(base_I, layer_KRI[1::2], range(1, 12, 2), 12)
    assert (every_second.layers, every_second.point) == ((5, 7), pytest.approx((6 + 8) / 42))
    for layers in ([0, 1, 2, 4], [4, 5, 6, 7], [0, 2, 4, 6]):
        with pytest.raises(ValueError, match="not evenly spaced over the 12 layers"):
            middle_third(base_I, layer_KRI[layers], layers, 12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_of_the_middle_third_holds_the_truth(seeds):
    """bench/coverage.py has more kinds of studies; layers without any gain have no share."""
    true_K, held, bootstrap = np.array([0.05, 0.1, 0.15, 0.2, 0.1, 0.05]), 0, 0
    rng = np.random.default_rng(3)
    for _ in range(200):
        hard_I = rng.uniform(-0.2, 0.2, 400)
        base_I, layer_KRI = profile(np.array([0.4]), hard_I, rng)[0, 0], profile(0.4 + true_K, hard_I, rng, seeds)
        found = middle_third(base_I, layer_KRI, range(6), 6, draws=200)
        assert found.fieller and found.bootstrap  # the sum is nine standard errors from zero
        held += found.fieller[0] <= 0.35 / 0.65 <= found.fieller[1]
        bootstrap += found.bootstrap[0] <= 0.35 / 0.65 <= found.bootstrap[1]
    assert 0.9 <= held / 200 <= 0.99 and 0.88 <= bootstrap / 200 <= 0.99
    base_I = profile(np.array([0.4]), hard_I, rng)[0, 0]
    none = middle_third(base_I, profile(np.full(6, 0.4), hard_I, rng, seeds), range(6), 6)
    assert none.point is None and none.fieller is None and none.bootstrap is None


def test_jaccard_of_a_pair_is_a_share_of_the_union():
    rng = np.random.default_rng(2)
    solved = (rng.random((2, 400)) < 0.5).astype(int)
    both, either = int((solved[0] & solved[1]).sum()), int((solved[0] | solved[1]).sum())
    found = jaccard(solved)
    assert found.mean == pytest.approx(both / either)
    assert (found.low, found.high) == pytest.approx(wilson(both, either), abs=0.003)
    assert jaccard([[1, 0, 1], [1, 0, 1]]).mean == 1
    even = jaccard(np.repeat([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0]], 40, axis=1))  # no item moves the mean: it is not certain for that
    assert (even.mean, even.se) == (pytest.approx(1 / 3), 0) and (even.low, even.high) == pytest.approx(wilson(40, 120), abs=0.003)
    with pytest.raises(ValueError, match="no item"):
        jaccard([[0, 0], [0, 0]])


def test_jaccard_interval_of_several_policies_covers():
    """Policies are fixed, items are drawn; harder items are harder for all."""
    rng, covered = np.random.default_rng(3), 0

    def overlap(solved: np.ndarray) -> float:
        pairs = itertools.combinations(solved, 2)
        return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))

    def draw(items: int) -> np.ndarray:
        return (rng.normal(0, 1, items) + rng.normal(0, 1, (7, items)) > 0.3).astype(int)

    truth = overlap(draw(200_000))
    for _ in range(400):
        found = jaccard(draw(164))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def outcomes(answers: list[list[str | None]], right: str = "1") -> Outcomes:
    return Outcomes([str(i) for i in range(len(answers))], np.array([[float(a == right) for a in row] for row in answers]), answers)


def test_vote_over_policies_against_one_at_equal_samples():
    """Each policy alone is right on half of the items or less; two of three agree on the right answer everywhere."""
    policies = [outcomes([["1", "1"], ["2", "2"]]), outcomes([["1", "1"], ["1", "1"]]), outcomes([["3", "3"], ["1", "1"]])]
    single = outcomes([["1"] * 6, ["4"] * 6])
    found = compare_votes(policies, single)
    assert (found.samples, found.policies.mean, found.single.mean, found.difference.difference) == (3, 1.0, 0.5, 0.5)
    assert compare_votes(policies, single, each=2).samples == 6
    with pytest.raises(ValueError, match="3 samples"):
        compare_votes(policies, single, each=3)


def test_no_policy_is_favoured_by_ties():
    """Two policies that never agree: each wins half of the ties."""
    right, wrong = outcomes([["1"]] * 10), outcomes([["2"]] * 10)
    assert vote_over_policies([right, wrong]).mean() == vote_over_policies([wrong, right]).mean() == 0.5
