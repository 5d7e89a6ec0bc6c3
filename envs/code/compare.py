"""Whether what a function returned is right. Both sides are plain builtins, so `==` runs no code of the candidate.

The rules are EvalPlus's (0.3.1): equal by Python's `==`, so 1, 1.0 and True are the same and a list is not a tuple; where the right
output is a float or consists of floats, or the data states a tolerance, numbers may be off by `atol` plus a ten-millionth.
docs/code-grading.md lists where the two differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

RTOL = 1e-7
FLOAT_ATOL = 1e-6


def same(args: tuple[Any, ...], out: Any, expected: Any, atol: float) -> bool:
    """The general rule: equal, or of the same type and close."""
    return out == expected or (atol > 0 and type(out) is type(expected) and close(out, expected, atol))


def close(a: Any, b: Any, atol: float) -> bool:
    """Numbers within atol + RTOL |b|, element by element in lists, tuples and dicts; everything else equal. NaN is close to NaN."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(close(x, y, atol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(x, b[key], atol) for key, x in a.items())
    if isinstance(a, (int, float, complex)) and isinstance(b, (int, float, complex)):
        if a == b or (a != a and b != b):
            return True
        gap = abs(a - b)
        return math.isfinite(gap) and gap <= atol + RTOL * abs(b)
    return a == b


def tolerance(atol: float, outputs: Iterable[Any]) -> float:
    """The tolerance of a task: what its data states, else FLOAT_ATOL where one of the right outputs is made of floats, else none."""
    return atol or (FLOAT_ATOL if any(map(_floats, outputs)) else 0.0)


def _floats(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, (list, tuple)) and bool(value) and all(isinstance(x, float) for x in value))


@dataclass(frozen=True)
class Printed:
    """How printed text is compared: line by line, where white space at the ends of lines and empty lines at the end do not count.

    A number that the right output writes with a point or an exponent may be off by `atol` + `rtol` times itself; where the output writes
    it so and the right output does not, the two must be equal. The defaults are those of numpy.allclose, which APPS and TACO apply.
    """

    rtol: float = 1e-5
    atol: float = 1e-8
    indented: bool = True
    """Whether white space at the beginning of a line and between numbers counts."""

    def same(self, out: str, expected: str) -> bool:
        ours, theirs = self._lines(out), self._lines(expected)
        return len(ours) == len(theirs) and all(a == b or self._same_line(a, b) for a, b in zip(ours, theirs, strict=True))

    def _lines(self, text: str) -> list[str]:
        if self.indented:
            return [line.rstrip() for line in text.rstrip().split("\n")]
        return [line.strip() for line in text.strip().split("\n")]

    def _same_line(self, out: str, expected: str) -> bool:
        ours, theirs = (TOKENS.split(line) if self.indented else line.split() for line in (out, expected))
        return len(ours) == len(theirs) and all(a == b or self._same_number(a, b) for a, b in zip(ours, theirs, strict=True))

    def _same_number(self, out: str, expected: str) -> bool:
        """Two whole numbers are compared as text, and so to the last digit: 007 is not 7, and 10^9 + 1 is not 10^9."""
        if not (NUMBER.fullmatch(out) and NUMBER.fullmatch(expected)) or (WHOLE.fullmatch(out) and WHOLE.fullmatch(expected)):
            return False
        if Decimal(out) == Decimal(expected):
            return True
        right = float(expected)
        return (
            self.rtol > 0
            and not WHOLE.fullmatch(expected)
            and math.isfinite(right)
            and abs(float(out) - right) <= self.atol + self.rtol * abs(right)
        )


OWN = Printed()
TOKENS = re.compile(r"(\s+)")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?", re.ASCII)
WHOLE = re.compile(r"[-+]?\d+", re.ASCII)


def called(args: tuple[Any, ...], out: Any, expected: Any, atol: float) -> bool:
    """What a function of a published set returned, where the right output comes from JSON, which has no tuples."""
    return same(args, listed(out), expected, atol)


def called_or_wrapped(args: tuple[Any, ...], out: Any, expected: Any, atol: float) -> bool:
    """The same for APPS and TACO, some of whose rows hold an output as the only element of a list."""
    wrapped = isinstance(expected, list) and len(expected) == 1
    return called(args, out, expected, atol) or (wrapped and called(args, out, expected[0], atol))


def listed(value: Any) -> Any:
    """The value with lists in the place of its tuples, however deep."""
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    return {key: listed(item) for key, item in value.items()} if isinstance(value, dict) else value
