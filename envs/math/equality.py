r"""Two shapes (shapes.py) compared: lists and sets in any order, points in theirs, intervals and inequalities as sets of reals, equations.

Runs in the worker program only (program.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sympy

from .algebra import Unreadable, equal, proportional, same_value, value
from .equations import ascending, name_of, named, normal_form
from .reals import Reals, interval, is_pair, joined, pieces, reals
from .shapes import Shape


@dataclass(frozen=True)
class Tolerances:
    """How two shapes are compared: the tolerances of numbers."""

    absolute: float = 0.0
    relative: float = 0.0

    def same(self, gold: Shape, answer: Shape) -> bool:
        """Whether an answer says what the gold says."""
        gold, answer = normal_form(gold), normal_form(answer)
        if gold == answer:
            return True
        if gold[0] == "relation" or answer[0] == "relation":
            return self._relations(gold, answer)
        if gold[0] == "mod" or answer[0] == "mod":
            return gold[0] == answer[0] and self.same(gold[2], answer[2]) and self._congruent(gold, answer)
        if (wanted := reals(gold)) is not None or is_pair(gold):
            found = reals(answer)
            if wanted or found:
                return self._sets(wanted or interval(gold), found or interval(answer) or joined(answer)) or self._parts(gold, answer)
        if gold[0] == "builder" or answer[0] == "builder":
            return False
        if gold[0] == "formula" and answer[0] == "formula":
            return same_value(gold[1], answer[1], self.absolute, self.relative)
        return self._collections(gold, answer)

    # ------------------------------------------------------------------------------------------------------------- equations

    def _relations(self, gold: Shape, answer: Shape) -> bool:
        if gold[0] != "relation":
            if set(answer[2]) <= {"="}:  # what a chain of equations ends in
                return self.same(gold, answer[1][-1])
            region = reals(answer)
            wanted = reals(gold) or interval(gold)
            return self._sets(wanted, region)
        wanted, name = named(gold)
        if answer[0] != "relation":
            if name is not None:
                return self.same(wanted, answer)
            return self._sets(reals(gold), reals(answer) or interval(answer) or joined(answer))
        given, other = named(answer)
        if name is not None and name == other:
            return self.same(wanted, given)
        if (region := reals(gold)) is not None and (found := reals(answer)) is not None:
            return self._sets(region, found)
        return self._chains(gold, answer)

    def _chains(self, gold: Shape, answer: Shape) -> bool:
        """Chains of the same relations between the same terms, read from either end; or one relation, multiplied by a constant."""
        (_, terms, signs), (_, others, also) = ascending(gold), ascending(answer)
        if signs == also and len(terms) == len(others) and all(map(self._same_or_wrong, terms, others)):
            return True
        if set(signs) == {"="} == set(also) and len(terms) == len(others) and self._matched(terms, others, self._same_or_wrong):
            return True
        if len(signs) == 1 and signs == also and all(term[0] == "formula" for term in terms + others):
            try:
                sign = proportional((terms[0][1], terms[1][1]), (others[0][1], others[1][1]))
            except Unreadable:
                return False
            return sign > 0 or (sign < 0 and signs[0] in ("=", "!="))
        return False

    def _same_or_wrong(self, gold: Shape, answer: Shape) -> bool:
        try:
            return self.same(gold, answer)
        except Unreadable:
            return False

    def _congruent(self, gold: Shape, answer: Shape) -> bool:
        residue, other = (named(side[1])[0] if side[1][0] == "relation" else side[1] for side in (gold, answer))
        if normal_form(residue)[0] == normal_form(other)[0] == "formula":
            modulus, one, two = (value(shape[1])[0] for shape in (normal_form(gold[2]), normal_form(residue), normal_form(other)))
            if all(isinstance(number, sympy.Integer) for number in (modulus, one, two)) and modulus != 0:
                return (one - two) % modulus == 0
        return self.same(residue, other)

    # ----------------------------------------------------------------------------------------------------------- sets of reals

    def _sets(self, gold: Reals | None, answer: Reals | None) -> bool:
        if gold is None or answer is None or (None not in (gold.unknown, answer.unknown) and gold.unknown != answer.unknown):
            return False
        if gold.members == answer.members:
            return True
        ours, theirs = pieces(gold.members), pieces(answer.members)
        return len(ours) == len(theirs) > 0 and all(
            opens == also and equal(end, other, False, self.absolute, self.relative)
            for (end, opens), (other, also) in zip(ours, theirs, strict=True)
        )

    def _parts(self, gold: Shape, answer: Shape) -> bool:
        """A union of the same parts, where the ends are no numbers; a gold pair against a pair."""
        if gold[0] == answer[0] in ("union", "intersection", "minus"):
            return len(gold[1]) == len(answer[1]) and all(map(self.same, gold[1], answer[1]))
        return False

    # ------------------------------------------------------------------------------------------------------------- collections

    def _collections(self, gold: Shape, answer: Shape) -> bool:
        if gold[0] == answer[0] in ("union", "intersection", "minus"):
            return self._parts(gold, answer)
        if "matrix" in (gold[0], answer[0]):
            return self._matrices(gold, answer)
        ours, theirs = _items(gold), _items(answer)
        if ours is None and answer[:2] == ["list", "or"]:  # the same value in several spellings
            return all(self.same(gold, item) for item in answer[2])
        if ours is None or theirs is None:
            single, other = (ours, answer) if ours is not None else (theirs, gold)
            if single is None or len(single) != 1:
                return False
            return self.same(single[0], other) if ours is not None else self.same(other, single[0])
        if {gold[0], answer[0]} == {"set", "tuple"} or (gold[0] == "tuple" and answer[0] == "list" and answer[1] == "or"):
            return False
        if gold[0] == answer[0] == "tuple" and gold[1:3] != answer[1:3] and (len(ours) == 2 or answer[1:3] != ["[", "]"]):
            return False
        ours, theirs = _in_order_of_names(ours), _in_order_of_names(theirs)
        if gold[0] == "tuple" or (_distinct_names(ours) and not _distinct_names(theirs)):
            return len(ours) == len(theirs) and all(map(self.same, ours, theirs))
        theirs = _without_numbered_names(theirs)
        if gold[0] == "set":
            return all(any(self.same(one, other) for other in theirs) for one in ours) and all(
                any(self.same(one, other) for one in ours) for other in theirs
            )
        return len(ours) == len(theirs) and self._matched(ours, theirs, self.same)

    def _matched(self, ours: list[Shape], theirs: list[Shape], same: Callable[[Shape, Shape], bool]) -> bool:
        """Whether each of ours is one of theirs."""
        left = list(theirs)
        for one in ours:
            at = next((at for at, other in enumerate(left) if same(one, other)), None)
            if at is None:
                return False
            del left[at]
        return True

    def _matrices(self, gold: Shape, answer: Shape) -> bool:
        rows, others = _rows(gold), _rows(answer)
        if rows is None or others is None or [len(row) for row in rows] != [len(row) for row in others]:
            return False
        return all(self.same(one, other) for row, also in zip(rows, others, strict=True) for one, other in zip(row, also, strict=True))


# ---------------------------------------------------------------------------------------------------------------- collections


def _items(shape: Shape) -> list[Shape] | None:
    return {"list": shape[2:], "set": shape[1:], "tuple": shape[3:]}.get(shape[0], [None])[0]


def _names(items: list[Shape]) -> list[str | None]:
    return [named(item)[1] if item[0] == "relation" else None for item in items]


def _distinct_names(items: list[Shape]) -> bool:
    names = _names(items)
    return len(names) > 1 and None not in names and len(set(names)) == len(names)


def _in_order_of_names(items: list[Shape]) -> list[Shape]:
    if not _distinct_names(items) or len({len(str(name)) for name in _names(items)}) > 1:
        return items
    return [item for _, item in sorted(zip(_names(items), items, strict=True), key=lambda pair: str(pair[0]))]


def _without_numbered_names(items: list[Shape]) -> list[Shape]:
    """`x_1=2, x_2=3` are two values of x."""
    names = _names(items)
    if (
        len(items) > 1
        and all(name and re.fullmatch(r".+_[0-9]+", name) for name in names)
        and len({str(name).rpartition("_")[0] for name in names}) == 1
    ):
        return [named(item)[0] for item in items]
    return items


def _rows(shape: Shape) -> list[list[Shape]] | None:
    """A matrix, or a tuple as a column."""
    if shape[0] == "matrix":
        return shape[1]
    return [[item] for item in shape[3]] if shape[0] == "tuple" and shape[1:3] == ["(", ")"] else None


# ------------------------------------------------------------------------------------------------------------------- requests


def _formulas(shape: Shape) -> Iterator[str]:
    """The formulas in a shape that must be readable: all but the names on the left of equations."""
    if shape[0] == "formula":
        yield shape[1]
    elif shape[0] == "relation":
        for term in shape[1]:
            if not (term[0] == "formula" and name_of(term[1])):
                yield from _formulas(term)
    elif shape[0] == "matrix":
        yield from (text for row in shape[1] for cell in row for text in _formulas(cell))
    else:
        for part in shape[1:]:
            if isinstance(part, list):
                for inner in [part] if part and isinstance(part[0], str) else part:
                    yield from _formulas(inner)


def _readable(shape: Shape) -> bool:
    try:
        for text in _formulas(shape):
            value(text)
    except Unreadable:
        return False
    return True


def compare(gold: Shape, answer: Shape | None, absolute: float = 0.0, relative: float = 0.0) -> str:
    """correct, wrong or unparsed (the answer); bad gold. Without an answer: whether the gold can be read, correct if so."""
    if not _readable(gold):
        return "bad gold"
    if answer is None:
        return "correct"
    if not _readable(answer):
        return "unparsed"
    return "correct" if Tolerances(absolute, relative).same(gold, answer) else "wrong"
