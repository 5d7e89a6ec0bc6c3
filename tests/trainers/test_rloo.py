"""RLOO: values by hand, and what a token weighs."""

from __future__ import annotations

import numpy as np
import pytest

from onelayer.trainers.algorithms.rloo import RLOO, rloo
from onelayer.trainers.algorithms.steps import Steps
from onelayer.trainers.config import TrainerConfig
from onelayer.trainers.rows import TrainingRow, weighted


def test_each_episode_is_compared_with_the_others_of_its_group() -> None:
    """Group 0 has returns 1, 0, 0, 0.5: the others' means are 1/6, 1/2, 1/2 and 1/3. Group 1: 0.5 in two steps, and 0. Group 2 is one."""
    reward_N = np.array([1, 0, 0, 0.5, 0.25, 0.25, 0, 1])
    steps = Steps(reward_N, [0, 1, 2, 3, 4, 4, 5, 6], [0, 0, 0, 0, 1, 1, 1, 2], [""] * 8, [True] * 8)
    assert rloo(steps) == pytest.approx([5 / 6, -1 / 2, -1 / 2, 1 / 6, 1 / 2, 1 / 2, -1 / 2, 0])


def test_the_loss_is_the_mean_over_episodes_of_the_sum_over_their_tokens() -> None:
    lengths = [(0, 3), (0, 5), (1, 2)]  # episode and tokens of three rows
    rows = [TrainingRow([1], [1] * n, [True] * n, [-1.0] * n, [1.0] * n, [False] * n, "item", 0, episode, 0) for episode, n in lengths]
    for row in weighted(rows, TrainerConfig(algorithm=RLOO()), 40):
        assert set(row.weights) == {1 / 2}
