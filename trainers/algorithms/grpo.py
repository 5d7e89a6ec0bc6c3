"""GRPO: the return of an episode against those of its group, in standard deviations of the group."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .algorithm import DIVISORS, Algorithm, Batch
from .steps import FloatArray, Steps, centred, deviation, over_episodes

EPSILON = 1e-4  # as TRL


class GRPO(Algorithm):
    """`grpo`: Shao et al. 2024, "DeepSeekMath", arXiv:2402.03300, section 4.1.2 (outcome supervision) and eq. 3.

    Code compared with: https://github.com/huggingface/trl (bench/vs_trl_loss.py).
    """

    name: Literal["grpo"] = "grpo"
    loss_weights: Literal["sequence_mean", "token_mean"] = Field(
        default="sequence_mean",
        description="sequence_mean: over the tokens of a sequence, then over sequences; token_mean: over all tokens",
    )

    def advantages(self, steps: Steps) -> FloatArray:
        return grpo(steps)

    def divisor(self, batch: Batch, tokens: int) -> int:
        return DIVISORS[self.loss_weights](batch, tokens)


def grpo(steps: Steps) -> FloatArray:
    """A = (R - mean R) / (std R + 1e-4) over the episodes of the group, for every step of the episode.

    R is the sum of the episode's rewards, std is over G - 1.
    """
    return over_episodes(steps, lambda score: centred(score) / deviation(score, EPSILON))
