"""Which part of a reply is its code. Rules on lines alone, in linear time: no parser of ours ever reads what a model wrote.

docs/code-grading.md lists the rules and why they are so.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from .blocks import CODE, fenced, statements
from .helpers import with_helpers, without_examples

MAX_REPLY = 200_000  # characters; what is longer is no answer
THOUGHT = r"(?:think|thinking|thought|reasoning)>"
TAGS = re.compile(r"</?(?:answer|final_answer|solution|code|python)>")
READS_INPUT = re.compile(r"\binput[ ]*\(|\bstdin\b|\bopen\([ ]*0|\bfileinput\b")


def extract_code(
    reply: str, entry_point: str = "", header: str = "", preamble: str = "", container: str = "", wanted: Iterable[str] = ()
) -> str | None:
    """The program that a reply gives, or None where it gives none.

    entry_point: the function that is wanted; empty for a whole program. header: code that the reply may continue with a function's body
    alone. preamble: goes before a reply that defines the function itself (imports, helpers), unless it has `from __future__` imports.
    container: a class that may hold the function as a method. wanted: what else must be defined, in whichever block.
    """
    if len(reply) > MAX_REPLY:
        return None
    text = reply.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    text = re.split(f"<{THOUGHT}", re.split(f"</{THOUGHT}", text)[-1])[0]
    blocks, prose = fenced(text)
    python = [block.code for block in blocks if block.python]
    plain = [block.code for block in blocks if block.unlabelled]
    if not entry_point:
        program = _program(python or list(filter(_looks_like_python, plain)), prose)
        return program and _after(preamble, program)
    if (whole := _function(definition(entry_point, container), python, plain, prose, wanted)) is not None:
        return _after(preamble, whole)
    body = (python or plain or [text])[-1]
    if header and (continued := _body(body)):
        return header + continued
    others = python or list(filter(_looks_like_python, plain))
    return preamble + others[-1] if others else None


def definition(*names: str) -> re.Pattern[str]:
    """Finds where a program binds one of the names in the first column."""
    name = "|".join(re.escape(name) for name in names if name)
    return re.compile(rf"^(?:(?:async[ ]+)?def[ ]+(?:{name})\b|class[ ]+(?:{name})\b|(?:{name})[ ]*=[^=]|from[ ].*\b(?:{name})\b)", re.M)


def _function(defines: re.Pattern[str], python: list[str], plain: list[str], prose: str, wanted: Iterable[str]) -> str | None:
    """The last Python block that defines the function, with the helpers of the others; else the last unlabelled one; else bare code."""
    for blocks in (python, plain):
        for at in reversed(range(len(blocks))):
            for code in (blocks[at], textwrap.dedent(blocks[at])):
                if defines.search(code):
                    return with_helpers(without_examples(code), blocks[:at] + blocks[at + 1 :], wanted)
    for text in (prose, textwrap.dedent(_indented(prose))):
        if defines.search(code := _code_lines(text)):
            return without_examples(code)
    return None


def _program(blocks: list[str], prose: str) -> str | None:
    """The last block that reads input, itself or through helpers in other blocks; else the last one; else bare code."""
    blocks = [textwrap.dedent(block) for block in blocks]
    programs = [with_helpers(block, blocks[:at]) for at, block in enumerate(blocks)]
    if programs:
        return next(filter(READS_INPUT.search, reversed(programs)), programs[-1])
    code = _code_lines(prose)
    return code if code.strip() else None


def _after(preamble: str, program: str) -> str:
    return program if "from __future__" in program else preamble + program


def _looks_like_python(code: str) -> bool:
    """Whether most lines in the first column are Python: an unlabelled block may also be a sample of input or output."""
    lines = [line for line in textwrap.dedent(code).split("\n") if line[:1].strip()]
    return 2 * sum(CODE.match(line[:500]) is not None for line in lines) > len(lines)


def _code_lines(text: str) -> str:
    """Text without its prose: the statements that begin like Python in the first column."""
    text = TAGS.sub("\n", text)
    return "\n".join([*(statement for statement in statements(text) if CODE.match(statement[:500])), ""])


def _indented(text: str) -> str:
    """The lines that begin with white space, and the empty ones: a code block in Markdown's indented form."""
    return "\n".join(line for line in text.split("\n") if not line.strip() or line[0].isspace())


def _body(text: str) -> str | None:
    """The beginning of a text that continues a function: up to the first line that is back in the first column."""
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if not first[:1].isspace():
        return None
    end = next((at for at, line in enumerate(lines) if line.strip() and not line[0].isspace()), len(lines))
    return "\n".join([*lines[:end], ""])
