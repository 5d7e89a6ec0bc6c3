"""PDDL as the games use it: domains and problems read into plain data, conditions into disjunctions of conjunctions.

What is understood: typing, `and`, `or`, `not` of an atom or an equality, `exists` in conditions; literals, `and`, `when` and
`increase` in effects. Anything else raises Unsupported, and the game is left to textworld itself (stock.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, product
from typing import Any

Expression = Any  # a symbol, or a list of expressions
ROOT = "object"  # the type that every other is a kind of
TOKEN = re.compile(r"[()]|[^\s()]+")


class Unsupported(ValueError):
    """The game uses something that the fast engine does not read."""


@dataclass(frozen=True)
class Atom:
    """A predicate and its terms: variables start with `?`, everything else is a constant. `(= x y)` is an atom too."""

    predicate: str
    terms: tuple[str, ...]


@dataclass(frozen=True)
class Literal:
    atom: Atom
    positive: bool


@dataclass(frozen=True)
class Effect:
    """What becomes of an atom, where all of `given` holds."""

    given: tuple[Literal, ...]
    literal: Literal


@dataclass(frozen=True)
class Conjunction:
    """Literals that hold together, for variables of these types."""

    literals: tuple[Literal, ...]
    types: dict[str, str] = field(hash=False)


@dataclass(frozen=True)
class Action:
    """An action is possible where one of `cases` holds."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    cases: tuple[Conjunction, ...]
    effects: tuple[Effect, ...]


@dataclass(frozen=True)
class Domain:
    actions: tuple[Action, ...]
    parents: dict[str, str] = field(hash=False)

    def is_a(self, kind: str, wanted: str) -> bool:
        while kind not in (wanted, ROOT):
            kind = self.parents.get(kind, ROOT)
        return kind == wanted

    @functools.cached_property
    def fluents(self) -> frozenset[str]:
        """The predicates that actions change; every other stays as the problem has it."""
        return frozenset(effect.literal.atom.predicate for action in self.actions for effect in action.effects)


@dataclass(frozen=True)
class Problem:
    """`objects` maps each name to its type."""

    objects: dict[str, str]
    facts: tuple[Atom, ...]
    goal: tuple[Conjunction, ...]


def parse(text: str) -> list[Expression]:
    """One parenthesised expression, in lower case and without comments."""
    stack: list[list[Expression]] = [[]]
    for token in TOKEN.findall(re.sub(r";[^\n]*", "", text).lower()):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) < 2:
                raise Unsupported("a closing parenthesis too many")
            closed = stack.pop()
            stack[-1].append(closed)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise Unsupported("parentheses do not match")
    return stack[0][0]


@functools.lru_cache(maxsize=8)
def read_domain(text: str) -> Domain:
    """Raises Unsupported."""
    sections = parse(text)
    parents = dict(pair for part in _all(sections, ":types") for pair in _typed(part))
    if _all(sections, ":derived") or _all(sections, ":constants"):
        raise Unsupported("derived predicates, constants")
    return Domain(tuple(_action(part) for part in _all(sections, ":action")), parents)


def read_problem(text: str) -> Problem:
    """Raises Unsupported."""
    sections = parse(text)
    facts = []
    for part in _all(sections, ":init"):
        facts += [Atom(fact[0], tuple(fact[1:])) for fact in part if fact[0] != "="]  # (= (distance a b) 1) and the like are costs
    objects = dict(pair for part in _all(sections, ":objects") for pair in _typed(part))
    (goal,) = _all(sections, ":goal") or [None]
    if goal is None or any(not isinstance(term, str) for fact in facts for term in fact.terms):
        raise Unsupported("no goal, or nested terms in :init")
    return Problem(objects, tuple(facts), cases(goal[0], {}))


def cases(condition: Expression, types: dict[str, str]) -> tuple[Conjunction, ...]:
    """The disjunctive normal form of a condition over variables of these types; `exists` adds variables of fresh names."""
    fresh = count()

    def walk(node: Expression, names: dict[str, str]) -> list[tuple[tuple[Literal, ...], dict[str, str]]]:
        if not node:
            return [((), {})]
        head, *rest = node
        if head == "and":
            parts = [walk(part, names) for part in rest]
            return [
                (tuple(x for literals, _ in chosen for x in literals), {k: v for _, kinds in chosen for k, v in kinds.items()})
                for chosen in product(*parts)
            ]
        if head == "or":
            return [case for part in rest for case in walk(part, names)]
        if head == "exists":
            variables = [(name, f"{name}'{next(fresh)}", kind) for name, kind in _typed(rest[0])]
            inner = walk(rest[1], names | {name: new for name, new, _ in variables})
            return [(literals, kinds | {new: kind for _, new, kind in variables}) for literals, kinds in inner]
        if head in ("forall", "imply", "when"):
            raise Unsupported(f"{head} in a condition")
        return [((_literal(node, names),), {})]

    return tuple(Conjunction(literals, types | kinds) for literals, kinds in walk(condition, {}))


def _action(part: Sequence[Expression]) -> Action:
    name, fields = part[0], dict(zip(part[1::2], part[2::2], strict=True))
    parameters = tuple(_typed(fields.get(":parameters", [])))
    return Action(name, parameters, cases(fields.get(":precondition", []), dict(parameters)), tuple(_effects(fields[":effect"], ())))


def _effects(node: Expression, given: tuple[Literal, ...]) -> Iterator[Effect]:
    head, *rest = node
    if head == "and":
        for part in rest:
            yield from _effects(part, given)
    elif head == "when":
        conditions = cases(rest[0], {})
        if len(conditions) != 1 or conditions[0].types:
            raise Unsupported("a conditional effect with `or` or `exists`")
        yield from _effects(rest[1], given + conditions[0].literals)
    elif head == "forall":
        raise Unsupported("forall in an effect")
    elif head != "increase":
        yield Effect(given, _literal(node, {}))


def _literal(node: Expression, names: Mapping[str, str]) -> Literal:
    positive = node[0] != "not"
    inner: list[Any] = node if positive else node[1]
    head, *terms = inner
    if not isinstance(head, str) or head in ("and", "or", "not", "exists", "forall") or any(not isinstance(term, str) for term in terms):
        raise Unsupported("not of something other than an atom, or nested terms")
    return Literal(Atom(head, tuple(names.get(term, term) for term in terms)), positive)


def _typed(symbols: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`a b - kind c` as pairs of name and type."""
    pending: list[str] = []
    rest = iter(symbols)
    for symbol in rest:
        if symbol == "-":
            kind = next(rest)
            if not isinstance(kind, str):
                raise Unsupported("either")
            yield from ((name, kind) for name in pending)
            pending = []
        else:
            pending.append(symbol)
    yield from ((name, ROOT) for name in pending)


def _all(sections: Sequence[Expression], name: str) -> list[list[Expression]]:
    return [part[1:] for part in sections[1:] if isinstance(part, list) and part[:1] == [name]]
