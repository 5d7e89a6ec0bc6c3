"""A programming task and its tests: what is kept beside an item, because tests can be large and must not reach the agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .compare import same

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


@dataclass(frozen=True)
class Asserts:
    """Python statements that raise where the function is wrong."""

    setup: str
    statements: tuple[str, ...]


@dataclass(frozen=True)
class Programs:
    """Whole programs: what is typed in, and what must be printed."""

    pairs: tuple[tuple[str, str], ...]


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
