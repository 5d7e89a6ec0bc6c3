"""The fenced blocks of a reply, and the statements of a block, found by their lines alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

OPENING = re.compile(r"^([ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?)(```+|~~~+)[ \t]*([^`]*)$")
AFTER_TEXT = re.compile(r"^()[^`]*\S[ \t]*(```)[ \t]*((?i:python3?|py))[ \t]*$")  # `The code: ```python`
ONE_LINE = re.compile(r"^[ \t]*```((?i:python3?|py)?)[ \t]++([^`]++)```[ \t]*$")
PYTHON = re.compile(r"(?:i?python|py)[\d.]*|\S*\.pyi?", re.IGNORECASE)
LABEL = re.compile(r"[{.\s]*([\w+#./-]*)")
MAGIC = re.compile(r"^(?:[!%]pip|!apt|%{1,2}(?:matplotlib|time|timeit|capture|load_ext|writefile))\b.*$", re.MULTILINE)  # of notebooks
SESSION = re.compile(r"\s*(?:>>>|In \[\d+\]:|\$ )")
TRIPLE = re.compile(r"'''|\"\"\"")
# A line that starts in the first column and is Python rather than prose.
CODE = re.compile(
    r"""(?x)
    (?:async[ ]+)?def[ ]+\w+[ ]*[(\[] | class[ ]+\w+[ ]*[(:\[] | @\w | \#
    | import[ ]+[\w.]+(?:[ ]+as[ ]+\w+)?(?:[ ]*,.*)?[ ]*(?:\#.*)?$ | from[ ]+[\w.]+[ ]+import\b
    | (?:if|elif|for|while|with|except|match)\b.*: | (?:else|try|finally)[ ]*: | assert[ ]
    | [)\]}'"] | [A-Za-z_][\w.]*\(.*\)[ ]*(?:\#.*)?$
    | [A-Za-z_][\w.]*(?:\[[^\]]*\])?(?:[ ]*,[ ]*[A-Za-z_]\w*)*[ ]*(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=[^=]
    | [A-Za-z_]\w*[ ]*:[ ]*\w[^=]*=[^=]
    """,
    re.MULTILINE,
)
CONTINUED = re.compile(r"[)\]}]|(?:elif|else|except|finally)\b")  # in the first column, but part of the statement above


@dataclass(frozen=True)
class Block:
    """A fenced block, without its fence's own indentation."""

    label: str
    code: str

    @property
    def python(self) -> bool:
        return PYTHON.fullmatch(self.label) is not None and not SESSION.match(self.code)

    @property
    def unlabelled(self) -> bool:
        return not self.label and not SESSION.match(self.code)


def fenced(text: str) -> tuple[list[Block], str]:
    """The fenced blocks that hold anything, and the text outside them. The last block may lack its closing fence.

    A fence inside a string in triple quotes belongs to the string, unless the string then never ends.
    """
    return _fenced(text, in_strings=True) or _fenced(text, in_strings=False) or ([], text)


def _fenced(text: str, in_strings: bool) -> tuple[list[Block], str] | None:
    blocks: list[Block] = []
    prose: list[str] = []
    lines: list[str] | None = None  # of the open block
    indent = mark = label = quotes = ""
    passed_over = False  # a fence in the open block, because it was inside a string
    for line in text.split("\n"):
        stripped = line.strip()
        if lines is not None and quotes and mark in stripped:
            passed_over = True
        elif lines is not None and stripped.endswith(mark) and stripped.strip(mark[0]):  # code and closing fence on one line
            blocks.append(_block(label, [*lines, line.removeprefix(indent).rstrip().rstrip(mark[0])]))
            lines = None
            continue
        elif lines is not None and stripped.startswith(mark):
            blocks.append(_block(label, lines))
            lines = None
            if not stripped.strip(mark[0]):
                continue  # else a new block begins before this one was closed
        if lines is not None:
            lines.append(line.removeprefix(indent))
            quotes = _quotes(line, quotes) if in_strings else ""
        elif opening := OPENING.match(line) or AFTER_TEXT.match(line):
            indent, mark, label = " " * len(opening[1].expandtabs(1)) if opening[1].strip() else opening[1], opening[2], opening[3].strip()
            lines, quotes, passed_over = [], "", False
            if " " in label and CODE.match(label):  # the code begins beside the fence
                label, lines = "", [label]
            elif found := LABEL.match(label):
                label = found[1]
        elif single := ONE_LINE.match(line[:5000]):
            blocks.append(_block(single[1], [single[2].rstrip(" \t")]))
        else:
            prose.append(line)
    if lines:
        if passed_over:
            return None
        blocks.append(_block(label, lines))
    return [inner for block in blocks if block.code.strip() for inner in _inside(block)], "\n".join(prose)


def _block(label: str, lines: list[str]) -> Block:
    first, *rest = "\n".join(lines).lstrip("\n").split("\n")
    if not label and PYTHON.fullmatch(first.strip()):  # on the line below the fence
        label, lines = first.strip(), rest
    return Block(label, MAGIC.sub("", "\n".join([*lines, ""])))


def _inside(block: Block) -> list[Block]:
    """The blocks within a block of Markdown; any other block itself."""
    if block.label.lower() not in ("markdown", "md"):
        return [block]
    return [inner for inner in fenced(block.code)[0] if inner.label.lower() not in ("markdown", "md")]


def _quotes(line: str, open_: str) -> str:
    """The triple quotes that are open after a line, given those before it."""
    for found in TRIPLE.findall(line):
        open_ = "" if found == open_ else open_ or found
    return open_


def statements(code: str) -> Iterator[str]:
    """The statements in the first column, each with what is indented below it and a function or class with its decorators."""
    lines: list[str] = []
    quotes = ""
    for line in code.split("\n"):
        starts = not quotes and line[:1].strip() and not CONTINUED.match(line)
        if starts and lines and not lines[-1].startswith("@"):
            yield "\n".join(lines)
            lines = []
        lines.append(line)
        quotes = _quotes(line, quotes)
    yield "\n".join(lines)
