"""What a game says: the grammar of its file, parsed by textworld once and compiled to functions.

textworld writes a text by replacing symbols in a stack, parses each template anew and copies its context at each symbol.
Here a rule is a function of the context. The order of a list is textworld's: by the arguments of the facts, in the order of the query.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .facts import Facts, Query, Rows
from .pddl import Atom, Conjunction, Literal, Unsupported
from .stock import alone

GOAL = re.compile(r'(?<="rhs": "Your task is to: )[^"#{}\[\]<>;|\\]+(?="\s)')
MASK = "UNKNOWN GOAL."

Variable = tuple[str, str]  # name and type: textworld tells variables of one name apart by their types
Write = Callable[["Context"], str]


class World(Protocol):
    """A game, as far as its texts need to know."""

    @property
    def names(self) -> Mapping[str, str]:
        """What each object is called."""
        ...

    @property
    def facts(self) -> Facts: ...

    def query(self, conditions: Conditions, known: tuple[Variable, ...]) -> Query: ...


@dataclass(frozen=True)
class Context:
    """Where a text is written: the game, what is true in it now, and the values of variables."""

    game: World
    fluent: Rows
    values: dict[Variable, str]
    goal: str

    def value(self, name: str) -> str:
        """The variable of this name that was bound last."""
        return next(value for (known, _), value in reversed(self.values.items()) if known == name)


@dataclass(frozen=True)
class Conditions:
    """A query of the grammar: `atlocation(a:agent, l:location) & ...`."""

    predicates: tuple[tuple[str, tuple[Variable, ...]], ...]

    @functools.cached_property
    def variables(self) -> tuple[Variable, ...]:
        return tuple(dict.fromkeys(variable for _, variables in self.predicates for variable in variables))

    def matches(self, context: Context) -> list[dict[Variable, str]]:
        """All assignments, in textworld's order; different variables have different values."""
        known = tuple(variable for variable in self.variables if variable in context.values)
        new = tuple(variable for variable in self.variables if variable not in context.values)
        taken = set(context.values.values())
        query = context.game.query(self, known)
        places = [self.variables.index(variable) for _, variables in self.predicates for variable in variables]
        found = set(query.find(context.fluent, [context.values[variable] for variable in known]))
        result = []
        for row in sorted(found, key=lambda row: [row[place] for place in places]):
            values = dict(zip(self.variables, row, strict=True))
            fresh = {values[variable] for variable in new}
            if len(fresh) == len(new) and not fresh & taken:
                result.append(context.values | {variable: values[variable] for variable in new})
        return result

    def query(self, game: World, known: tuple[Variable, ...]) -> Query:
        def term(variable: Variable) -> str:
            return f"?{variable[0]}:{variable[1]}"

        atoms = [Literal(Atom(name, tuple(map(term, variables))), True) for name, variables in self.predicates]
        types = {term(variable): variable[1] for variable in self.variables}
        return Query(Conjunction(tuple(atoms), types), game.facts, map(term, self.variables), list(map(term, known)))


@dataclass(frozen=True)
class Template:
    """How an action is commanded and answered."""

    command: Write
    feedback: Write


@dataclass(frozen=True)
class Grammar:
    """`asked` has the predicates that its conditions name."""

    templates: dict[str, Template]
    rules: dict[str, list[tuple[Conditions | None, Write]]]
    asked: set[str]

    def rule(self, name: str) -> Write:
        def write(context: Context) -> str:
            for condition, text in self.rules[name]:
                if condition is None or condition.matches(context):
                    return text(context)
            raise Unsupported(f"no rule of #{name}# applies")

        return write


def read_grammar(text: str) -> tuple[Grammar, str]:
    """The grammar of a game's file, and the goal in words, which alone differs from file to file. Raises Unsupported."""
    if len(found := GOAL.findall(text)) == 1:
        return _read(GOAL.sub(MASK, text)), found[0]
    return _read(text), MASK


@functools.lru_cache(maxsize=8)
def _read(text: str) -> Grammar:
    with alone():
        from textworld.envs.pddl import textgen
        from textworld.envs.pddl.logic import GameLogic
        from textworld.logic import Rule

        compiler = _Compiler(textgen, Rule)
        logic = GameLogic(domain="", grammar=text)
        grammar = Grammar({}, {}, compiler.asked)
        for name, rules in logic.grammar._rules.items():
            grammar.rules[name] = [(compiler.conditions(rule.condition), compiler.text(rule.rhs, grammar)) for rule in rules]
        for name, action in logic.actions.items():
            command, feedback = (textgen._parse_and_convert(part, rule_name="symbols") for part in (action.template, action.feedback_rule))
            grammar.templates[name] = Template(compiler.text(command, grammar), compiler.text(feedback, grammar))
        return grammar


class _Compiler:
    """From textworld's symbols to functions."""

    def __init__(self, textgen: Any, rule: Any) -> None:
        self.textgen, self.rule = textgen, rule
        self.asked: set[str] = set()

    def conditions(self, text: str) -> Conditions | None:
        if not text:
            return None
        parsed = self.rule.parse_conjunctive_query(text).preconditions
        self.asked |= {part.name for part in parsed}
        return Conditions(tuple((part.name, tuple((ph.name, ph.type) for ph in part.parameters)) for part in parsed))

    def text(self, symbols: list[Any], grammar: Grammar) -> Write:
        parts = [self.symbol(symbol, grammar) for symbol in symbols]
        if len(parts) == 1:
            return parts[0]
        return lambda context: "".join([part(context) for part in parts])

    def symbol(self, symbol: Any, grammar: Grammar) -> Write:
        if isinstance(symbol, self.textgen.TerminalSymbol):
            literal = str(symbol)
            if MASK in literal:
                return lambda context: literal.replace(MASK, context.goal)
            return lambda context: literal
        if isinstance(symbol, self.textgen.NonterminalSymbol):
            return grammar.rule(str(symbol))
        if isinstance(symbol, self.textgen.EvalSymbol):
            return _expression(ast.parse(symbol.expression.strip(), mode="eval").body)
        if isinstance(symbol, self.textgen.ConditionalSymbol):
            each = self.each(symbol, grammar)
            return lambda context: "".join(each(context))
        if isinstance(symbol, self.textgen.ListSymbol):
            return self.enumeration(self.each(symbol.symbol, grammar), grammar)
        raise Unsupported(f"a symbol of the grammar: {type(symbol).__name__}")

    def each(self, symbol: Any, grammar: Grammar) -> Callable[[Context], list[str]]:
        conditions, write = self.conditions(symbol.given), self.symbol(symbol.expression, grammar)
        if conditions is None:
            return lambda context: [write(context)]
        return lambda context: [
            write(Context(context.game, context.fluent, values, context.goal)) for values in conditions.matches(context)
        ]

    def enumeration(self, each: Callable[[Context], list[str]], grammar: Grammar) -> Write:
        empty, comma, last_comma = (grammar.rule(f"list_{part}") for part in ("empty", "separator", "last_separator"))

        def write(context: Context) -> str:
            *most, last = each(context) or [empty(context)]
            return comma(context).join(most) + (last_comma(context) if most else "") + last

        return write


def _expression(node: ast.expr) -> Write:
    """textworld evaluates these as Python; here only what games need: names, attributes, strings, `+` and `or`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
        return lambda context: text
    if isinstance(node, ast.Name):
        name = node.id
        return lambda context: context.game.names[context.value(name)]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = node.value.id
        if node.attr == "name":
            return lambda context: context.game.names[context.value(name)]
        if node.attr == "id":
            return lambda context: context.value(name)
        if node.attr in (articles := {"definite": "the", "indefinite": "a"}):
            article = articles[node.attr]
            return lambda context: article
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _expression(node.left), _expression(node.right)
        return lambda context: left(context) + right(context)
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and len(node.values) == 2:
        left, right = map(_expression, node.values)
        return lambda context: left(context) or right(context)
    raise Unsupported(f"an expression of the grammar: {ast.unparse(node)}")
