"""REINFORCE++ with a baseline: returns against the mean of their group, in standard deviations of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from .algorithm import Algorithm, Batch, token_mean
from .steps import FloatArray, Steps, centred, over_episodes


class ReinforcePP(Algorithm):
    """`reinforce_pp`: Hu et al. 2025, "REINFORCE++", arXiv:2501.03262v9, the variant "w/ Baseline".

    Code read beside it: https://github.com/OpenRLHF/OpenRLHF (`reinforce_baseline` in experience_maker.py).
    """

    name: Literal["reinforce_pp"] = "reinforce_pp"
    TRAINER: ClassVar[Mapping[str, object]] = {"kl_coef": 1e-5}

    def advantages(self, steps: Steps) -> FloatArray:
        return reinforce_pp(steps)

    def divisor(self, batch: Batch, tokens: int) -> int:
        return token_mean(batch, tokens)


def reinforce_pp(steps: Steps) -> FloatArray:
    """A = (R - mean R) / std(R - mean R) for every step of the episode: the mean over its group, std over all episodes of the batch.

    The mean of R - mean R over the batch is 0. std is over N. Where all groups are of equal returns, all advantages are 0.
    """
    centred_N = over_episodes(steps, centred)
    first_E = np.unique(steps.episode_N, return_index=True)[1]
    return centred_N / centred_N[first_E].std() if centred_N.any() else centred_N
