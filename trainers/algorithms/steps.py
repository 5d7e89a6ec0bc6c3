"""The steps of a rollout as algorithms see them, and what algorithms compute over them: pure functions over arrays of the N steps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

FloatArray = np.ndarray
EQUAL = 1e-9  # scores this close are the same sum of parts, added up in another order


@dataclass(frozen=True)
class Steps:
    """The N steps of a rollout, episode after episode."""

    reward_N: FloatArray
    episode_N: Sequence[int]
    group_N: Sequence[int]
    """Episodes of one group play the same item."""
    anchor_N: Sequence[str]
    """The raw observation that the action answered."""
    valid_N: Sequence[bool]
    """Whether the environment took the action for one of its own."""


def centred(score_G: FloatArray) -> FloatArray:
    """score - mean; exactly zero where all are equal, which a rounded mean would miss."""
    return np.zeros_like(score_G) if np.ptp(score_G) < EQUAL else score_G - score_G.mean()


def deviation(score_G: FloatArray, epsilon: float) -> float:
    """std + epsilon, std over G - 1; 1 where all are equal, so that nothing is divided by next to nothing."""
    return 1.0 if np.ptp(score_G) < EQUAL else float(score_G.std(ddof=1)) + epsilon


def episode_returns(steps: Steps) -> FloatArray:
    """The sum of its episode's rewards for every step."""
    return within(steps.episode_N, steps.reward_N, lambda reward: np.full_like(reward, reward.sum()))


def discounted_returns(steps: Steps, gamma: float) -> FloatArray:
    """G_t = r_t + gamma G_t+1 along each episode, for every step."""

    def togo(reward_T: FloatArray) -> FloatArray:
        found, total = np.empty_like(reward_T), 0.0
        for t in reversed(range(len(reward_T))):
            found[t] = total = reward_T[t] + gamma * total
        return found

    return within(steps.episode_N, steps.reward_N, togo)


def over_episodes(steps: Steps, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """`function` applied to the episodes' returns of each group, for every step of its episode."""
    first_E, episode_N = np.unique(steps.episode_N, return_index=True, return_inverse=True)[1:]
    group_E = [steps.group_N[at] for at in first_E]
    return within(group_E, episode_returns(steps)[first_E], function)[episode_N]


def within(keys: Iterable[Hashable], value_N: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """`function` applied to the values of each key apart, in place."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    result_N = np.empty(len(value_N))
    for at in places.values():
        result_N[at] = function(np.asarray(value_N, dtype=np.float64)[at])
    return result_N
