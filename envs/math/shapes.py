r"""The structure of an answer: lists, sets, tuples and intervals, unions, relations, matrices; what is left are formulas.

A shape is a nested list that goes to the worker as JSON (algebra.py compares two of them):

    ["formula", text]                       an expression without commas and relations
    ["list", joiner, shapes]                answers side by side; the joiner is ",", "or" or "and"
    ["set", shapes]                         \{1,2\}
    ["tuple", opening, closing, shapes]     (1,2): a point, a vector or an interval
    ["union" | "intersection" | "minus", shapes]
    ["relation", terms, signs]              1<x<3 has three terms and two signs; "in" is one
    ["builder", variable, shape]            \{x \mid x>2\}
    ["matrix", rows]
    ["mod", shape, shape]                   1 \pmod 6
"""

from __future__ import annotations

import re

from .numerals import enclosed
from .units import without_unit

Shape = list  # ["kind", ...]

TOKEN = re.compile(r"\\text\{[^{}]*\}|\\(?:begin|end)\{matrix\}|\\[A-Za-z]+|\\.|\s+|<=|>=|!=|[A-Za-z]+|.", re.DOTALL)
OPENING = frozenset(("(", "[", "{", "\\{", "\\begin{matrix}", "\\lfloor", "\\lceil", "\\langle"))
CLOSING = frozenset((")", "]", "}", "\\}", "\\end{matrix}", "\\rfloor", "\\rceil", "\\rangle"))
JOINERS = {
    ",": ",",
    ";": ",",
    "or": "or",
    "and": "and",
    "\\text{or}": "or",
    "\\text{and}": "and",
    "\\text{either}": "",
    "equivalently": "",
    "\\text{equivalently}": "",
    "\\text{or equivalently}": "or",
    "\\text{ or}": "or",
    "\\text{ and}": "and",
}
RELATIONS = {
    "=": "=",
    "<": "<",
    ">": ">",
    "\\le": "<=",
    "\\ge": ">=",
    "<=": "<=",
    ">=": ">=",
    "\\ne": "!=",
    "!=": "!=",
    "\\in": "in",
    "\\equiv": "=",
}
ORDERS = frozenset(("<", ">", "<=", ">="))
UNIT_BEFORE_JOINER = re.compile(r"\\text\{([^{}]*[a-z]) (and|or) ?\}")
SETS = {"\\cup": "union", "\\cap": "intersection", "\\setminus": "minus"}
BUILDER = re.compile(r"\\\{ ?([A-Za-z]) ?(?:\\in ?\\mathbb ?\{? ?R ?\}? ?)?(?:\\mid(?![a-z])|\||:|\\text\{such that\})(.+)\\\}", re.DOTALL)
MODULUS = re.compile(r"(.*?)(?:\(? ?\\pmod(?![a-z]) ?|\(? ?\\text\{ ?mod(?:ulo)? ?\} ?|\(?\bmod )\{?\(?([^{}()]+)\)?\}?\)?", re.DOTALL)
ALL_REAL = re.compile(r"(?:\\text\{)? ?all real(?: numbers| values)?(?: of [a-z])?\}?", re.IGNORECASE)


def read(text: str) -> Shape:
    """The shape of a normalised answer."""
    text = text.strip(" ,;.")
    if ALL_REAL.fullmatch(text):
        return ["formula", "\\mathbb{R}"]
    text = UNIT_BEFORE_JOINER.sub(r"\\text{\1}\\text{\2}", text.removeprefix("either "))
    tokens = TOKEN.findall(text)
    if systems := _systems(tokens):
        return ["list", "or", systems]
    pieces, joiners = _split(tokens, JOINERS)
    if joiners and (pieces := [without_unit(piece) for piece in pieces if piece]):
        words = [joiner for joiner in joiners if joiner not in ("", ",")]
        if len(pieces) == 1:
            return read(pieces[0])
        shapes = _excluded([shape for piece in pieces for shape in _spread(read(piece))])
        return ["list", "or", shapes] if "or" in words else _chained(shapes) or ["list", words[0] if words else ",", shapes]
    return _without_commas(text, tokens)


def _systems(tokens: list[str]) -> list[Shape] | None:
    """`x=1, y=2 or x=2, y=1`: solutions that are each a list of equations with names of their own. None for anything else."""
    for separators in (("or", "\\text{or}", "\\text{ or}"), (";",)):
        pieces, _ = _split(tokens, dict.fromkeys(separators, "or"))
        if len(pieces) > 1 and all(pieces):
            shapes = [read(piece) for piece in pieces]
            if all(
                shape[0] == "list" and len(shape[2]) > 1 and len({_left(item) for item in shape[2]} - {None}) == len(shape[2])
                for shape in shapes
            ):
                return shapes
    return None


def _left(shape: Shape) -> str | None:
    return str(shape[1][0]) if shape[0] == "relation" and shape[2] == ["="] else None


def _chained(shapes: list[Shape]) -> Shape | None:
    """`a<b, b<c` as the chain `a<b<c`. None for anything else."""
    if any(shape[0] != "relation" or not set(shape[2]) <= ORDERS for shape in shapes):
        return None
    terms, signs = list(shapes[0][1]), list(shapes[0][2])
    for _, more, also in shapes[1:]:
        if more[0] != terms[-1]:
            return None
        terms, signs = terms + more[1:], signs + also
    return ["relation", terms, signs]


def _spread(shape: Shape) -> list[Shape]:
    return shape[2] if shape[0] == "list" else [shape]


def _excluded(shapes: list[Shape]) -> list[Shape]:
    r"""`x\ne 1, 2` excludes both."""
    first = shapes[0]
    if first[0] != "relation" or first[2] != ["!="]:
        return shapes
    return [["relation", [first[1][0], shape], ["!="]] if shape[0] == "formula" else shape for shape in shapes]


def _without_commas(text: str, tokens: list[str]) -> Shape:
    if "mod" in text and (modular := MODULUS.fullmatch(text)):
        return ["mod", read(modular.group(1)), read(modular.group(2))]
    terms, signs = _split(tokens, RELATIONS)
    if signs and all(terms):
        return _relation([_sets(term) for term in terms], signs)
    return _sets(text)


def _relation(terms: list[Shape], signs: list[str]) -> Shape:
    r"""A chain, or a list of them where a term is itself one: `x=\pm 2`, `(x,y)=...`."""
    if terms[-1][0] == "list" and signs in (["="], ["!="]):
        return ["list", "or" if signs == ["="] else "and", [["relation", [terms[0], value], signs] for value in terms[-1][2]]]
    return ["relation", terms, signs]


def _sets(text: str) -> Shape:
    parts, operations = _split(TOKEN.findall(text), SETS)
    if operations and all(parts):
        return [operations[0], [_atom(part) for part in parts]] if len(set(operations)) == 1 else ["formula", text.strip()]
    return _atom(text)


def _atom(text: str) -> Shape:
    text = text.strip()
    while text[:1] == "{" and enclosed(text):
        text = text[1:-1].strip()
    if builder := BUILDER.fullmatch(text):
        return ["builder", builder.group(1), read(builder.group(2))]
    if text.startswith("\\{") and text.endswith("\\}") and "\\}" not in text[2:-2]:
        inner = text[2:-2].strip()
        return ["set", _spread(read(inner))] if inner else ["formula", "\\emptyset"]
    if re.match(r"[A-Z] ?\([^()]*,[^()]*\)$", text):  # a point with its name
        text = text[1:].strip()
    if text[:1] in ("(", "[") and "\\pm" in text and "," in text:
        return ["list", "or", [read(variant) for variant in _signs(text)]]
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _one_group(text):
        inner = read(text[1:-1])
        if inner[0] == "list" and inner[1] == ",":
            return ["tuple", text[0], text[-1], inner[2]]
        if text[0] == "(" and text[-1] == ")":
            return inner
    if text.startswith("\\langle") and text.endswith("\\rangle") and text.count("\\langle") == 1:
        return ["tuple", "(", ")", _spread(read(text[7:-7]))]
    if rows := _rows(text):
        column = [row[0] for row in rows if len(row) == 1]
        if len(column) == len(rows) and all(cell[0] == "relation" for cell in column):  # a system of equations
            return ["list", ",", column]
        return ["matrix", rows]
    ratio, colons = _split(TOKEN.findall(text), {":": ":", "\\text{to}": ":", "\\text{ to}": ":", "to": ":"})
    if colons and all(ratio):
        return (
            ["formula", f"\\frac{{{ratio[0]}}}{{{ratio[1]}}}"] if len(ratio) == 2 else ["tuple", ":", ":", [read(part) for part in ratio]]
        )
    if "\\pm" in text or "\\mp" in text:
        return ["list", "or", [["formula", variant] for variant in _signs(text)]]
    return ["formula", text]


def _split(tokens: list[str], separators: dict[str, str]) -> tuple[list[str], list[str]]:
    """The parts between separators that stand outside of all brackets, and what the separators mean."""
    parts, found, depth, start = [], [], 0, 0
    for at, token in enumerate(tokens):
        if token in OPENING:
            depth += 1
        elif token in CLOSING:
            depth -= 1
        elif depth == 0 and (meaning := separators.get(token)) is not None:
            parts.append("".join(tokens[start:at]).strip())
            found.append(meaning)
            start = at + 1
    return [*parts, "".join(tokens[start:]).strip()], found


def _one_group(text: str) -> bool:
    """Whether the bracket that opens a text closes at its end; half-open intervals close either way."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "([") - (character in ")]")
        if depth == 0:
            return at == len(text) - 1
    return False


def _rows(text: str) -> list[list[Shape]] | None:
    r"""The rows of a matrix in any brackets; a column of relations is read as a list elsewhere."""
    match = re.fullmatch(r"(?:[(\[|]|\\\{)? ?\\begin\{matrix\}(.*)\\end\{matrix\} ?(?:[)\]|]|\\\})?", text, re.DOTALL)
    if match is None or "\\begin" in match.group(1):
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match.group(1)) if row.strip()]
    return [[read(cell) for cell in row.split("&")] for row in rows]


def _signs(text: str) -> list[str]:
    r"""Both readings of `\pm`; all of them together where `\mp` says so, else each by itself, up to three."""
    if "\\mp" in text or text.count("\\pm") > 3:
        return [text.replace("\\pm", "+").replace("\\mp", "-"), text.replace("\\pm", "-").replace("\\mp", "+")]
    variants = [text]
    while "\\pm" in variants[0]:
        variants = [variant.replace("\\pm", sign, 1) for variant in variants for sign in "+-"]
    return variants
