"""The statistics against enumeration, direct formulas, scipy, and simulated truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from onelayer.evals.statistics import (
    fieller,
    holm,
    maj_at_k,
    majority,
    mean_and_se,
    mean_covariance,
    minimum_detectable_effect,
    paired_difference,
    pass_at_k,
    pass_rate,
    seed_interval,
    wilson,
)

outcomes = st.integers(1, 6).flatmap(lambda s: st.lists(st.lists(st.integers(0, 1), min_size=s, max_size=s), min_size=2, max_size=5))


@given(outcomes, st.integers(1, 6))
def test_pass_at_k_is_the_mean_over_all_subsets(correct, k):
    samples = len(correct[0])
    if k > samples:
        assert math.isnan(pass_at_k(correct, k))
        return
    by_item = [np.mean([any(row[s] for s in chosen) for chosen in itertools.combinations(range(samples), k)]) for row in correct]
    assert pass_at_k(correct, k) == pytest.approx(np.mean(by_item))


@given(outcomes)
def test_clustered_standard_error_is_the_sandwich_formula(correct):
    """Miller 2024: sqrt(sum over clusters of (sum of residuals)^2) / N, here with the finite-sample factor I / (I - 1)."""
    x = np.array(correct, dtype=float)
    mean, se = mean_and_se(x)
    direct = math.sqrt(((x - x.mean()).sum(axis=1) ** 2).sum()) / x.size * math.sqrt(len(x) / (len(x) - 1))
    assert (mean, se) == (pytest.approx(x.mean()), pytest.approx(direct, abs=1e-12))


def test_samples_of_an_item_are_not_counted_as_independent():
    once = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]])
    assert mean_and_se(np.repeat(once, 8, axis=1)) == pytest.approx(mean_and_se(once))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(counts, level):
    successes, n = counts
    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_pass_rate_interval_stays_open_where_all_items_agree():
    rate = pass_rate(np.ones(50))
    assert rate.mean == 1 and rate.se == 0 and rate.high == 1 and 0.9 < rate.low < 0.95
    assert pass_rate(np.ones((2, 50))) == rate


def test_majority():
    assert majority(["1", "2", "2", None]) == "2"
    assert majority(["3", "7", "7", "3"]) == "3"  # a tie: the first one sampled
    assert majority([None, None, "5"]) == "5"  # unparsed never wins ...
    assert majority([None, None]) is None  # ... unless there is nothing else
    correct = [[1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]]
    answers = [["1", "2", "2", "1"], ["8", "9", "1", "1"], [None] * 4]
    assert maj_at_k(answers, correct, 4) == pytest.approx(2 / 3)
    assert maj_at_k(answers, correct, 2) == pytest.approx((0.5 + 0.5 + 0) / 3)  # two blocks of two


def test_paired_difference_equals_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    same = paired_difference(a, a)
    assert (same.difference, same.p) == (0, 1)


def test_minimum_detectable_effect_is_found_as_often_as_it_says():
    rng, n = np.random.default_rng(1), 200
    se = 1 / math.sqrt(n)
    effect = minimum_detectable_effect(se, n - 1)
    assert effect == pytest.approx(2.8 * se, rel=0.01)
    found = [paired_difference(rng.normal(effect, 1, n), np.zeros(n)).p < 0.05 for _ in range(500)]
    assert 0.75 < np.mean(found) < 0.85


def test_several_seeds_use_both_sources_of_variance():
    """Seeds that agree leave the error over items; items that agree leave the t interval over seeds."""
    rng = np.random.default_rng(2)
    over_items = rng.random(50)
    assert pass_rate(np.tile(over_items, (3, 1))).se == pytest.approx(over_items.std(ddof=1) / math.sqrt(50))
    over_seeds = np.array([0.4, 0.5, 0.7])
    found = paired_difference(np.tile(over_seeds[:, None], (1, 50)), np.zeros(50))
    assert (found.low, found.high) == pytest.approx(seed_interval(over_seeds))


@pytest.mark.parametrize(("seed_sd", "item_sd"), [(0.0, 1.0), (0.3, 1.0), (0.5, 0.2)])
def test_intervals_over_seeds_and_items_cover(seed_sd, item_sd):
    rng, covered = np.random.default_rng(3), 0
    for _ in range(800):
        x = rng.normal(0, seed_sd, (3, 1)) + rng.normal(0, item_sd, (1, 100)) + rng.normal(0, 1, (3, 100))
        found = paired_difference(x, np.zeros(100))
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / 800 <= 0.99


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.001, 0.2), st.floats(0.001, 0.2), st.floats(-0.95, 0.95))
def test_fieller_is_the_inversion_of_its_definition(n, d, se_n, se_d, correlation):
    """A ratio r belongs to the set exactly where N - r D is not significantly different from zero."""
    v = np.array([[se_n**2, correlation * se_n * se_d], [correlation * se_n * se_d, se_d**2]])
    z = 1.96
    found = fieller(n, d, v, z)
    assert (found is None) == (d * d <= z * z * v[1, 1])
    if found is None:
        return
    low, high = found
    assert low <= n / d <= high
    grid = np.concatenate([np.linspace(-50, 50, 2001), np.linspace(low - 0.5, high + 0.5, 401)])
    apart = np.minimum(abs(grid - low), abs(grid - high)) > 1e-6 * (1 + abs(grid))
    inside = (n - grid * d) ** 2 <= z * z * (v[0, 0] - 2 * grid * v[0, 1] + grid**2 * v[1, 1])
    assert np.array_equal(inside[apart], ((low <= grid) & (grid <= high))[apart])


def test_fieller_covers_the_true_contribution():
    """400 studies with true C = 0.8: N and D share the base's and the items' noise, as in a real study."""
    rng, covered, n = np.random.default_rng(4), 0, 200
    for _ in range(400):
        hard = rng.normal(0, 0.2, n)
        base, full, layer = (np.clip(mean + hard, 0.02, 0.98) for mean in (0.3, 0.5, 0.5))
        layer = base + 0.8 * (full - base)
        drawn = [rng.binomial(4, p) / 4 for p in (base, full, layer)]
        pair = np.stack([drawn[2] - drawn[0], drawn[1] - drawn[0]], axis=-1)[None]
        covariance, _ = mean_covariance(pair)
        numerator, denominator = pair.mean(axis=(0, 1))
        found = fieller(numerator, denominator, covariance, 1.96)
        covered += found is not None and found[0] <= 0.8 <= found[1]
    assert 0.92 <= covered / 400 <= 0.98
