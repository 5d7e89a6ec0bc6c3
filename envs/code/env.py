"""`onelayer/Code-v0`: a task, a program, graded by running it in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium as gym

from ...common.errors import UserError
from ..items import Item, choose
from ..spaces import FreeText
from .config import CodeConfig, CodeFields
from .sources import load_problems

if TYPE_CHECKING:
    from .grader import Result

SHOWN = 4000  # characters of the agent's own code that come back to it


class CodeEnv(gym.Env[str, str]):
    """The observation is the task, the action a whole reply; the reward is 1.0 when a program passes every test, else 0.0.

    An episode ends with the first program that passes, or after `max_turns` replies. After a failing one the observation is the task,
    the program, and the first test that failed: its input and what came out, and what was right only where the task says it too.
    `info` after a step holds the item's id, the verdict, whether the reply held code ("valid") and the observation ("anchor").
    `reset(options={"item": id})` plays exactly that item; without the option one is drawn with the environment's generator.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        suite: str = "functions",
        split: str = "train",
        size: int | None = None,
        seed: int = 0,
        max_turns: int = 1,
        unreadable: Literal["skip", "refuse"] = "skip",
        fields: CodeFields | dict[str, str] | None = None,
    ) -> None:
        """The keywords of CodeConfig, and the name of the split. Raises UserError for data that cannot be used."""
        mapping = fields if isinstance(fields, CodeFields) else CodeFields(**(fields or {}))
        self.config = CodeConfig(suite=suite, size=size, seed=seed, max_turns=max_turns, unreadable=unreadable, fields=mapping)
        self.split, self._problems = load_problems(self.config, split)
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item: Item | None = None
        self._turn = 0

    @property
    def items(self) -> Mapping[str, Item]:
        return self.split.by_id

    def gold(self, item: str) -> list[str]:
        """A reply that passes: the task's own solution; none where the data has none."""
        solution = self._problems[item].solution
        return [f"```python\n{solution}\n```"] if solution else []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = self.split.by_id[choose(self.split.by_id, options, self.np_random)]
        self._turn = 0
        return self._item.question, {"item": self._item.id, "anchor": self._item.question}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        from .grader import Verdict, grade

        if self._item is None:
            raise UserError("step() without reset(): an episode is over when a program passes or the turns are used up")
        item, result = self._item, grade(action, self._problems[self._item.id])
        self._turn += 1
        solved = result.verdict is Verdict.CORRECT
        over = solved or self._turn == self.config.max_turns
        observation = item.question
        if over:
            self._item = None
        else:
            observation = feedback(item.question, result)
        valid = result.verdict is not Verdict.NO_CODE
        info = {"item": item.id, "verdict": str(result.verdict), "valid": valid, "anchor": observation}
        if solution := self._problems[item.id].solution:
            info["gold"] = solution
        return observation, float(solved), over, False, info


def feedback(question: str, result: Result) -> str:
    """The observation after a reply that failed; complete in itself, because an agent may see nothing else."""
    if result.program is None:
        return f"{question}\n\nYour last reply held no Python code."
    program = result.program if len(result.program) <= SHOWN else result.program[:SHOWN] + "\n..."
    return f"{question}\n\nYour last program failed:\n```python\n{program.strip()}\n```\n{result.failure}"
