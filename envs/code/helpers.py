"""What of a reply's code counts for a function: the definitions it needs from other blocks, and none of the examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .blocks import statements

NAME = re.compile(r"[A-Za-z_]\w*")
DEFINED = re.compile(r"^(?:@.*\n)*(?:async[ ]+)?(?:def|class)[ ]+(\w+)")
# A constant has a name in capital letters. Other assignments are mostly examples, and their names those of local variables.
CONSTANT = re.compile(r"^([A-Z_][A-Z0-9_]*)[ ]*(?::[^=\n]*)?=[^=]|^(\w+)[ ]*=[ ]*lambda\b")
ASSIGNED = re.compile(r"^(\w+)[ ]*(?::[^=\n]*)?=[^=]")
IMPORTED = re.compile(r"^(?:from[ ]+(\.*[\w.]+)[ ]+)?import[ ]+(.*)", re.DOTALL)


EXAMPLE = re.compile(r"assert\b|print[ ]*\(|unittest\.main\(|doctest\.")
BLOCK = re.compile(r"(?:for|while|with|try|if)\b")
SHOWS = re.compile(r"\bassert\b|\bprint[ ]*\(")


def without_examples(code: str) -> str:
    """`code` without what only shows or tests its functions: asserts and prints in the first column, and calls of functions that do that.

    A wrong example beside a right function would end the program before the function can be tested.
    """
    parts = list(statements(code))
    shows = {found[1] for part in parts if (found := DEFINED.match(part)) and SHOWS.search(part)}
    return "\n".join(part for part in parts if not _is_example(part, shows))


def _is_example(statement: str, shows: set[str]) -> bool:
    if EXAMPLE.match(statement):
        return _balanced(statement)
    if found := re.match(r"(\w+)[ ]*\(", statement):
        return found[1] in shows and _balanced(statement)
    return BLOCK.match(statement) is not None and SHOWS.search(statement) is not None and _balanced(statement)


def _balanced(statement: str) -> bool:
    """Whether a statement is complete as far as its brackets tell."""
    return all(statement.count(one) == statement.count(other) for one, other in ("()", "[]", "{}"))


def with_helpers(code: str, others: Iterable[str], wanted: Iterable[str] = ()) -> str:
    """`code` after those definitions of the other blocks that it uses, or that are wanted, and that it does not hold itself.

    Of two of one name the later counts. Only definitions are taken, so nothing that an example prints or asserts is run.
    """
    if "from __future__" in code:
        return code
    offered = [(names, statement) for other in others for statement in statements(other) if (names := set(_offers(statement)))]
    place = {name: at for at, (names, _) in enumerate(offered) for name in names}
    own = {name for statement in statements(code) for name in _binds(statement)}
    taken: set[int] = set()
    waiting = [name for name in [*NAME.findall(code), *wanted] if name in place and name not in own]
    while waiting:
        if (at := place[waiting.pop()]) not in taken:
            taken.add(at)
            waiting += [name for name in NAME.findall(offered[at][1]) if name in place and name not in own]
    return "\n".join([*(offered[at][1].strip("\n") for at in sorted(taken)), code])


def _offers(statement: str) -> Iterator[str]:
    """The names that a statement gives to other blocks."""
    if found := DEFINED.match(statement):
        yield found[1]
    elif not _balanced(statement):
        return
    elif found := CONSTANT.match(statement):
        yield found[1] or found[2]
    elif (found := IMPORTED.match(statement)) and found[1] != "__future__":
        for part in re.sub(r"#.*|[()\\]", "", found[2]).split(","):
            words = part.split()
            if words and words[-1] != "*":
                yield words[-1] if len(words) == 3 else words[0].partition(".")[0]


def _binds(statement: str) -> Iterator[str]:
    """The names that a statement of the program itself binds."""
    yield from _offers(statement)
    if found := ASSIGNED.match(statement):
        yield found[1]
