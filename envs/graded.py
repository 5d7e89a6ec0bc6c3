"""An environment from two functions: one lists the questions, one grades an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from typing import Any, ClassVar

import gymnasium as gym

from .items import choose
from .spaces import FreeText


class GradedEnv(gym.Env[str, str]):
    """One question, one response. A user's module makes it an environment of its own with one line and no import of ours:

        gymnasium.register("me/Riddles-v0", entry_point="onelayer.envs.graded:GradedEnv", kwargs={"items": items, "grade": grade})

    items: `items(split)` lists mappings with `question`, an `id` (default: SPLIT/NUMBER), and whatever `grade` needs; `answer`, where there
    is one, is what `onelayer env check` gives to the grader to see that it passes.
    grade: `grade(response, item)` returns the reward, 0 to 1; 1 is a solved item. Or the reward and its parts, `(0.6, {"format": 0.1,
    "closeness": 0.5})`, which are kept, averaged and drawn.

    Keys of `env.options` are handed to those of the two functions that have a parameter of that name.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        items: Callable[..., Iterable[Mapping[str, Any]]],
        grade: Callable[..., float | tuple[float, Mapping[str, float]]],
        split: str = "train",
        **options: Any,
    ) -> None:
        """Raises KeyError for an item without a question, ValueError for two items of one id, TypeError for an option of neither."""
        taken = [{name: options[name] for name in signature(function).parameters if name in options} for function in (items, grade)]
        if unknown := [name for name in options if not any(name in found for found in taken)]:
            raise TypeError(f"neither items nor grade has a parameter {unknown[0]}")
        self.items: dict[str, Mapping[str, Any]] = {}
        for number, item in enumerate(items(split, **taken[0])):
            if self.items.setdefault(id := str(item.get("id", f"{split}/{number}")), item) is not item:
                raise ValueError(f"two items have the id {id!r}")
            _ = item["question"]
        self.grade = partial(grade, **taken[1])
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item = ""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = choose(self.items, options, self.np_random)
        return self.items[self._item]["question"], {"item": self._item}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        item = self.items[self._item]
        graded = self.grade(action, item)
        reward, metrics = graded if isinstance(graded, tuple) else (graded, None)
        reward, info = float(reward), {"item": self._item} | ({"gold": str(item["answer"])} if "answer" in item else {})
        if not 0 <= reward <= 1:
            raise ValueError(f"grade gave {reward} for item {self._item!r}; a reward is between 0 and 1")
        return item["question"], reward, True, False, info | ({} if metrics is None else {"metrics": dict(metrics)})

    def gold(self, item: str) -> list[str]:
        """The answer that the item names, as an episode's only action; none where it names none."""
        return [str(self.items[item]["answer"])] if "answer" in self.items[item] else []
