"""What is true in a game, indexed, and the search for the values that make a conjunction true."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .pddl import Atom, Conjunction, Literal

Row = tuple[str, ...]
Rows = dict[tuple, set[Row]]
"""Rows by (predicate,) and by (predicate, place, value at that place)."""
NONE: frozenset[Row] = frozenset()
Search = Callable[[list, Rows, list], None]


def add(rows: Rows, predicate: str, row: Row) -> None:
    for key in _keys(predicate, row):
        rows.setdefault(key, set()).add(row)


def discard(rows: Rows, predicate: str, row: Row) -> None:
    for key in _keys(predicate, row):
        if key in rows:
            rows[key].discard(row)


def _keys(predicate: str, row: Row) -> list[tuple]:
    return [(predicate,), *((predicate, place, value) for place, value in enumerate(row))]


@dataclass(frozen=True)
class Facts:
    """The facts that never change, those of the start that may, and the predicates of the latter."""

    fixed: Rows
    start: Rows
    fluents: frozenset[str]

    @classmethod
    def of(cls, atoms: Iterable[Atom], fluents: frozenset[str]) -> Facts:
        facts = cls({}, {}, fluents)
        for atom in atoms:
            add(facts.start if atom.predicate in fluents else facts.fixed, atom.predicate, atom.terms)
        return facts

    def rows(self, predicate: str) -> set[Row] | frozenset[Row]:
        return (self.start if predicate in self.fluents else self.fixed).get((predicate,), NONE)


class Query:
    """A conjunction made ready to be searched: `find` gives the values of `wanted` for every way to make it true.

    Each variable and constant has a place in a list; a chain of functions, one an atom, fills the places in turn. The
    order of the atoms is chosen once: those whose values are known first, then the one with the fewest facts.
    """

    def __init__(self, conjunction: Conjunction, facts: Facts, wanted: Iterable[str], known: Iterable[str] = ()) -> None:
        self.places: dict[str, int] = {}
        self.known = [self._place(name) for name in known]
        self.wanted = tuple(self._place(name) for name in wanted)
        atoms = [literal.atom for literal in conjunction.literals if literal.positive and literal.atom.predicate != "="]
        atoms += [Atom(f"type {kind}", (name,)) for name, kind in conjunction.types.items() if name not in known]
        for atom in atoms:
            for term in atom.terms:
                self._place(term)
        tests = [literal for literal in conjunction.literals if not literal.positive or literal.atom.predicate == "="]
        for test in tests:
            for term in test.atom.terms:
                self._place(term)
        self.blank = [None if name.startswith("?") else name for name in self.places]
        bound = {self.places[name] for name in self.places if not name.startswith("?") or name in known}
        self._search = self._chain(atoms, tests, bound, facts)

    def find(self, fluent: Rows, known: Iterable[str] = ()) -> list[Row]:
        """The rows of wanted values; the same row may come more than once."""
        values: list = self.blank.copy()
        for place, value in zip(self.known, known, strict=True):
            values[place] = value
        found: list[Row] = []
        self._search(values, fluent, found)
        return found

    def _place(self, name: str) -> int:
        return self.places.setdefault(name, len(self.places))

    def _chain(self, atoms: list[Atom], tests: list[Literal], bound: set[int], facts: Facts) -> Search:
        ready = [test for test in tests if all(self.places[term] in bound for term in test.atom.terms)]
        if ready:
            rest = self._chain(atoms, [test for test in tests if test not in ready], bound, facts)
            for test in ready:
                rest = _test(test, tuple(self.places[term] for term in test.atom.terms), facts, rest)
            return rest
        if not atoms:
            if tests:
                raise ValueError("a variable that stands in negative literals alone")
            wanted = self.wanted
            return lambda values, fluent, found: found.append(tuple([values[place] for place in wanted]))

        def price(atom: Atom) -> float:
            known = [self.places[term] in bound for term in atom.terms]
            if all(known):
                return -1
            rows = facts.rows(atom.predicate)
            spread = max((len({row[at] for row in rows}) for at, is_known in enumerate(known) if is_known), default=1)
            # A type says little and is true of much: last. What may change is often not true yet: a little cheaper than it could be.
            return len(rows) / max(spread, 1) + (1e6 if atom.predicate.startswith("type ") else 0)

        best = min(atoms, key=price)
        places = tuple(self.places[term] for term in best.terms)
        rest = self._chain([atom for atom in atoms if atom is not best], tests, bound | set(places), facts)
        fixed = None if best.predicate in facts.fluents else facts.fixed
        if all(place in bound for place in places):
            return _check(best.predicate, places, fixed, rest)
        return _scan(best.predicate, places, bound, fixed, rest)


def _check(predicate: str, places: tuple[int, ...], fixed: Rows | None, rest: Search) -> Search:
    key = (predicate,)

    def check(values: list, fluent: Rows, found: list) -> None:
        if tuple([values[place] for place in places]) in (fluent if fixed is None else fixed).get(key, NONE):
            rest(values, fluent, found)

    return check


def _scan(predicate: str, places: tuple[int, ...], bound: set[int], fixed: Rows | None, rest: Search) -> Search:
    first = next((at for at, place in enumerate(places) if place in bound), None)
    new = [(at, place) for at, place in enumerate(places) if place not in bound and place not in places[:at]]
    same = [(at, place) for at, place in enumerate(places) if at != first and (place in bound or place in places[:at])]

    def scan(values: list, fluent: Rows, found: list) -> None:
        key = (predicate,) if first is None else (predicate, first, values[places[first]])
        for row in (fluent if fixed is None else fixed).get(key, NONE):
            for at, place in new:
                values[place] = row[at]
            if all([values[place] == row[at] for at, place in same]):
                rest(values, fluent, found)

    return scan


def _test(test: Literal, places: tuple[int, ...], facts: Facts, rest: Search) -> Search:
    predicate, positive = test.atom.predicate, test.positive
    fixed = None if predicate in facts.fluents else facts.fixed

    def compare(values: list, fluent: Rows, found: list) -> None:
        if (values[places[0]] == values[places[1]]) is positive:
            rest(values, fluent, found)

    def absent(values: list, fluent: Rows, found: list) -> None:
        if tuple([values[place] for place in places]) not in (fluent if fixed is None else fixed).get((predicate,), NONE):
            rest(values, fluent, found)

    return compare if predicate == "=" else absent


def holds(literal: Literal, values: Mapping[str, str], facts: Facts, fluent: Rows) -> bool:
    """Whether a literal is true for these values of its variables."""
    row = tuple(values.get(term, term) for term in literal.atom.terms)
    predicate = literal.atom.predicate
    true = row[0] == row[1] if predicate == "=" else row in (fluent if predicate in facts.fluents else facts.fixed).get((predicate,), NONE)
    return true is literal.positive
