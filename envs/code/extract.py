"""Which part of a reply is its code. Rules on lines alone, in linear time: no parser of ours ever reads what a model wrote.

docs/code-grading.md lists the rules and why they are so.
"""

from __future__ import annotations

import re

MAX_REPLY = 200_000  # characters; what is longer is no answer
FENCE = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([^`\s]*)[^`]*$")
ONE_LINE = re.compile(r"^[ \t]*```(?:python3?|py)?[ \t]+([^`]+?)[ \t]*```[ \t]*$")
# A line that starts in the first column and is Python rather than prose.
CODE = re.compile(
    r"""(?x)
    (?:async[ ]+)?def[ ]+\w+[ ]*[(\[] | class[ ]+\w+[ ]*[(:\[] | @\w | \#
    | import[ ]+[\w.]+(?:[ ]+as[ ]+\w+)?(?:[ ]*,.*)?[ ]*(?:\#.*)?$ | from[ ]+[\w.]+[ ]+import\b
    | (?:if|elif|for|while|with|except|match)\b.*: | (?:else|try|finally)[ ]*: | assert[ ]
    | [)\]}'"] | [A-Za-z_][\w.]*\(.*\)[ ]*(?:\#.*)?$
    | [A-Za-z_][\w.]*(?:\[[^\]]*\])?(?:[ ]*,[ ]*[A-Za-z_]\w*)*[ ]*(?:[-+*/%&|^@]|//|\*\*|<<|>>)?=[^=]
    | [A-Za-z_]\w*[ ]*:[ ]*\w[^=]*=[^=]
    """
)
TRIPLE = re.compile(r"'''|\"\"\"")


def extract_code(reply: str, entry_point: str = "", header: str = "", preamble: str = "") -> str | None:
    """The program that a reply gives, or None where it gives none.

    entry_point: the function that is wanted; empty for a whole program. header: code that the reply may continue with a function's body
    alone. preamble: goes before a reply that defines the function itself (imports, helpers), unless it has `from __future__` imports.
    """
    if len(reply) > MAX_REPLY:
        return None
    text = reply.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    text = text.rpartition("</think>")[2].partition("<think>")[0]
    defines = definition(entry_point)
    blocks = fenced(text)
    whole = next((block for block in reversed(blocks) if defines.search(block)), None)
    if whole is None and not blocks and defines.search(code := _code_lines(text)):
        whole = code
    if whole is not None:
        return whole if "from __future__" in whole else preamble + whole
    body = blocks[-1] if blocks else text
    if header and (continued := _body(body)):
        return header + continued
    return preamble + blocks[-1] if blocks else None


def definition(name: str) -> re.Pattern[str]:
    """Finds where a program binds `name` in the first column; without a name, any line that is not blank."""
    if not name:
        return re.compile(r"^[ \t]*\S", re.MULTILINE)
    name = re.escape(name)
    return re.compile(rf"^(?:(?:async[ ]+)?def[ ]+{name}\b|class[ ]+{name}\b|{name}[ ]*=[^=]|from[ ].*\b{name}\b)", re.MULTILINE)


def fenced(text: str) -> list[str]:
    """The contents of the fenced blocks, each without its fence's own indentation. The last one may lack its closing fence."""
    blocks: list[str] = []
    lines: list[str] | None = None  # of the open block
    indent = mark = ""
    for line in text.split("\n"):
        if lines is None:
            if opening := FENCE.match(line):
                indent, mark, lines = opening[1], opening[2], []
            elif single := ONE_LINE.match(line[:5000]):
                blocks.append(single[1] + "\n")
        elif line.rstrip().endswith(mark) and not line.rstrip().rstrip(mark[0]).strip():
            blocks.append("\n".join([*lines, ""]))
            lines = None
        elif line.rstrip().endswith(mark):  # code and closing fence on one line
            blocks.append("\n".join([*lines, line.rstrip().rstrip(mark[0]), ""]))
            lines = None
        else:
            lines.append(line.removeprefix(indent))
    if lines:
        blocks.append("\n".join([*lines, ""]))
    return [block for block in blocks if block.strip()]


def _code_lines(text: str) -> str:
    """Text without its prose: lines in the first column that look like Python, and what is indented below them."""
    kept: list[str] = []
    inside, quotes = False, 0
    for line in text.split("\n"):
        if quotes % 2 == 0 and line.strip() and not line[0].isspace():
            inside = CODE.match(line[:500]) is not None
        if inside:
            kept.append(line)
            quotes += len(TRIPLE.findall(line))
    return "\n".join([*kept, ""])


def _body(text: str) -> str | None:
    """The beginning of a text that continues a function: up to the first line that is back in the first column."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if not first[:1].isspace():
        return None
    end = next((at for at, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return "\n".join([*lines[:end], ""])
