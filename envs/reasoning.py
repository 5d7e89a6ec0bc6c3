"""`reasoning_gym:TASK`: the procedural tasks of reasoning-gym (optional extra)."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, ClassVar

import gymnasium as gym

from ..common.errors import UserError
from .items import choose, tenth
from .math.answers import extract_answer
from .spaces import FreeText

UNSUPPORTED = {  # found by running reasoning-gym 0.1.25
    **dict.fromkeys(
        ("boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"), "its items have no answer to grade against"
    ),
    "coin_flip": "its grader passes 0 where the answer is another number",
    "codeio": "its items differ between two builds with one seed",
    "composite": "it is a mixture, and needs to be told of what; name the tasks themselves",
    "game_of_life_halting": "its grader passes any answer at all for some items",
    "prime_factorization": "its grader raises on answers that are no factorization",
}
SPLITS = {"train": range(3, 10), "validation": range(2, 3), "test": range(0, 2)}  # tenths of the hash space
SIZES = {"train": 1024, "validation": 128, "test": 256}
MOST_DRAWS = 50  # for each item wanted: a task with few different questions ends there
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGymEnv(gym.Env[str, str]):
    """One question, one response; the reward is the task's own score, 0 to 1.

    The answer is what stands in the last <answer></answer>, else in the last \\boxed{}, else the whole response. Items are divided into
    splits by their question's text; `size` of them are taken (null: 1024 to train, 128 to validate, 256 to test), all different.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, task: str, split: str = "train", size: int | None = None, seed: int = 0, **options: Any) -> None:
        """options: the task's own keywords. Raises UserError for a task or split that there is not or that is broken."""
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ImportError as error:
            raise UserError(f"reasoning_gym:{task}: reasoning-gym is not installed; pip install 'onelayer[reasoning]'") from error
        if task in UNSUPPORTED:
            raise UserError(f"reasoning_gym:{task}: refused, because {UNSUPPORTED[task]}; take another task")
        if task not in DATASETS:
            near = get_close_matches(task, DATASETS, n=1, cutoff=0.0)
            raise UserError(f"reasoning_gym:{task}: no such task; did you mean {near[0]}?")
        if split not in SPLITS:
            raise UserError(f"reasoning_gym:{task} has no split {split!r}; it has {', '.join(SPLITS)}")
        wanted = size or SIZES[split]
        try:
            self._dataset: Any = reasoning_gym.create_dataset(task, size=MOST_DRAWS * wanted, seed=seed, **options)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"reasoning_gym:{task}: its options are refused ({error}); correct env.options") from error
        self.items = self._draw(split, wanted)
        if size is not None and len(self.items) < size:
            raise UserError(f"reasoning_gym:{task}: only {len(self.items)} different items for {split}; lower env.options.size={size}")
        self._task = task
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item = ""

    def _draw(self, split: str, wanted: int) -> dict[str, dict[str, str]]:
        self._entries: dict[str, Any] = {}
        seen: set[str] = set()
        for index in range(len(self._dataset)):
            entry = self._dataset[index]
            text = " ".join(entry["question"].split())
            if tenth(text) in SPLITS[split] and text not in seen:
                seen.add(text)
                self._entries[str(index)] = entry
                if len(seen) == wanted:
                    break
        return {id: {"question": entry["question"], "answer": entry["answer"]} for id, entry in self._entries.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = choose(self.items, options, self.np_random)
        return self.items[self._item]["question"], {"item": self._item}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        found = ANSWER.findall(action)
        answer = (found[-1] if found else extract_answer(action) or action).strip()
        try:
            reward = float(self._dataset.score_answer(answer, self._entries[self._item]))
        except Exception:  # some tasks' graders raise on text that is no answer at all: the responder's fault, not ours
            reward = 0.0
        info = {"item": self._item, "verdict": "correct" if reward >= 1 else "wrong", "answer": answer[:200]}
        info["gold"] = str(self.items[self._item]["answer"])
        return self.items[self._item]["question"], min(max(reward, 0.0), 1.0), True, False, info

    def gold(self, item: str) -> list[str]:
        """The task's own answer."""
        return [f"<answer>{self.items[item]['answer']}</answer>"]
