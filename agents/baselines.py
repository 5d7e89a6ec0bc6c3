"""Baselines that need no model: they answer without an engine's tokens, and everything else is as with a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ..common.errors import UserError
from ..envs import make
from ..envs.config import EnvConfig
from .dialogue import Dialogue
from .engine import Completion, FinishReason, Request
from .length import TOKENLESS, UNLIMITED


class Scripted:
    """Plays by rule: `act(item, seed)` gives a function from the admissible actions and the number of the turn to an action."""

    def __init__(self, name: str, act: Callable[[str, int], Callable[[Sequence[str], int], str]]):
        self.engine, self.config, self.prompt = Silent(), TOKENLESS, f"({name})"
        self._act = act

    def begin(self, item: str, seed: int) -> Dialogue:
        return Script(self._act(item, seed))


class Script:
    """The dialogue of a rule."""

    session: str | None = None

    def __init__(self, act: Callable[[Sequence[str], int], str]):
        self._act, self._turn, self._admissible = act, 0, ()

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        self._admissible = info.get("admissible", ())
        return []

    def say(self, reply: Completion) -> tuple[str, str]:
        action = self._act(self._admissible, self._turn)
        self._turn += 1
        return action, action


class Silent:
    """The engine of who needs none."""

    returns_tokens = False
    context = UNLIMITED

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        yield from (Completion(index, [], [], FinishReason.STOP) for index, _ in enumerate(requests))

    def end_session(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        pass


def random_agent(env: EnvConfig, split: str) -> Scripted:
    """Any of the admissible actions, all as likely. Its steps are refused where the environment names none."""

    def act(item: str, seed: int) -> Callable[[Sequence[str], int], str]:
        rng = random.Random(seed)

        def choose(admissible: Sequence[str], turn: int) -> str:
            if not admissible:
                raise UserError(f"{env.id}: names no admissible actions, so the random agent cannot choose; take another policy")
            return rng.choice(admissible)

        return choose

    return Scripted("random", act)


def gold_agent(env: EnvConfig, split: str) -> Scripted:
    """The actions that the environment itself gives as a solution. Raises UserError where it gives none."""
    game = make(env, split)
    if not game.has_wrapper_attr("gold"):
        raise UserError(f"{env.id}: gives no gold actions; take another policy")

    def act(item: str, seed: int) -> Callable[[Sequence[str], int], str]:
        actions = game.get_wrapper_attr("gold")(item)
        return lambda admissible, turn: actions[turn] if turn < len(actions) else ""

    return Scripted("gold", act)


BASELINES: dict[str, Callable[[EnvConfig, str], Scripted]] = {"random": random_agent, "gold": gold_agent}
