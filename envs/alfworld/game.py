"""The fast engine: a game's file interpreted directly.

textworld translates the problem for a planner, lets the planner's library track the state, and derives every text and
every possible command from the grammar anew at each step. Here the state is a set of facts, the actions of the PDDL domain
are queries to it, and the texts are compiled (grammar.py). Feedback, possible commands and the end are the same, step by
step, as tests/envs/alfworld and bench/alfworld.py show against textworld itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .facts import Facts, Query, Row, Rows, add, discard, holds
from .grammar import Conditions, Context, Variable, read_grammar
from .pddl import ROOT, Action, Atom, Conjunction, Domain, Effect, Unsupported, read_domain, read_problem

NOTHING = "Nothing happens."
LETTERS = {"_bar_": "|", "_minus_": "-", "_plus_": "+", "_dot_": ".", "_comma_": ","}


class Game:
    """One game, ready to be played any number of times; a play never changes it. Raises Unsupported."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        """`data` is the content of a game.tw-pddl."""
        self.domain = read_domain(data["pddl_domain"])
        self.problem = read_problem(data["pddl_problem"])
        self.grammar, self.goal = read_grammar(data["grammar"])
        problem, domain = self.problem, self.domain
        types = [Atom(f"type {kind}", (name,)) for name, exact in problem.objects.items() for kind in _kinds(domain, exact)]
        self.facts = Facts.of([*problem.facts, *types], domain.fluents | {f"not_{name}" for name in domain.fluents})
        self.names = demangled({name for fact in problem.facts for name in fact.terms})
        self._won = [Query(case, self.facts, ()) for case in problem.goal]
        self.actions = [Possible(action, self.facts) for action in domain.actions if action.name in self.grammar.templates]
        if len(self.actions) != len(domain.actions):
            raise Unsupported("an action without a template")
        asked = {name.removeprefix("not_") for name in self.grammar.asked}
        if asked & {effect.literal.atom.predicate for action in domain.actions for effect in action.effects if effect.given}:
            raise Unsupported("texts that tell of conditional effects")  # textworld's facts take all of those for having happened
        self._queries: dict[tuple[Conditions, tuple[Variable, ...]], Query] = {}
        self._commands: dict[tuple[str, Row], str] = {}

    def query(self, conditions: Conditions, known: tuple[Variable, ...]) -> Query:
        if (query := self._queries.get((conditions, known))) is None:
            query = self._queries[conditions, known] = conditions.query(self, known)
        return query

    def context(self, fluent: Rows, possible: Possible | None = None, row: Row = ()) -> Context:
        values = {} if possible is None else dict(zip(possible.variables, row, strict=True))
        return Context(self, fluent, values, self.goal)

    def command(self, fluent: Rows, possible: Possible, row: Row) -> str:
        """How an action is commanded. That never changes during a game: the templates ask for nothing that does."""
        key = (possible.action.name, row)
        if (text := self._commands.get(key)) is None:
            text = self._commands[key] = self.grammar.templates[possible.action.name].command(self.context(fluent, possible, row))
        return text

    def won(self, fluent: Rows) -> bool:
        return any(query.find(fluent) for query in self._won)


class GameSession:
    """One game being played. `feedback`, `admissible` (sorted) and `won` tell how it stands."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.fluent: Rows = {key: set(rows) for key, rows in game.facts.start.items()}
        self.feedback = game.grammar.rule("intro")(game.context(self.fluent))
        self._commands: dict[str, dict[str, Row]] = {}  # action -> command -> values of the parameters
        self._look(None)

    def step(self, command: str) -> None:
        command = command.strip()
        for possible in self.game.actions:
            if (row := self._commands[possible.action.name].get(command)) is not None:
                changed = possible.apply(row, self.game.facts, self.fluent)
                context = self.game.context(self.fluent, possible, row)
                self.feedback = self.game.grammar.templates[possible.action.name].feedback(context)
                self._look(changed)
                return
        self.feedback = NOTHING

    def _look(self, changed: set[str] | None) -> None:
        """What is possible now. Only what asks for a predicate that changed (None: at the start) is asked again."""
        for possible in self.game.actions:
            if changed is None or not changed.isdisjoint(possible.reads):
                rows = possible.rows(self.fluent)
                self._commands[possible.action.name] = {self.game.command(self.fluent, possible, row): row for row in rows}
        self.admissible = sorted({command for commands in self._commands.values() for command in commands})
        self.won = self.game.won(self.fluent)


class Possible:
    """An action, and where it is possible."""

    def __init__(self, action: Action, facts: Facts) -> None:
        self.action = action
        self.names = tuple(name for name, _ in action.parameters)
        self.variables = tuple((name.lstrip("?"), kind) for name, kind in action.parameters)
        self.reads = {literal.atom.predicate for case in action.cases for literal in case.literals}
        self._cases = [_Case(self, case, facts) for case in action.cases]

    def rows(self, fluent: Rows) -> list[Row]:
        """The values of the parameters, each combination once."""
        return list(dict.fromkeys(row[: len(self.names)] for case in self._cases for row in case.rows(fluent)))

    def effects(self, values: Mapping[str, str], happening: Iterable[Effect]) -> dict[tuple[str, Row], bool]:
        """What becomes true or false; what is both added and deleted is added."""
        result: dict[tuple[str, Row], bool] = {}
        for effect in happening:
            atom = (effect.literal.atom.predicate, _row(effect.literal.atom, values))
            result[atom] = result.get(atom, False) or effect.literal.positive
        return result

    def apply(self, row: Row, facts: Facts, fluent: Rows) -> set[str]:
        """Change the facts, and tell which predicates changed. What was deleted is remembered as not_..., which the grammar asks for."""
        values = dict(zip(self.names, row, strict=True))
        happening = [effect for effect in self.action.effects if all(holds(part, values, facts, fluent) for part in effect.given)]
        effects = self.effects(values, happening)
        for (predicate, terms), positive in effects.items():
            added, dropped = (predicate, f"not_{predicate}") if positive else (f"not_{predicate}", predicate)
            add(fluent, added, terms)
            discard(fluent, dropped, terms)
        return {predicate for predicate, _ in effects}


class _Case:
    """One of the conditions under which an action is possible."""

    def __init__(self, possible: Possible, case: Conjunction, facts: Facts) -> None:
        self.possible, self.literals = possible, case.literals
        self.names = possible.names + tuple(name for name in case.types if name not in possible.names)
        self.query = Query(case, facts, self.names)
        effects = possible.action.effects
        given = {literal.atom.predicate for literal in case.literals}
        self.may_be_idle = all(not effect.given and effect.literal.atom.predicate in given for effect in effects)
        self._idle: dict[Row, bool] = {}

    def rows(self, fluent: Rows) -> list[Row]:
        found = self.query.find(fluent)
        return [row for row in found if not self.is_idle(row)] if self.may_be_idle else found

    def is_idle(self, row: Row) -> bool:
        """Whether nothing would change, as in going where one is: the translator drops such actions, so they are not possible."""
        if (idle := self._idle.get(row)) is None:
            values = dict(zip(self.names, row, strict=True))
            given = {(literal.atom.predicate, _row(literal.atom, values)): literal.positive for literal in self.literals}
            effects = self.possible.effects(values, self.possible.action.effects)
            idle = self._idle[row] = all(given.get(atom) is positive for atom, positive in effects.items())
        return idle


def _row(atom: Atom, values: Mapping[str, str]) -> Row:
    return tuple([values.get(term, term) for term in atom.terms])


def _kinds(domain: Domain, exact: str) -> set[str]:
    return {kind for kind in (exact, ROOT, *domain.parents) if kind == ROOT or domain.is_a(exact, kind)}


def demangled(ids: set[str]) -> dict[str, str]:
    """`cabinet_bar_...` as `cabinet 2`: numbered from the last id of its class in alphabetical order to the first."""
    classes = {name: _class(name) for name in sorted(ids)}
    left = Counter(kind for kind in classes.values() if kind)
    names = {}
    for name, kind in classes.items():
        if kind is None:
            names[name] = f"{_readable(name)} "  # as alfworld has it, with the space before the number that is not there
        else:
            names[name] = f"{kind} {left[kind]}"
            left[kind] -= 1
    return names


def _class(name: str) -> str | None:
    head, bar, _ = name.partition("_bar_")
    return (_readable(head) + ("basin" if "basin" in name else "")) if bar else None


def _readable(name: str) -> str:
    for mangled, letter in LETTERS.items():
        name = name.replace(mangled, letter)
    return name
