"""Whether what a function returned is right. Both sides are plain builtins, so `==` runs no code of the candidate.

The rules are EvalPlus's (0.3.1): equal by Python's `==`, so 1, 1.0 and True are the same and a list is not a tuple; where the right
output is a float or consists of floats, or the data states a tolerance, numbers may be off by `atol` plus a ten-millionth.
docs/code-grading.md lists where the two differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
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


def same_text(out: str, expected: str) -> bool:
    """Printed text: equal line by line, where white space at the ends of lines and empty lines at the end do not count."""
    return [line.rstrip() for line in out.rstrip().split("\n")] == [line.rstrip() for line in expected.rstrip().split("\n")]
