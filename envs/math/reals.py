r"""Sets of reals: intervals, unions, inequalities, set-builders and absolute values, read from shapes (shapes.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sympy

from .algebra import Unreadable, constant, linear, value
from .equations import FLIPPED, name_of, named, normal_form
from .shapes import Shape

ORDER = {"<": 1, "<=": 1, ">": -1, ">=": -1}


@dataclass(frozen=True)
class Reals:
    """A set of reals, and the unknown whose values it holds, where one was named."""

    members: sympy.Set
    unknown: str | None = None


def reals(shape: Shape) -> Reals | None:
    """The set of reals that a shape can only be: an inequality, a union, an interval that is no point. None for everything else."""
    try:
        return _read_reals(normal_form(shape))
    except (Unreadable, TypeError, ValueError, NotImplementedError, AttributeError):
        return None


def _read_reals(shape: Shape) -> Reals | None:
    kind = shape[0]
    if kind == "relation":
        return _inequality(shape)
    if kind == "formula" and "\\" in shape[1] and ("mathbb" in shape[1] or "emptyset" in shape[1]):
        members = value(shape[1])[0]
        return Reals(members) if isinstance(members, sympy.Set) else None
    if kind == "tuple" and (shape[1:3] != ["(", ")"] or any("\\infty" in end[1] for end in shape[3] if end[0] == "formula")):
        return interval(shape)
    if kind == "builder":
        inner = reals(shape[2])
        return Reals(inner.members) if inner and inner.unknown in (None, shape[1]) else None
    if kind in ("union", "intersection", "minus"):
        parts = [reals(part) or interval(part) or _points(part) for part in shape[1]]
        operation: dict[str, Callable] = {
            "union": sympy.Union,
            "intersection": sympy.Intersection,
            "minus": lambda first, *rest: first - sympy.Union(*rest),
        }
        return None if None in parts else Reals(operation[kind](*(part.members for part in parts if part)))
    if kind == "list":
        return joined(shape, strict=True)
    return None


def _inequality(relation: Shape) -> Reals | None:
    _, terms, signs = relation
    if signs == ["in"]:
        members = reals(terms[1]) or interval(terms[1])
        return replace(members, unknown=name_of(terms[0][1])) if members and terms[0][0] == "formula" else None
    if any(term[0] != "formula" for term in terms) or "=" in signs or "in" in signs:
        return None
    found, unknowns = [], set()
    for left, sign, right in zip(terms, signs, terms[1:], strict=False):
        meeting = _absolute(left[1], sign, right[1]) or linear(left[1], right[1])
        if meeting is None:
            return None
        if isinstance(meeting, Reals):
            found.append(meeting.members)
            unknowns.add(meeting.unknown)
            continue
        unknown, at, grows = meeting
        unknowns.add(str(unknown))
        if sign == "!=":
            found.append(sympy.S.Reals - sympy.FiniteSet(at))
        else:
            below = (ORDER[sign] > 0) == grows
            opens = sign in "<>"
            found.append(sympy.Interval(-sympy.oo, at, True, opens) if below else sympy.Interval(at, sympy.oo, opens, True))
    return Reals(sympy.Intersection(*found), unknowns.pop()) if len(unknowns) == 1 else None


def _absolute(left: str, sign: str, right: str) -> Reals | None:
    """`|x-1| < 2` as an interval."""
    one, bound = value(left)[0], value(right)[0]
    if not isinstance(one, sympy.Abs):
        one, bound, sign = bound, one, FLIPPED.get(sign, sign)
    if not isinstance(one, sympy.Abs) or not constant(bound) or not bound.is_positive or sign == "!=":
        return None
    inner, symbols = one.args[0], one.free_symbols
    if len(symbols) != 1 or inner.diff(*symbols).free_symbols:
        return None
    (unknown,) = symbols
    slope, start = inner.diff(unknown), inner.subs(unknown, 0)
    low, high = sorted(((-bound - start) / slope, (bound - start) / slope), key=lambda end: float(end))
    inside = (
        sympy.Interval(low, high, sign == "<", sign == "<")
        if sign in ("<", "<=")
        else sympy.Interval(low, high, sign == ">=", sign == ">=")
    )
    return Reals(inside if sign in ("<", "<=") else sympy.S.Reals - inside, str(unknown))


def interval(shape: Shape) -> Reals | None:
    """A pair in parentheses or brackets as an interval."""
    if not is_pair(shape):
        return None
    try:
        ends = [value(end[1])[0] for end in shape[3]]
        if not all(constant(end) and end.is_extended_real for end in ends) or not bool(ends[0] < ends[1]):
            return None
        return Reals(sympy.Interval(ends[0], ends[1], shape[1] == "(", shape[2] == ")"))
    except (Unreadable, TypeError):
        return None


def is_pair(shape: Shape) -> bool:
    return shape[0] == "tuple" and len(shape[3]) == 2 and all(end[0] == "formula" for end in shape[3])


def _points(shape: Shape) -> Reals | None:
    if shape[0] != "set" or any(item[0] != "formula" for item in shape[1]):
        return None
    members = [value(item[1])[0] for item in shape[1]]
    return Reals(sympy.FiniteSet(*members)) if all(constant(member) for member in members) else None


def joined(shape: Shape, strict: bool = False) -> Reals | None:
    """Inequalities side by side: all of them with "and" and commas where that leaves something, else any of them.

    `strict`: only where each is an inequality; otherwise intervals in parentheses count too.
    """
    if shape[0] != "list":
        return None
    parts = [reals(item) or (None if strict else interval(item)) or _single(item, shape) for item in shape[2]]
    if None in parts or (not any(reals(item) for item in shape[2]) and strict):
        return None
    unknowns = {part.unknown for part in parts if part}
    members = [part.members for part in parts if part]
    if len(unknowns) > 1:
        return None
    joined = sympy.EmptySet if shape[1] == "or" else sympy.Intersection(*members)
    return Reals(sympy.Union(*members) if joined is sympy.EmptySet or joined == sympy.S.EmptySet else joined, unknowns.pop())


def _single(item: Shape, among: Shape) -> Reals | None:
    """`x=1` beside an inequality."""
    if item[0] == "relation" and any(reals(other) for other in among[2] if other[0] == "relation" and "=" not in other[2]):
        said, name = named(item)
        if name is not None and said[0] == "formula" and constant(value(said[1])[0]):
            return Reals(sympy.FiniteSet(value(said[1])[0]), name)
    return None


def pieces(members: sympy.Set) -> list[tuple[Any, bool]]:
    """The ends of the intervals that a set consists of, from left to right, each with whether it is left out."""
    parts = members.args if isinstance(members, sympy.Union) else (members,)
    ends: list[tuple[Any, bool]] = []
    for part in parts:
        if isinstance(part, sympy.Interval):
            ends += [(part.start, bool(part.left_open)), (part.end, bool(part.right_open))]
        elif isinstance(part, sympy.FiniteSet):
            ends += [end for point in part for end in ((point, False), (point, False))]
        else:
            return []
    return sorted(ends, key=lambda end: float(end[0]))
