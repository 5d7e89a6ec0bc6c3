"""RLOO: REINFORCE, with the mean return of the other episodes of the group as the baseline of each."""

from __future__ import annotations

from typing import Literal

from .algorithm import Algorithm, Batch
from .steps import FloatArray, Steps, centred, over_episodes


class RLOO(Algorithm):
    """`rloo`: Ahmadian et al. 2024, "Back to Basics", arXiv:2402.14740, the leave-one-out estimator.

    Code compared with: https://github.com/huggingface/trl (`RLOOTrainer`, bench/vs_trl_loss.py).
    """

    name: Literal["rloo"] = "rloo"

    def advantages(self, steps: Steps) -> FloatArray:
        return rloo(steps)

    def divisor(self, batch: Batch, tokens: int) -> int:
        return batch.episodes


def rloo(steps: Steps) -> FloatArray:
    """A_i = R_i - mean of R_j over the other episodes j of the group, for every step of the episode.

    That is G / (G - 1) times R_i - mean R, the mean over all G. An episode alone in its group has none to be compared with, and 0.
    """
    return over_episodes(steps, lambda score: centred(score) * len(score) / max(1, len(score) - 1))
