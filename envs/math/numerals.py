"""Numerals read exactly: integers, decimals, fractions, mixed numbers, powers of ten; numbers in a base; times of day."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 40  # of one number

PLAIN_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])|[0-9]++)(?:\.[0-9]++)?|\.[0-9]++"
DECIMAL = re.compile(rf"([+-]?) ?({PLAIN_NUMBER}|[0-9]++\.)(?:[eE]([+-]?[0-9]{{1,3}}))?")
DIGITS = r"[0-9]++(?:\.[0-9]*+)?"
SIGNED = rf" ?([+-]?) ?({DIGITS}) ?"
FRACTION = re.compile(
    rf"([+-]?) ?(?:([0-9]+)(?: ?\\text\{{ ?and\}} ?| ?))?\\frac ?\{{{SIGNED}\}} ?\{{{SIGNED}\}}"
    rf"|([+-]?) ?(?:([0-9]+)(?: ?\\text\{{and\}} ?| and | ))?()({DIGITS}) ?/ ?([+-]?)({DIGITS})"
)
REPEATING = re.compile(r"([+-]?) ?([0-9]*)\.([0-9]*)(?:\\overline ?\{([0-9]+)\}|\(([0-9]+)\))")
POWER_OF_TEN = re.compile(r" ?(?:\\times|\\cdot|\*|x) ?10 ?\^ ?(?:\{ ?([+-]?[0-9]{1,3}) ?\}|([0-9])(?![0-9]))")
IN_BASE = re.compile(r"\(?([0-9A-Z]+)\)?_(?:\{([0-9]{1,2})\}|([0-9]))")
CLOCK = re.compile(r"([0-9]{1,2})(?::([0-5][0-9]))?(?::([0-5][0-9]))?([ap]m|noon|midnight)?")
CLOSING = {"{": "}", "(": ")"}


def number(answer: str) -> Fraction | None:
    r"""The exact value of a normalised numeral, or None.

    Integers, decimals (repeating ones with `\overline`), fractions and mixed numbers (`10\frac{1}{12}` is 121/12), with
    thousands separators, a power of ten or an exponent (`3e8`); never a sum, product, root or other power: those are
    unfinished work. ASCII digits only, at most 40 of them.
    """
    if not answer or answer[0] not in "+-.0123456789\\({":
        return None
    if answer.isdigit():
        return Fraction(int(answer)) if len(answer) <= MAX_DIGITS else None
    if "/" in answer and "(" in answer:
        answer = re.sub(r"\((-?[0-9]+)\)", r"\1", answer)
    sign = 1
    if "(" in answer or answer[0] == "{":
        sign, answer = _without_parentheses(answer)
    for read in (_fraction, _repeating, _decimal):
        if result := read(answer):
            value, end = result
            return (value if sign == 1 else -value) if end == len(answer) else None
    return None


def _without_parentheses(answer: str) -> tuple[int, str]:
    """A numeral out of the parentheses or braces around it, and the sign before those."""
    sign = 1
    while True:
        inner = answer.removeprefix("-").lstrip()
        if not inner or inner[0] not in CLOSING or not enclosed(inner) or (inner[0] == "(" and "," in inner):
            return sign, answer
        sign, answer = -sign if answer[0] == "-" else sign, inner[1:-1].strip()


def enclosed(text: str) -> bool:
    """Whether the bracket that opens a text closes at its end."""
    opening, depth = text[0], 0
    closing = CLOSING.get(opening, "]")
    for at, character in enumerate(text):
        depth += (character == opening) - (character == closing)
        if depth == 0:
            return at == len(text) - 1
    return False


def _decimal(answer: str) -> tuple[Fraction, int] | None:
    match = DECIMAL.match(answer)
    if not match or len(match.group(2)) > MAX_DIGITS:
        return None
    sign, digits, exponent = match.groups()
    whole, _, decimals = digits.replace(",", "").partition(".")
    value = Fraction(int(sign + whole + decimals), 10 ** len(decimals)) if decimals else Fraction(int(sign + whole))
    if exponent:
        return value * Fraction(10) ** int(exponent), match.end()
    if scale := POWER_OF_TEN.match(answer, match.end()):
        return value * Fraction(10) ** int(scale.group(1) or scale.group(2)), scale.end()
    return value, match.end()


def _fraction(answer: str) -> tuple[Fraction, int] | None:
    match = FRACTION.match(answer) if "/" in answer or "\\frac" in answer else None
    if not match or match.end() > 3 * MAX_DIGITS:
        return None
    sign, whole, first, above, second, below = match.groups()[:6] if match.group(6) else match.groups()[6:]
    decimal = "." in above or "." in below
    if whole and (first or second or decimal):
        return None
    numerator, denominator = (Fraction(above), Fraction(below)) if decimal else (int(above), int(below))
    if denominator == 0:
        return None
    value = int(whole or 0) + Fraction(numerator, denominator)
    return -value if (sign == "-") ^ (first == "-") ^ (second == "-") else value, match.end()


def _repeating(answer: str) -> tuple[Fraction, int] | None:
    match = REPEATING.match(answer) if "." in answer and answer[-1] in "})" else None
    if not match or match.end() > MAX_DIGITS:
        return None
    sign, whole, fixed, *periods = match.groups()
    period = periods[0] or periods[1]
    value = Fraction(int(whole + fixed + period or 0) - int(whole + fixed or 0), 10 ** len(fixed) * (10 ** len(period) - 1))
    return -value if sign == "-" else value, match.end()


def in_base(answer: str) -> tuple[str, str] | None:
    """`204_5` as (digits, base); None for anything else."""
    match = IN_BASE.fullmatch(answer.replace(" ", "")) if "_" in answer else None
    return (match.group(1), match.group(2) or match.group(3)) if match else None


def clock(answer: str) -> tuple[int, bool] | None:
    r"""A time of day (`2:30\text{ p.m.}`, `14:30`): seconds since midnight, and whether the half of the day is certain. Else None."""
    if answer[:1] not in "0123456789\\" or not (":" in answer or "m" in answer.lower() or "noon" in answer):
        return None
    plain = re.sub(r"\\text|[{} .]|o'clock", "", answer).lower()
    match = CLOCK.fullmatch(plain)
    if not match or not (match.group(2) or match.group(4)):
        return None
    hour, half = int(match.group(1)), match.group(4)
    if hour > (12 if half else 24):
        return None
    if half:
        hour = hour % 12 + (12 if half in ("pm", "noon") else 0)
    return hour * 3600 + int(match.group(2) or 0) * 60 + int(match.group(3) or 0), bool(half) or hour > 12


def same_time(gold: tuple[int, bool], answer: tuple[int, bool]) -> bool:
    """Whether two times agree. A gold that names the half of the day wants it named; one that does not takes either."""
    return gold == answer if gold[1] else gold[0] % 43200 == answer[0] % 43200
