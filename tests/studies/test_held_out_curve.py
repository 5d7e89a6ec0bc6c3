"""The held-out curves of a study's arms, from made-up verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from onelayer.common.cost import Cost
from onelayer.common.errors import UserError
from onelayer.evals.statistics import pass_rate
from onelayer.studies.contribution import contribution
from onelayer.studies.held_out_curve import Curve, held_out_curves
from onelayer.trainers.held_out import HeldOut, Replies
from onelayer.trainers.metrics import StepMetrics

ITEMS = 40


def replies(share: float, seed: int) -> Replies:
    right = np.random.default_rng(seed).random((ITEMS, 2)) < share
    return Replies(correct=right.tolist(), mean_tokens=10.0 + seed, truncated=0.25)


def point(step: int, share: float, seed: int, panel: str = "p") -> HeldOut:
    return HeldOut(step=step, panel=panel, sampled=replies(share, seed), greedy=replies(share, seed + 100), cost=Cost(seconds=9))


def curve(seed: int, *points: HeldOut) -> Curve:
    steps = [
        StepMetrics(step=step, reward=0.5, episodes=8, tokens=100 * (seed + 1), rollout_seconds=2, update_seconds=1) for step in range(4)
    ]
    return Curve(seed=seed, steps=steps, held_out=list(points))


def test_rates_contributions_and_what_was_spent_are_those_of_the_records() -> None:
    base = point(0, 0.2, 1)
    arms = {
        "full": [curve(0, base, point(2, 0.7, 2), point(4, 0.9, 3)), curve(1, base, point(2, 0.7, 4), point(4, 0.9, 5))],
        "layer:3": [curve(0, base, point(2, 0.5, 6), point(4, 0.8, 7)), curve(1, base, point(2, 0.5, 8))],
    }
    found = held_out_curves(arms)
    assert [one.step for one in found["full"]] == [0, 2, 4]
    assert [one.step for one in found["layer:3"]] == [0, 2]  # what both seeds have
    layer = found["layer:3"][1]
    rate_RI = np.stack([run.held_out[1].sampled.rate_I for run in arms["layer:3"]])
    full_RI = np.stack([run.held_out[1].sampled.rate_I for run in arms["full"]])
    assert layer.sampled.pass_rate == pass_rate(rate_RI)
    assert layer.sampled.contribution == contribution(base.sampled.rate_I, full_RI, rate_RI)
    assert layer.sampled.mean_tokens == pytest.approx(10 + (6 + 8) / 2)
    assert (layer.episodes, layer.tokens, layer.seconds) == (16, 300, 6)  # two steps; the panel's own time is not in it
    assert found["layer:3"][0].sampled.contribution is None and found["full"][1].sampled.contribution is None


def test_different_panels_are_never_compared() -> None:
    with pytest.raises(UserError, match="different panels"):
        held_out_curves({"full": [curve(0, point(0, 0.2, 1))], "layer:3": [curve(0, point(0, 0.2, 1, panel="q"))]})


def test_without_curves_there_are_none() -> None:
    assert held_out_curves({}) == {}
