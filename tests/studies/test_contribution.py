"""Layer contribution: when it is a figure, when it is not, and what its intervals allow for."""

from __future__ import annotations

import numpy as np
import pytest

from onelayer.studies.contribution import contribution, contribution_over_tasks


def drawn(seed: int, *rates: float, items: int = 400, samples: int = 4) -> list[np.ndarray]:
    """Item rates of policies that solve the given shares; harder items are harder for all of them."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.15, items)
    return [rng.binomial(samples, np.clip(rate + hard, 0, 1)) / samples for rate in rates]


def test_large_gain_is_shown_with_agreeing_intervals():
    base, full, layer = drawn(0, 0.3, 0.7, 0.62)
    found = contribution(base, full, layer)
    assert found.point == pytest.approx((layer.mean() - base.mean()) / (full.mean() - base.mean()))
    assert found.strength is not None and found.strength > 20 and found.interval_over == "items"
    assert found.fieller != "unbounded" and found.bootstrap is not None
    assert found.fieller == pytest.approx(found.bootstrap, abs=0.01)
    assert found.fieller[0] < 0.8 < found.fieller[1]
    assert contribution(base, full, full).fieller == pytest.approx((1, 1))


def test_pairing_narrows_the_interval():
    """Items drawn anew for each policy lose what the policies share."""
    base, full, layer = drawn(1, 0.3, 0.7, 0.62)
    paired = contribution(base, full, layer).fieller
    shuffled = contribution(base, full, np.random.default_rng(0).permutation(layer)).fieller
    assert paired != "unbounded" and shuffled != "unbounded"
    assert shuffled[1] - shuffled[0] > 1.15 * (paired[1] - paired[0])


def test_weak_gain_is_no_figure():
    base, full, layer = drawn(2, 0.3, 0.335, 0.33)
    found = contribution(base, full, layer)
    assert found.strength is not None and 1.97 < found.strength < 4
    assert found.point is None and found.fieller != "unbounded"


def test_no_gain_is_unbounded():
    base, full, layer = drawn(3, 0.3, 0.3, 0.34)
    found = contribution(base, full, layer)
    assert found.strength is not None and found.strength < 1.96
    assert (found.point, found.fieller, found.bootstrap) == (None, "unbounded", None)
    assert found.gain_full.low < 0 < found.gain_full.high
    identical = contribution(base, base, layer)
    assert (identical.point, identical.fieller, identical.strength) == (None, "unbounded", None)


def test_over_tasks_it_is_the_ratio_of_mean_gains():
    """A task where full gains nothing has no C of its own, and does not disturb that of the average."""
    base, full, layer = drawn(5, 0.3, 0.7, 0.62)
    flat = drawn(6, 0.5, 0.5, 0.5, items=150)
    found = contribution_over_tasks([base, flat[0]], [full, flat[1]], [layer, flat[2]])
    gain = ((layer - base).mean() + (flat[2] - flat[0]).mean()) / 2
    gain_full = ((full - base).mean() + (flat[1] - flat[0]).mean()) / 2
    assert found.point == pytest.approx(gain / gain_full)
    assert (found.gain.difference, found.gain_full.difference) == pytest.approx((gain, gain_full))
    assert found.fieller != "unbounded" and found.bootstrap is not None and found.point is not None
    assert found.fieller[0] < found.point < found.fieller[1]
    assert found.fieller == pytest.approx(found.bootstrap, abs=0.02)
    assert contribution(*flat).fieller == "unbounded"
    assert contribution_over_tasks([base], [full], [layer]) == contribution(base, full, layer)


def test_seeds_widen_the_interval_and_the_same_draws_give_the_same_bootstrap():
    base, *_ = drawn(4, 0.3)
    full = np.stack([drawn(10 + seed, 0.65 + 0.05 * seed)[0] for seed in range(3)])
    layer = np.stack([drawn(20 + seed, 0.70 - 0.05 * seed)[0] for seed in range(3)])
    one, three = contribution(base, full[:1], layer[:1]), contribution(base, full, layer)
    assert three.interval_over == "seeds and items"
    assert one.fieller != "unbounded" and three.fieller != "unbounded"
    assert three.fieller[1] - three.fieller[0] > one.fieller[1] - one.fieller[0]
    assert three == contribution(base, full, layer)
    with pytest.raises(ValueError, match="needs"):
        contribution(base, full, layer[:2])
