"""What tests in pytest's form need of pytest: raises, approx, mark.parametrize, fail and skip.

The source of this file goes before such tests into the sandbox, under the name `pytest`: pytest itself takes longer to import than most
tests to run, and needs files that are not there.
"""

from __future__ import annotations

import re
from typing import Any


class raises:
    """`with raises(ValueError, match="...") as info:` or `raises(ValueError, f, 1)`."""

    def __init__(self, expected: Any, function: Any = None, *args: Any, match: str | None = None, **kwargs: Any) -> None:
        self.expected, self.match, self.value = expected, match, None
        if function is not None:
            with self:
                function(*args, **kwargs)

    def __enter__(self) -> raises:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        if kind is None:
            raise AssertionError(f"{self.expected} was not raised")
        if not issubclass(kind, self.expected):
            return False
        self.type, self.value = kind, value
        if self.match is not None and not re.search(self.match, str(value)):
            raise AssertionError(f"{str(value)!r} does not match {self.match!r}")
        return True


class approx:
    """Equal to a number, or a list, tuple or dict of numbers, within a millionth (or `rel`) of it or `abs`."""

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self.expected, self.rel, self.abs, self.nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, other: Any) -> bool:
        return self._close(other, self.expected)

    __hash__ = None  # type: ignore[assignment]

    def _close(self, value: Any, expected: Any) -> bool:
        if isinstance(expected, dict):
            return (
                isinstance(value, dict) and value.keys() == expected.keys() and all(self._close(value[k], v) for k, v in expected.items())
            )
        if isinstance(expected, (list, tuple)):
            same = isinstance(value, (list, tuple)) and len(value) == len(expected)
            return same and all(map(self._close, value, expected))
        if value == expected:
            return True
        if not isinstance(expected, (int, float, complex)) or not isinstance(value, (int, float, complex)):
            return False
        if expected != expected or value != value:
            return self.nan_ok and expected != expected and value != value
        if any(abs(number) == float("inf") for number in (value, expected)):
            return False
        absolute = 1e-12 if self.abs is None else self.abs
        relative = (1e-6 if self.abs is None else 0.0) if self.rel is None else self.rel
        return abs(value - expected) <= max(absolute, relative * abs(expected))


class mark:
    @staticmethod
    def parametrize(names: Any, cases: Any, ids: Any = None) -> Any:
        """Keeps the cases with the function, for `run`; several of them multiply."""
        keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def keep(function: Any) -> Any:
            rows = [dict(zip(keys, case if len(keys) > 1 else (case,), strict=True)) for case in cases]
            function._cases = [{**row, **more} for row in rows for more in getattr(function, "_cases", [{}])]
            return function

        return keep


def run(function: Any) -> None:
    """The test, for each of its cases."""
    for case in getattr(function, "_cases", [{}]):
        function(**case)


def fail(reason: str = "", pytrace: bool = True) -> None:
    raise AssertionError(reason)
