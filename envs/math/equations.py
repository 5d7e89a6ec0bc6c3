r"""Equations among shapes (shapes.py): what they say of which name."""

from __future__ import annotations

import re

from .shapes import Shape

FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
NAME = re.compile(
    r"\\frac\{d[a-z]\}\{d[a-z]\}|(?:\\(?:sin|cos|tan|cot)(?![a-z]))?(?:m(?=\\angle))?(?:\\(?:angle|triangle|max|min|overline|vec|hat|tilde|d?dot|measuredangle)(?![a-z]))?"
    r"(?:\{?(?:[A-Za-z]|[A-Z]{2,}|\\text\{[^{}]*\}|\\(?:max|min|[aA]lpha|beta|[gG]amma|[dD]elta|epsilon|[tT]heta|[lL]ambda|mu|rho|[sS]igma|tau|[pP]hi|[pP]si|[oO]mega|ell))\}?)"
    r"'*(?:\([A-Za-z0-9,\\]*\))?|\|[A-Z]{2}\|"
)
SUBSCRIPT = re.compile(r"_(?:\{[^{}]*(?:\{[^{}]*\})?\}|\\?[A-Za-z]+|[0-9])")


def normal_form(shape: Shape) -> Shape:
    r"""A list of one is its item; `(x,y)=(1,2)` is a list of two equations; `x \in \{1,2\}` is the set."""
    if shape[0] == "list" and len(shape[2]) == 1:
        return normal_form(shape[2][0])
    if shape[0] == "relation" and shape[2] == ["="]:
        left, right = shape[1]
        if (
            left[0] == right[0] == "tuple"
            and len(left[3]) == len(right[3])
            and all(item[0] == "formula" and name_of(item[1]) for item in left[3])
        ):
            return ["list", ",", [["relation", [name, item], ["="]] for name, item in zip(left[3], right[3], strict=True)]]
    if shape[0] == "relation" and shape[2] == ["in"] and (shape[1][1][0] == "set" or shape[1][0][0] == "tuple"):
        return shape[1][1]
    return shape


def name_of(text: str) -> str | None:
    """A term as a name, if it is one: a letter, a function, a side, with subscripts."""
    flat = text.replace(" ", "")
    return flat.replace("{", "").replace("}", "") if NAME.fullmatch(SUBSCRIPT.sub("", flat)) else None


def named(relation: Shape) -> tuple[Shape, str | None]:
    """What an equation says of the name on one of its sides, and the name."""
    _, terms, signs = relation
    if set(signs) == {"="}:
        for named, said in ((terms[0], terms[-1]), (terms[-1], terms[0])):
            if named[0] == "formula" and (name := name_of(named[1])) is not None and name not in ("e", "i"):
                return said, name
    return relation, None


def ascending(relation: Shape) -> Shape:
    """The same chain with its terms from small to large, where it has such an order."""
    _, terms, signs = relation
    if all(sign in (">", ">=") for sign in signs):
        return ["relation", terms[::-1], [FLIPPED[sign] for sign in signs[::-1]]]
    return relation
