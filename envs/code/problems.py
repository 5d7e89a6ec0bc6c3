"""A programming task and its tests: what is kept beside an item, because tests can be large and must not reach the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .compare import OWN, Printed, same

Args = tuple[Any, ...]


@dataclass(frozen=True)
class Calls:
    """The function is called with each input in turn, and what it returns is compared here, in this process."""

    base: tuple[Args, ...]
    plus: tuple[Args, ...] = ()
    expected: tuple[Any, ...] | None = None
    """What is right for base + plus; None: what the solution returns, found out in the sandbox (reference.py)."""
    atol: float = 0.0
    """Absolute tolerance that the data states; 0 leaves it to the outputs (compare.tolerance)."""
    accepts: Callable[[Args, Any, Any, float], bool] = same
    """(arguments, returned, expected, tolerance) -> right or not."""
    not_none: bool = False
    """Only whether something is returned counts: the outputs are objects that no data stands for."""
    shown: int = 0
    """How many of the base tests stand in the task's text with their results."""
    cpu_seconds: float = 1.0
    """CPU seconds that a call may take, or four times what the slowest call of the solution takes, if that is more. EvalPlus's figures."""


@dataclass(frozen=True)
class Asserts:
    """Python statements that raise where the function is wrong."""

    setup: str
    statements: tuple[str, ...]
    names: tuple[str, ...] = ()
    """The functions and classes that they test (remote.py)."""
    classes: tuple[str, ...] = ()
    """Those of the names that are classes."""


@dataclass(frozen=True)
class Programs:
    """Whole programs: what is typed in, and what must be printed."""

    pairs: tuple[tuple[str, str], ...]
    printed: Printed = OWN
    """How printed text is compared."""
    checker: str = ""
    """Python that defines check(input, output, expected), where a task has several right outputs; empty: they are compared."""
    cpu_seconds: float = 4.0


@dataclass(frozen=True)
class Problem:
    """A task with its tests."""

    id: str
    entry_point: str
    """The function to write; empty for a whole program."""
    tests: Calls | Asserts | Programs
    digest: str
    """SHA-256 of the tests as the data states them."""
    solution: str = ""
    """A complete program that is right; empty where the data has none."""
    header: str = ""
    """Code that ends inside the function's head, so that a reply may be the body alone; empty where there is none."""
    preamble: str = ""
    """What stands in the header before the function: imports and helpers that a solution may use without repeating them."""
    container: str = ""
    """A class that may hold the function as a method, as LeetCode has it; empty where there is none."""


class Ungradable(Exception):
    """A task that cannot be graded as its data means it. The message says why."""
