"""Which part of a reply is its code. Rules on lines alone, in linear time: no parser of ours ever reads what a model wrote.

docs/code-grading.md lists the rules and why they are so.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from .blocks import CODE, fenced, statements
from .helpers import DEFINED, NAME, with_helpers, without_examples

MAX_REPLY = 200_000  # characters; what is longer is no answer
THOUGHT = r"(?:think|thinking|thought|reasoning)>"
TAGS = re.compile(r"</?(?:answer|final_answer|solution|pre|code|python)>")
QUOTED_FENCE = re.compile(r"^>[ ]?(?:```|~~~)", re.MULTILINE)
QUOTE = re.compile(r"^>(?!>>)[ ]?", re.MULTILINE)
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
    if QUOTED_FENCE.search(text):
        text = QUOTE.sub("", text)
    blocks, prose = fenced(text)
    python = [block.code for block in blocks if block.python]
    plain = [block.code for block in blocks if block.unlabelled]
    if not entry_point:
        program = _program(python or list(filter(_looks_like_python, plain)), prose)
        return program and _after(preamble, program)
    for imported in (False, True):
        defines = definition(entry_point, container, imported=imported)
        if (whole := _function(defines, python, plain, prose, wanted)) is not None:
            return _after(preamble, whole)
    body = (python or plain or [text])[-1]
    if header and (continued := _body(body)):
        return header + continued
    others = python or list(filter(_looks_like_python, plain))
    return preamble + others[-1] if others else None


def definition(*names: str, imported: bool = True) -> re.Pattern[str]:
    """Finds where a program binds one of the names in the first column. imported: by an import too, which an example may be as well."""
    name = f"(?:{'|'.join(re.escape(name) for name in names if name)})"
    ways = [rf"(?:async[ ]+)?def[ ]+{name}\b", rf"class[ ]+{name}\b", rf"{name}[ ]*=[^=]", *([rf"from[ ].*\b{name}\b"] if imported else [])]
    return re.compile(f"^(?:{'|'.join(ways)})", re.MULTILINE)


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
    """The last block that reads input, itself or through functions of others; else the last one; else bare code."""
    blocks = [textwrap.dedent(block) for block in blocks]
    if blocks:
        readers = _readers(blocks)
        reading = (at for at in reversed(range(len(blocks))) if _reads(blocks[at], readers))
        at = next(reading, len(blocks) - 1)
        return with_helpers(blocks[at], blocks[:at])
    code = _code_lines(prose)
    return code if code.strip() else None


def _readers(blocks: list[str]) -> set[str]:
    """The functions that read input, themselves or through others (up to a depth that programs have)."""
    functions = [(found[1], statement) for block in blocks for statement in statements(block) if (found := DEFINED.match(statement))]
    readers: set[str] = set()
    for _ in range(4):
        readers |= {name for name, statement in functions if _reads(statement, readers)}
    return readers


def _reads(code: str, readers: set[str]) -> bool:
    return READS_INPUT.search(code) is not None or not readers.isdisjoint(NAME.findall(code))


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
