"""`onelayer/Math-v0`: a question, an answer, graded by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import gymnasium as gym

from ...common.errors import UserError
from ..items import Item, Split, choose
from ..spaces import FreeText
from .columns import golds_of
from .config import FieldMapping, MathConfig
from .sources import load

if TYPE_CHECKING:
    from .grader import Verdict

SHOWN = 200  # characters of an answer that come back


class MathEnv(gym.Env[str, str]):
    """The observation is the question, the action a whole response; the reward is 1.0 for a correct answer, else 0.0.

    An episode ends with the first correct answer, or after `max_turns` responses. After a wrong one the observation is the question and
    that answer. `info` after a step holds the item's id, the verdict, the answer as majority votes count it, whether the response
    held one ("valid") and the observation ("anchor").
    `reset(options={"item": id})` plays exactly that item; without the option one is drawn with the environment's generator.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(
        self,
        suite: str = "arithmetic",
        split: str = "train",
        size: int | None = None,
        difficulty: int = 3,
        seed: int = 0,
        max_turns: int = 1,
        unreadable: Literal["skip", "refuse"] = "skip",
        fields: FieldMapping | dict[str, str] | None = None,
    ) -> None:
        """The keywords of MathConfig, and the name of the split. Raises UserError for data that cannot be used."""
        mapping = fields if isinstance(fields, FieldMapping) else FieldMapping.model_validate(fields or {})
        self.config = MathConfig(
            suite=suite, size=size, difficulty=difficulty, seed=seed, max_turns=max_turns, unreadable=unreadable, fields=mapping
        )
        self.split: Split = load(self.config, split)
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self._item: Item | None = None
        self._turn = 0

    @property
    def items(self) -> Mapping[str, Item]:
        return self.split.by_id

    def gold(self, item: str) -> list[str]:
        """A response that is graded correct."""
        return [f"\\boxed{{{self.split.by_id[item].gold}}}"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._item = self.split.by_id[choose(self.split.by_id, options, self.np_random)]
        self._turn = 0
        return self._item.question, {"item": self._item.id, "anchor": self._item.question}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        from .grader import Verdict, voted_answer

        if self._item is None:
            raise UserError("step() without reset(): an episode is over when an answer is correct or the turns are used up")
        item, verdict, answer = self._item, grade_item(action, self._item), voted_answer(action)
        self._turn += 1
        solved = verdict is Verdict.CORRECT
        over = solved or self._turn == self.config.max_turns
        observation = item.question
        if over:
            self._item = None
        else:
            observation = feedback(item.question, answer)
        info = {"item": item.id, "verdict": str(verdict), "answer": answer, "valid": answer is not None, "anchor": observation}
        info["gold"] = " or ".join(gold.text for gold in golds_of(item))
        return observation, float(solved), over, False, info


def grade_item(response: str, item: Item) -> Verdict:
    """The verdict on a response: correct where it gives one of the item's gold answers, else that of the first of them."""
    from .grader import Verdict, grade

    verdicts = [grade(response, gold) for gold in golds_of(item)]
    return Verdict.CORRECT if Verdict.CORRECT in verdicts else verdicts[0]


def feedback(question: str, answer: str | None) -> str:
    """The observation after a response that failed; complete in itself, because an agent may see nothing else."""
    if answer is None:
        return f"{question}\n\nYour last reply held no answer."
    return f"{question}\n\nYour last answer was wrong: {answer[:SHOWN]}"
