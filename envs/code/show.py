"""Values and calls in words of bounded length, for the failures that an agent is shown."""

from __future__ import annotations

import ast
import reprlib
from collections.abc import Iterable

LENGTH = 200  # characters of one value
_repr = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxfrozenset = _repr.maxdict = 20
_repr.maxstring = _repr.maxother = LENGTH
_repr.maxlevel = 4


def short(value: object) -> str:
    """repr(value), shortened where it is long. `value` is made of plain builtins."""
    try:
        return _cut(_repr.repr(value))
    except ValueError:  # integers beyond sys.get_int_max_str_digits()
        return f"a {type(value).__name__} with very large numbers"


def short_text(text: str) -> str:
    """repr(text), with the middle left out where it is long."""
    return _cut(repr(text[:LENGTH]) if len(text) <= LENGTH else repr(text[: LENGTH // 2] + " ... " + text[-LENGTH // 2 :]))


def call_text(name: str, args: Iterable[object]) -> str:
    """The call, as it is written."""
    return f"{name}({', '.join(map(short, args))})"[: 3 * LENGTH]


def calls_in(statement: str, name: str) -> str:
    """The calls of `name` in a test, without what they are compared with, which would give the answer away."""
    try:
        tree = ast.parse(statement)  # the data's own text, no candidate's
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "A test"
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", None) == name]
    return _cut(" and ".join(found), 3 * LENGTH) if found else "A test"


def _cut(text: str, length: int = 2 * LENGTH) -> str:
    return text if len(text) <= length else text[: length // 2] + " ... " + text[-length // 2 :]
