"""Configuration of `onelayer/Code-v0`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from ..environment import BuiltIn, Environment, SuiteListing


class CodeFields(BaseModel, extra="forbid", frozen=True):
    """Which keys of a JSON line or data-set row hold what; null tries the usual names in turn."""

    prompt: str | None = Field(default=None, description="key of the task's text (tries prompt, question, text, problem, question_content)")
    tests: str | None = Field(
        default=None, description="key of the tests (tries tests, test_list, test, test_code, input_output, private_test_cases)"
    )
    entry_point: str | None = Field(default=None, description="key of the name of the function to write (tries entry_point)")
    solution: str | None = Field(
        default=None, description="key of a solution that passes (tries canonical_solution, solution, code, solutions)"
    )
    id: str | None = Field(
        default=None,
        description="key of the item's id (default: task_id, question_id or problem_id, else the file's name and the line number)",
    )


class CodeConfig(BuiltIn, extra="forbid", frozen=True):
    """`onelayer/Code-v0`: write a Python function or program, graded by running it in a sandbox."""

    CLASS: ClassVar = "code.env:CodeEnv"
    SOURCE: ClassVar = "code.sources"
    TITLE: ClassVar = "write a Python function or program, run in a sandbox"
    SUITES: ClassVar = (
        SuiteListing("functions", "small functions, generated", "train, validation, test"),
        SuiteListing("humaneval+, mbpp+", "EvalPlus", "test", "ONELAYER_DATA or its releases"),
        SuiteListing("FILE.jsonl, hub:...", "your own tasks and tests", "train, validation, test", are_own=True),
    )
    GENERATED: ClassVar = "functions"
    DOMAIN: ClassVar = "code"
    HISTORY: ClassVar = 0

    id: Literal["onelayer/Code-v0"] = Field(default="onelayer/Code-v0", description="the Gymnasium id")
    suite: str = Field(
        default="functions",
        description="a built-in suite (functions, humaneval+, mbpp+), a .jsonl file, or hub:OWNER/NAME or hub:OWNER/NAME:CONFIG for a "
        "Hugging Face data set; the suites of EvalPlus are found under ONELAYER_DATA, else where it releases them",
    )
    size: int | None = Field(default=None, ge=1, description="take the first N items (null: all; functions: 4096 to train, 512 else)")
    seed: int = Field(default=0, ge=0, description="functions: seed of the generator")
    max_turns: int = Field(default=1, ge=1, description="replies an episode may take; after a failing one its first failing test is shown")
    unreadable: Literal["skip", "refuse"] = Field(
        default="skip", description="tasks whose tests cannot be run: left out, named and counted, or an error"
    )
    fields: CodeFields = CodeFields()

    @classmethod
    def named(cls, name: str, env: Environment) -> Mapping[str, object] | None:
        """A .jsonl file is one of code where the recipe's environment is, or where its columns are; hub:OWNER/NAME where it is known as
        one; and either of them as code:NAME.
        """
        file = name.endswith(".jsonl")
        if name.startswith("code:") and (name.startswith("code:hub:") or file):
            return {"suite": name.removeprefix("code:")}
        if name in cls.suites() or (file and isinstance(env, cls)):
            return {"suite": name}
        from .columns import is_code

        return {"suite": name} if (file or name.startswith("hub:")) and is_code(name) else None

    @property
    def turns(self) -> int:
        return self.max_turns
