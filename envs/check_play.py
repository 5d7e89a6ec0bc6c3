"""What the checks of an environment play: episodes of some items of a split, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import gymnasium as gym

from . import make
from .config import EnvConfig

LONGEST_EPISODE = 10_000  # steps
RAISED = (Exception, SystemExit)
"""What an environment may raise."""


class Broken(Exception):
    """What a check found wrong."""


@dataclass(frozen=True)
class Subject:
    """What is checked: the items of one split, `few` of them spread over it."""

    config: EnvConfig
    split: str
    few: tuple[str, ...]

    def make(self) -> gym.Env[Any, Any]:
        return make(self.config, self.split)


@dataclass(frozen=True)
class CheckedTurn:
    """What came of a reset or a step, as far as it must be the same every time."""

    observation: Any
    reward: float
    ended: bool
    info: dict[str, Any]

    def differs(self, other: CheckedTurn) -> str | None:
        """The name of the first part that differs."""
        if repr(self.info) != repr(other.info):
            return f"info ({_difference(self.info, other.info)})"
        return next((name for name in ("observation", "reward", "ended") if repr(getattr(self, name)) != repr(getattr(other, name))), None)


def episode(env: gym.Env[Any, Any], item: str, seed: int, actions: list[str] | None = None) -> Iterator[CheckedTurn]:
    """Play an item: the given actions, or without any some that depend on nothing but the step. The first turn is the reset's."""
    observation, info = env.reset(seed=seed, options={"item": item})
    yield CheckedTurn(observation, 0.0, False, dict(info))
    for number in count() if actions is None else range(len(actions)):
        if number == LONGEST_EPISODE:
            return
        action = actions[number] if actions is not None else _some_action(info, number)
        observation, reward, terminated, truncated, info = env.step(action)
        yield CheckedTurn(observation, float(reward), bool(terminated or truncated), dict(info))
        if terminated or truncated:
            return


def _some_action(info: dict[str, Any], number: int) -> str:
    admissible = info.get("admissible")
    return admissible[number * 7 % len(admissible)] if admissible else f"\\boxed{{{number}}}"


def gold(env: gym.Env[Any, Any], item: str) -> list[str]:
    try:
        return list(env.get_wrapper_attr("gold")(item))
    except AttributeError:
        return []


def golden(env: gym.Env[Any, Any], item: str) -> list[CheckedTurn]:
    """The episode of the gold actions; empty without any."""
    actions = gold(env, item)
    return list(episode(env, item, seed=0, actions=actions)) if actions else []


def solved(turns: list[CheckedTurn]) -> bool:
    if not turns:
        return False
    verdict = turns[-1].info.get("verdict")
    return verdict == "correct" if verdict is not None else sum(turn.reward for turn in turns) >= 1


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = [key for key in {**one, **other} if repr(one.get(key)) != repr(other.get(key))]
    return ", ".join(map(str, keys))
