"""GiGPO: episodes against their group, and steps against those that answered the same observation."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from difflib import SequenceMatcher
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from .algorithm import DIVISORS, LOSS_WEIGHTS, Algorithm, Batch
from .steps import FloatArray, Steps, centred, deviation, discounted_returns, episode_returns, over_episodes, within

EPSILON = 1e-6  # as its authors


class GiGPO(Algorithm):
    """`gigpo`: Feng et al. 2025, "Group-in-Group Policy Optimization", arXiv:2505.10978, eq. 3, 7 and 8.

    Code compared with: https://github.com/langfengQ/verl-agent (tests/golden/gigpo.json).
    """

    name: Literal["gigpo"] = "gigpo"
    gamma: float = Field(default=0.95, gt=0, le=1, description="discount of the return from a step on")
    step_weight: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="weight of the advantage within step groups")
    invalid_penalty: float = Field(
        default=0.01,
        ge=0,
        allow_inf_nan=False,
        description="taken from the scores of a step whose action was not valid; a win is 1 (its authors: 0.1, and 10)",
    )
    similarity: float = Field(default=1.0, gt=0, le=1, description="observations this similar are one step group (difflib ratio; 1: equal)")
    per_step_statistics: bool = Field(
        default=True, description="episode advantages over all steps of a group, as its authors' code; false: over episodes, as the paper"
    )
    scale_advantages: bool = Field(default=True, description="divide by the standard deviation of the group")
    loss_weights: Literal["sequence_mean", "token_mean", "constant"] = Field(default="token_mean", description=LOSS_WEIGHTS)
    TRAINER: ClassVar[Mapping[str, object]] = {"dual_clip": 3.0, "kl_coef": 0.01}

    def advantages(self, steps: Steps) -> FloatArray:
        return gigpo(
            steps,
            self.gamma,
            self.step_weight,
            self.invalid_penalty,
            self.scale_advantages,
            self.per_step_statistics,
            self.similarity,
        )

    def divisor(self, batch: Batch, tokens: int) -> int:
        return DIVISORS[self.loss_weights](batch, tokens)


def gigpo(
    steps: Steps,
    gamma: float = 0.95,
    step_weight: float = 1.0,
    invalid_penalty: float = 0.1,
    scale: bool = True,
    per_step: bool = True,
    similarity: float = 1.0,
) -> FloatArray:
    """A = A_E + step_weight A_S (eq. 8).

    A_E compares the episode's return with its group's, A_S the discounted return from this step on with that of the steps which answered
    the same observation in the same group. A step whose action was not valid has `invalid_penalty` taken from both of its scores.

    scale: divide by the standard deviation (the ALFWorld setting), or only subtract the mean. per_step: mean and deviation of A_E over all
    steps of the group, long episodes weighing more (the authors' code), or over the returns of its episodes (the paper's equation).
    similarity: below 1, observations count as the same from this ratio of difflib on, first fit in order.
    """
    normalise = (lambda score: centred(score) / deviation(score, EPSILON)) if scale else centred
    penalty_N = invalid_penalty * ~np.asarray(steps.valid_N, dtype=bool)
    if per_step:
        episode_part_N = within(steps.group_N, episode_returns(steps) - penalty_N, normalise)
    else:
        unit_N = over_episodes(steps, lambda score: np.full_like(score, deviation(score, EPSILON))) if scale else 1.0
        episode_part_N = over_episodes(steps, normalise) - penalty_N / unit_N
    step_part_N = within(step_groups(steps, similarity), discounted_returns(steps, gamma) - penalty_N, normalise)
    return episode_part_N + step_weight * step_part_N


def step_groups(steps: Steps, similarity: float = 1.0) -> list[Hashable]:
    """Which step group each step belongs to: steps of one group that answered the same observation."""
    if similarity >= 1:
        return list(zip(steps.group_N, steps.anchor_N, strict=True))
    known: dict[int, list[str]] = {}
    return [
        (group, _similar(anchor, known.setdefault(group, []), similarity))
        for group, anchor in zip(steps.group_N, steps.anchor_N, strict=True)
    ]


def _similar(anchor: str, known: list[str], similarity: float) -> int:
    """The place of the first known observation that is similar enough; a new one is appended."""
    for place, other in enumerate(known):
        if SequenceMatcher(None, anchor, other).ratio() >= similarity:
            return place
    known.append(anchor)
    return len(known) - 1
