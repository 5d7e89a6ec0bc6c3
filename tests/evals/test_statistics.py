"""The statistics against enumeration, direct formulas, scipy, statsmodels, evalplus, and simulated truth."""

from __future__ import annotations

import itertools
import math
import runpy
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from onelayer.evals.statistics import (
    fieller,
    holm,
    majority,
    majority_correct,
    mcnemar,
    mean_difference,
    minimum_detectable_effect,
    paired_difference,
    pass_at_k,
    pass_rate,
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


@pytest.mark.evalplus
@given(outcomes, st.integers(1, 6))
def test_pass_at_k_equals_evalplus(correct, k):
    from evalplus.eval import estimate_pass_at_k

    if k <= len(correct[0]):
        theirs = estimate_pass_at_k(len(correct[0]), [sum(row) for row in correct], k).mean()
        assert pass_at_k(correct, k) == pytest.approx(theirs, abs=1e-12)


@given(outcomes)
def test_clustered_standard_error_is_the_sandwich_formula(correct):
    """Miller 2024: sqrt(sum over clusters of (sum of residuals)^2) / N, here with the finite-sample factor I / (I - 1)."""
    x = np.array(correct, dtype=float)
    found = pass_rate(x.mean(axis=1))
    direct = math.sqrt(((x - x.mean()).sum(axis=1) ** 2).sum()) / x.size * math.sqrt(len(x) / (len(x) - 1))
    assert (found.mean, found.se) == (pytest.approx(x.mean()), pytest.approx(direct, abs=1e-12))


def test_samples_of_an_item_are_not_counted_as_independent():
    once = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]])
    assert pass_rate(np.repeat(once, 8, axis=1).mean(axis=1)) == pass_rate(once.mean(axis=1))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy_and_statsmodels(counts, level):
    successes, n = counts
    expected = stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert wilson(successes, n, level) == pytest.approx(proportion_confint(successes, n, 1 - level, method="wilson"), abs=1e-12)


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
    assert majority_correct(answers, correct, 4).mean() == pytest.approx(2 / 3)
    assert majority_correct(answers, correct, 2).mean() == pytest.approx((0.5 + 0.5 + 0) / 3)  # two blocks of two


def test_paired_difference_equals_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    assert (found.low, found.high) == pytest.approx(DescrStatsW(a - b).tconfint_mean())
    same = paired_difference(a, a)
    assert (same.difference, same.p) == (0, 1)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_mcnemar_equals_statsmodels(pairs):
    a, b = np.array(pairs).T
    table = [[int(((a == i) & (b == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    assert mcnemar(a, b) == pytest.approx(vars(statsmodels_mcnemar(table, exact=True))["pvalue"])
    assert mcnemar(a, b) == mcnemar(b, a)


def test_mcnemar_refuses_rates():
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar([0.5, 1.0], [0.0, 1.0])


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
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 2, over_seeds.mean(), stats.sem(over_seeds)))


@pytest.mark.parametrize(("seed_sd", "item_sd"), [(0.0, 1.0), (0.1, 1.0), (0.3, 1.0), (0.5, 0.2)])
def test_intervals_over_three_seeds_and_items_cover(seed_sd, item_sd):
    rng, covered = np.random.default_rng(3), 0
    for _ in range(1500):
        x = rng.normal(0, seed_sd, (3, 1)) + rng.normal(0, item_sd, (1, 100)) + rng.normal(0, 0.5, (3, 100))
        found = paired_difference(x, np.zeros(100))
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 1500 <= 0.98


def test_tasks_count_equally_whatever_their_items():
    """The mean over tasks; items of each are drawn on their own, so with one seed its variance is the sum of the tasks' over T^2."""
    rng = np.random.default_rng(5)
    small, large = rng.normal(0.3, 1, (1, 30)), rng.normal(0.1, 1, (1, 400))
    found, parts = mean_difference([small, large]), [mean_difference([x]) for x in (small, large)]
    assert found.difference == pytest.approx((small.mean() + large.mean()) / 2)
    assert found.se == pytest.approx(math.hypot(parts[0].se, parts[1].se) / 2)
    assert mean_difference([small, small]).difference == pytest.approx(small.mean())


def test_seeds_are_common_to_all_tasks():
    """Luck of a seed moves all its tasks: averaging over tasks does not shrink it, as it would if tasks were independent."""
    luck = np.array([[-0.1], [0.0], [0.1]])
    alone, together = mean_difference([luck + np.zeros((3, 50))]), mean_difference([luck + np.zeros((3, 50)), luck + np.zeros((3, 80))])
    assert (together.se, together.low, together.high) == pytest.approx((alone.se, alone.low, alone.high))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_equals_statsmodels(p_values):
    with patch("gc.collect"):  # it collects garbage at every call, a second each where much is loaded
        expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected)


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


coverage = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "coverage.py"))


@pytest.mark.parametrize(
    "kind", [coverage["Kind"](164, seeds, luck, samples) for seeds in (1, 3, 5) for luck, samples in ((0.0, 4), (0.1, 1))], ids=str
)
def test_intervals_cover_in_simulated_studies(kind):
    """A part of bench/coverage.py. Of 1,000 studies, .95 is seen as .931 to .967 in 99% of repetitions."""
    found = coverage["coverage"](kind, 1000)
    assert all(0.92 <= value <= 0.985 for value in (found.pass_at_1, found.gain, found.to_full, found.c)), found
    assert found.wrong == 0


@pytest.mark.parametrize("seeds", [1, 3])
def test_unbounded_where_the_condition_of_fieller_says_so(seeds):
    """Studies where full gains so little that both outcomes are frequent."""
    found = coverage["coverage"](coverage["Kind"](164, seeds, gain_full=0.4, gain_layer=0.3), 200)
    assert found.wrong == 0 and 0.2 < found.unbounded < 0.9
