"""GRPO, Dr. GRPO and GiGPO side by side: how the rewards of a rollout become an advantage for each of its steps.

Pure functions over arrays of the N steps of a rollout, episode after episode. How the advantages then become a loss, by the weights of
their tokens, is in rows.py; docs/algorithms.md sets both beside the papers' equations and other libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from .config import TrainerConfig

FloatArray = np.ndarray
EPSILON = {"grpo": 1e-4, "gigpo": 1e-6}  # beside the standard deviation: as TRL, as GiGPO's authors
EQUAL = 1e-9  # scores this close are the same sum of parts, added up in another order


@dataclass(frozen=True)
class Steps:
    """The N steps of a rollout, as its algorithms see them."""

    reward_N: FloatArray
    episode_N: Sequence[int]
    group_N: Sequence[int]
    """Episodes of one group play the same item."""
    anchor_N: Sequence[str]
    """The raw observation that the action answered."""
    valid_N: Sequence[bool]
    """Whether the environment took the action for one of its own."""


def advantages(steps: Steps, settings: TrainerConfig) -> FloatArray:
    """The advantage of each step [N] under the algorithm and the keys that `settings` names."""
    if settings.algorithm == "gigpo":
        return gigpo(
            steps,
            settings.gamma,
            settings.step_weight,
            settings.invalid_penalty,
            settings.scale_advantages,
            settings.per_step_statistics,
            settings.similarity,
        )
    return grpo(steps) if settings.scale_advantages else dr_grpo(steps)


def grpo(steps: Steps) -> FloatArray:
    """A = (R - mean R) / (std R + 1e-4) over the episodes of the group, for every step of the episode.

    Shao et al. 2024, "DeepSeekMath", section 4.1.2 (outcome supervision); R is the sum of the episode's rewards, std is over G - 1.
    """
    return _over_episodes(steps, lambda score: centred(score) / deviation(score, EPSILON["grpo"]))


def dr_grpo(steps: Steps) -> FloatArray:
    """A = R - mean R over the episodes of the group, for every step. Liu et al. 2025, "Understanding R1-Zero-Like Training", 3.2."""
    return _over_episodes(steps, centred)


def gigpo(
    steps: Steps,
    gamma: float = 0.95,
    step_weight: float = 1.0,
    invalid_penalty: float = 0.1,
    scale: bool = True,
    per_step: bool = True,
    similarity: float = 1.0,
) -> FloatArray:
    """A = A_E + step_weight A_S (Feng et al. 2025, "Group-in-Group Policy Optimization", eq. 3, 7 and 8).

    A_E compares the episode's return with its group's, A_S the discounted return from this step on with that of the steps which answered
    the same observation in the same group. A step whose action was not valid has `invalid_penalty` taken from both of its scores.

    scale: divide by the standard deviation (the ALFWorld setting), or only subtract the mean. per_step: mean and deviation of A_E over all
    steps of the group, long episodes weighing more (the authors' code), or over the returns of its episodes (the paper's equation).
    similarity: below 1, observations count as the same from this ratio of difflib on, first fit in order.
    """
    epsilon = EPSILON["gigpo"]
    normalise = (lambda score: centred(score) / deviation(score, epsilon)) if scale else centred
    penalty_N = invalid_penalty * ~np.asarray(steps.valid_N, dtype=bool)
    if per_step:
        episode_part_N = _within(steps.group_N, episode_returns(steps) - penalty_N, normalise)
    else:
        unit_N = _over_episodes(steps, lambda score: np.full_like(score, deviation(score, epsilon))) if scale else 1.0
        episode_part_N = _over_episodes(steps, normalise) - penalty_N / unit_N
    step_part_N = _within(step_groups(steps, similarity), discounted_returns(steps, gamma) - penalty_N, normalise)
    return episode_part_N + step_weight * step_part_N


def centred(score_G: FloatArray) -> FloatArray:
    """score - mean; exactly zero where all are equal, which a rounded mean would miss."""
    return np.zeros_like(score_G) if np.ptp(score_G) < EQUAL else score_G - score_G.mean()


def deviation(score_G: FloatArray, epsilon: float) -> float:
    """std + epsilon, std over G - 1; 1 where all are equal, so that nothing is divided by next to nothing."""
    return 1.0 if np.ptp(score_G) < EQUAL else float(score_G.std(ddof=1)) + epsilon


def episode_returns(steps: Steps) -> FloatArray:
    """The sum of its episode's rewards for every step."""
    return _within(steps.episode_N, steps.reward_N, lambda reward: np.full_like(reward, reward.sum()))


def discounted_returns(steps: Steps, gamma: float) -> FloatArray:
    """G_t = r_t + gamma G_t+1 along each episode, for every step."""

    def togo(reward_T: FloatArray) -> FloatArray:
        found, total = np.empty_like(reward_T), 0.0
        for t in reversed(range(len(reward_T))):
            found[t] = total = reward_T[t] + gamma * total
        return found

    return _within(steps.episode_N, steps.reward_N, togo)


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


def _over_episodes(steps: Steps, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """`function` applied to the episodes' returns of each group, for every step of its episode."""
    first_E, episode_N = np.unique(steps.episode_N, return_index=True, return_inverse=True)[1:]
    group_E = [steps.group_N[at] for at in first_E]
    return _within(group_E, episode_returns(steps)[first_E], function)[episode_N]


def _within(keys: Iterable[Hashable], value_N: FloatArray, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """`function` applied to the values of each key apart, in place."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    result_N = np.empty(len(value_N))
    for at in places.values():
        result_N[at] = function(np.asarray(value_N, dtype=np.float64)[at])
    return result_N
