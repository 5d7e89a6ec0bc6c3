"""`onelayer/Math-v0`: one question, one answer, graded by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym

from ..config import FieldMapping, MathConfig
from ..errors import UserError
from ..items import Item, Split, choose
from ..spaces import FreeText
from .sources import load


class MathEnv(gym.Env[str, str]):
    """A one-step environment: the observation is the question, the action is the whole response.

    The reward is 1.0 for a correct answer and 0.0 for any other; `info` after a step holds the item's id, the verdict
    and the answer as majority votes count it.
    `reset(options={"item": id})` plays exactly that item; without the option one is drawn with the environment's generator.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(
        self,
        suite: str = "arithmetic",
        split: str = "train",
        size: int | None = None,
        difficulty: int = 3,
        seed: int = 0,
        fields: FieldMapping | dict[str, str] | None = None,
    ) -> None:
        """The keywords of MathConfig, and the name of the split. Raises UserError for data that can not be used."""
        mapping = fields if isinstance(fields, FieldMapping) else FieldMapping(**(fields or {}))
        self.config = MathConfig(suite=suite, size=size, difficulty=difficulty, seed=seed, fields=mapping)
        self.split: Split = load(self.config, split)
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item: Item | None = None

    @property
    def items(self) -> Mapping[str, Item]:
        return self.split.by_id

    def gold(self, item: str) -> list[str]:
        """A response that is graded correct."""
        return [f"\\boxed{{{self.split.by_id[item].gold}}}"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = self.split.by_id[choose(self.split.by_id, options, self.np_random)]
        return self._item.question, {"item": self._item.id}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        from .grader import Verdict, grade, voted_answer

        if self._item is None:
            raise UserError("step() without reset(): an episode is one question and one response")
        item, self._item = self._item, None
        verdict = grade(action, item.gold)
        info = {"item": item.id, "verdict": str(verdict), "answer": voted_answer(action)}
        return item.question, float(verdict is Verdict.CORRECT), True, False, info
