"""`onelayer/ALFWorld-v0`: household tasks as text games."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import gymnasium as gym

from ...common.errors import UserError
from ..items import Item, choose
from ..spaces import FreeText
from .config import ALFWorldConfig
from .game import NOTHING, Game
from .sources import Data, begin, games, loaded
from .spelling import reading

LONGEST = 500  # characters of a command: the longest possible one has under 100, and nobody needs to parse a novel
KEPT = 64  # games that stay loaded in a process: the groups of a training step play the same ones


class ALFWorldEnv(gym.Env[str, str]):
    """A text game: the observation is what the game says, the action is a command.

    The reward is 1.0 for the step that wins, which ends the episode, and 0.0 for any other; after `max_steps` it is truncated.
    Any text is a command; one that is not possible is answered `Nothing happens.` and costs a step. Unless `strict` is set, a command that
    is spelled otherwise than the game has it is played as the one possible command that it comes to (spelling.py).

    `info` holds the item's id (item), the type of task (type), the goal (task), the commands possible next, sorted (admissible), and
    the observation as such, by which steps are grouped (anchor); after a step also whether the command was possible (valid), the game's own
    command where it was spelled otherwise (played), and whether the game is won (won); at the end of the episode the verdict, `correct`
    or `wrong`.
    `reset(options={"item": id})` plays exactly that item; without the option one is drawn with the environment's generator.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        suite: Literal["generated", "official"] = "generated",
        split: str = "train",
        size: int | None = None,
        seed: int = 0,
        max_steps: int = 50,
        scene: Literal["full", "small"] = "full",
        strict: bool = False,
    ) -> None:
        """The keywords of ALFWorldConfig, and the name of the split. Raises UserError for games that are missing or broken."""
        self.config = ALFWorldConfig(
            id="onelayer/ALFWorld-v0", suite=suite, size=size, seed=seed, max_steps=max_steps, scene=scene, strict=strict
        )
        self.games = games(self.config, split)
        self.split = self.games.split
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item: Item | None = None
        self._steps = 0

    @property
    def items(self) -> Mapping[str, Item]:
        """The items by id, in order."""
        return self.split.by_id

    def gold(self, item: str) -> list[str]:
        """The planner's walkthrough: commands that win the game."""
        return self.games.walkthrough(self.split.by_id[item].id)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = self.split.by_id[choose(self.split.by_id, options, self.np_random)]
        self._play = begin(_loaded(_Key(self._item.question, self._item.id, self.games.read)))
        self._steps = 0
        return self._play.feedback, self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._item is None:
            raise UserError("step() without reset(), or after the end of the episode")
        command = action.strip() if len(action) <= LONGEST else ""
        admissible = self._play.admissible
        played = reading(command, admissible) if not self.config.strict else command if command in admissible else None
        if played is not None:
            self._play.step(played)
        self._steps += 1
        won = self._play.won
        truncated = not won and self._steps >= self.config.max_steps
        observation = NOTHING if played is None else self._play.feedback
        info = self._info() | {"anchor": observation, "valid": played is not None, "won": won}
        if played is not None and played != command:
            info["played"] = played
        if won or truncated:
            info["verdict"] = "correct" if won else "wrong"
            self._item = None
        return observation, float(won), won, truncated, info

    def _info(self) -> dict[str, Any]:
        assert self._item is not None
        return {
            "item": self._item.id,
            "type": self._item.meta["type"],
            "task": self._item.meta["goal"],
            "admissible": list(self._play.admissible),
            "anchor": self._play.feedback,
        }


@dataclass(frozen=True)
class _Key:
    """A game by its content, and how to read it."""

    content: str
    id: str = field(compare=False)
    read: Callable[[str], Data] = field(compare=False)


@functools.lru_cache(maxsize=KEPT)
def _loaded(key: _Key) -> Game | Data:
    return loaded(key.read(key.id))
