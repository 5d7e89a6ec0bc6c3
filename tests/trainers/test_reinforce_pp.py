"""REINFORCE++ with a baseline: values by hand, and one scale for the whole batch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from onelayer.agents.episodes import Episode, Play, Step
from onelayer.trainers.algorithms.reinforce_pp import ReinforcePP, reinforce_pp
from onelayer.trainers.algorithms.steps import Steps
from onelayer.trainers.config import TrainerConfig
from onelayer.trainers.train import scored


def test_returns_are_compared_in_their_group_and_scaled_over_the_batch() -> None:
    """Less their means, group 0 has 3/4, -1/4, -1/4, -1/4 and group 1 two of 1/2 and -1/2: a variance of 7/32."""
    reward_N = np.array([1, 0, 0, 0, 0.25, 0.75, 1, 0, 0])
    steps = Steps(reward_N, [0, 1, 2, 3, 4, 4, 5, 6, 7], [0, 0, 0, 0, 1, 1, 1, 1, 1], [""] * 9, [True] * 9)
    std = math.sqrt(7 / 32)
    assert reinforce_pp(steps) == pytest.approx(np.array([3, -1, -1, -1, 2, 2, 2, -2, -2]) / 4 / std)
    assert not reinforce_pp(replace(steps, reward_N=0 * reward_N)).any()


def test_a_step_of_training_takes_the_deviation_over_all_of_its_groups() -> None:
    rewards = {0: [1, 0, 0, 0], 1: [1, 1, 0, 0]}
    episodes = [
        Episode(4 * group + at, Play("item", group, 0), [Step([1], [2], [-1.0], "", "", reward, False, {})])
        for group, its in rewards.items()
        for at, reward in enumerate(its)
    ]
    settings = TrainerConfig(algorithm=ReinforcePP())
    first, second = (group.advantages for group in scored(episodes, settings))
    assert first == pytest.approx(np.array([3, -1, -1, -1]) / math.sqrt(3.5))
    assert second == pytest.approx(np.array([2, 2, -2, -2]) / math.sqrt(3.5))
    assert settings.kl_coef == 1e-5
