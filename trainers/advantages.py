"""Advantages: how the rewards of a group become the weight of each episode. Pure functions; shapes in the names."""

from __future__ import annotations

import numpy as np


def grpo(reward_G: np.ndarray) -> np.ndarray:
    """(r - mean) / (std + 1e-4) within the group, std over G - 1 (Shao et al. 2024, "DeepSeekMath", eq. 4; epsilon as TRL).

    A group whose rewards are all equal has no signal: exactly zero everywhere.
    """
    centred_G = reward_G - reward_G.mean()
    if not centred_G.any() or np.ptp(reward_G) == 0:
        return np.zeros_like(centred_G)
    return centred_G / (reward_G.std(ddof=1) + 1e-4)
