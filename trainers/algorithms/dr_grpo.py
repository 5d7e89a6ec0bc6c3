"""Dr. GRPO: GRPO without the two divisions that favour some items and short wrong replies."""

from __future__ import annotations

from typing import Literal

from .algorithm import Algorithm, Batch, constant
from .steps import FloatArray, Steps, centred, over_episodes


class DrGRPO(Algorithm):
    """`dr_grpo`: Liu et al. 2025, "Understanding R1-Zero-Like Training", arXiv:2503.20783, section 3.2.

    Code compared with: https://github.com/huggingface/trl (bench/vs_trl_loss.py).
    """

    name: Literal["dr_grpo"] = "dr_grpo"

    def advantages(self, steps: Steps) -> FloatArray:
        return dr_grpo(steps)

    def divisor(self, batch: Batch, tokens: int) -> int:
        return constant(batch, tokens)


def dr_grpo(steps: Steps) -> FloatArray:
    """A = R - mean R over the episodes of the group, for every step of the episode."""
    return over_episodes(steps, centred)
