r"""The math grader: a response and a gold answer in, a verdict out.

The common cases (numbers, words, the same formula) are decided here in microseconds; what is left and small enough is compared
by sympy in worker processes. docs/math-grading.md lists the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from ...common.errors import UserError
from . import workers
from .answers import MAX_WRITTEN, extract_answer
from .caps import admissible, variables
from .gold import Gold
from .latex import normalise, same_spelling
from .numerals import clock, in_base, number, same_time
from .shapes import read
from .units import scaled, without_bare_unit, without_named_unit
from .words import choice, same_words, words

__all__ = ["Gold", "Verdict", "extract_answer", "grade", "grade_many", "needs_algebra", "voted_answer"]


class Verdict(StrEnum):
    """What became of a response."""

    CORRECT = "correct"
    """The answer equals the gold."""
    WRONG = "wrong"
    """There is an answer, and it does not equal the gold."""
    UNPARSED = "unparsed"
    """No answer was found, or what was found cannot be read or exceeds the caps."""
    TIMEOUT = "timeout"
    """The comparison exceeded its limit of time or memory and was killed."""


def grade(response: str, gold: str | Gold) -> Verdict:
    """The verdict on one response; a gold in plain text has no tolerance and no unit. Safe from any thread and inside any process.

    Raises UserError for a gold that cannot be read: golds.py finds those when data is loaded.
    """
    answer = extract_answer(response)
    if answer is None:
        return Verdict.UNPARSED
    return _compare(gold if isinstance(gold, Gold) else Gold(gold), answer)


def voted_answer(response: str) -> str | None:
    """The answer in the form that majority votes count: `12`, `12.0` and `24/2` are one vote; None where there is no answer."""
    answer = extract_answer(response)
    if answer is None or len(answer) > MAX_WRITTEN:
        return None
    value = number(normalise(answer))
    return normalise(answer) if value is None else str(value)


def grade_many(pairs: Iterable[tuple[str, str | Gold]], threads: int | None = None) -> list[Verdict]:
    """The verdicts on (response, gold) pairs, in order, with `threads` checks at a time (default: one for each worker)."""
    with ThreadPoolExecutor(threads or workers.MAX_WORKERS) as pool:
        return list(pool.map(lambda pair: grade(*pair), pairs, chunksize=1))


def _compare(gold: Gold, answer: str) -> Verdict:
    """A choice is right by its letter or by what stands beside it; everything else is compared as a whole."""
    if gold.text == answer:
        return Verdict.CORRECT
    if len(answer) > MAX_WRITTEN:
        return Verdict.UNPARSED
    text = gold.text
    if gold.unit:
        text, answer = without_named_unit(text, gold.unit), without_named_unit(answer, gold.unit)
    wanted, given = normalise(text), normalise(answer)
    if (value := number(wanted)) is not None and (found := number(given)) is not None:
        return _verdict(_near(value, found, gold))
    ours, theirs = choice(wanted), choice(given)
    if ours and theirs and (ours.letter != theirs.letter or not (ours.text and theirs.text)):
        return _verdict(ours.letter == theirs.letter)
    verdict = _decide(gold, wanted, given)
    if verdict is not Verdict.CORRECT and ((ours and ours.text) or (theirs and theirs.text)):
        return _decide(gold, ours.text if ours and ours.text else wanted, theirs.text if theirs and theirs.text else given)
    return verdict


NAMED = re.compile(r"^[A-Za-z](?:\([A-Za-z]\))? ?= ?(?=[^=]*$)")
EQUATION = re.compile(r"(?:(?!\b(?:or|and)\b)[^,;<>!])*[^,;<>!=]=\s*([^=]+)")
SINGLE = re.compile(r"\\\{([^,{}]*(?:\{[^,{}]*\}[^,{}]*)*)\\\}")
POWER_OF_TEN = re.compile(r"(-?) ?10 ?\^ ?\{ ?(-?[0-9]{1,3}) ?\}")
RATIO = re.compile(r"([0-9]+) ?: ?([0-9]+)")
RESIDUE = re.compile(r"(?:[a-zA-Z] ?(?:=|\\equiv) ?)?([0-9]+) ?\(?\\pmod ?\{? ?([0-9]+) ?\}?\)?")


def _decide(gold: Gold, wanted: str, given: str) -> Verdict:
    """Cheap rules first; each either decides or leaves the pair to the next."""
    if (value := number(wanted)) is None:
        value = _scaled(wanted)
    if value is not None:
        return _against_number(value, given, gold)
    if same_spelling(wanted, given) or (words(given) and same_words(wanted, given)):
        return Verdict.CORRECT
    if (time := clock(wanted)) is not None and ((other := clock(given)) is not None or time[1]):
        return _verdict(other is not None and same_time(time, other))
    if words(wanted) and not words_are_reals(wanted):
        return _verdict(same_words(wanted, given))
    if (based := in_base(wanted)) is not None:
        return _verdict(based == (in_base(given) or (given, based[1])))
    if not admissible(given):
        return Verdict.UNPARSED
    if not _relation(wanted + given) and not words_are_reals(given) and not variables(given) <= variables(wanted):
        return Verdict.WRONG
    one, two = (number(NAMED.sub("", text)) for text in (wanted, given))
    if one is not None and two is not None and not ("=" in wanted and "=" in given):
        return _verdict(_near(one, two, gold))
    return _symbolic(wanted, given, gold.precision or 0.0, gold.relative or 0.0)


def words_are_reals(text: str) -> bool:
    return read(text) == ["formula", "\\mathbb{R}"] if "real" in text else False


def _against_number(value: Fraction, given: str, gold: Gold) -> Verdict:
    """A gold that is a number wants a number, or an equation that ends in one: unfinished work such as 2+3 is wrong."""
    found = number(given)
    if found is None and (equation := EQUATION.fullmatch(given := re.sub(r"_\{[^{}]*\}(?=.*=)", "", given))):
        if value == 0 and re.search(r"[0-9]", given[: equation.start(1)]) and variables(given):
            return Verdict.WRONG  # an equation with unknowns, not the value of something
        found = number(equation.group(1))
        found = number(without_bare_unit(equation.group(1))) if found is None else found
    if found is None:
        found = _dressed(given)
    if found is not None:
        return _verdict(_near(value, found, gold))
    if not admissible(given):
        return Verdict.UNPARSED
    if (gold.precision or gold.relative) and IRRATIONAL.search(given) and not _relation(given):
        return _symbolic(str(value), given, gold.precision or 0.0, gold.relative or 0.0)
    return Verdict.WRONG


RELATION = re.compile(r"[=<>]|\\(?:in|le|ge|ne|equiv)(?![a-z])")
IRRATIONAL = re.compile(r"\\(?:sqrt|pi|ln|log|sin|cos|tan|exp|arctan)(?![a-z])|(?<![A-Za-z])e ?\^")


def _scaled(text: str) -> Fraction | None:
    """`7 million` as a number."""
    parts = scaled(text)
    value = number(parts[0].strip()) if parts else None
    return value * parts[1] if parts and value is not None else None


def _dressed(given: str) -> Fraction | None:
    r"""A number in a base, alone in a set, before a unit that may be a variable, as a residue, a power of ten or a ratio; spelled twice."""
    if based := in_base(given):
        return number(based[0])
    if single := SINGLE.fullmatch(given):
        return number(single.group(1).strip())
    if (residue := RESIDUE.fullmatch(given)) and int(residue.group(1)) < int(residue.group(2)):
        return number(residue.group(1))
    if (value := _scaled(given)) is not None:
        return value
    if power := POWER_OF_TEN.fullmatch(given):
        return (-1 if power.group(1) else 1) * Fraction(10) ** int(power.group(2))
    if ratio := RATIO.fullmatch(given):
        return number(f"{ratio.group(1)}/{ratio.group(2)}")
    if "or" in given and (shape := read(given))[:2] == ["list", "or"]:  # the same number in two spellings
        values = {number(item[1]) if item[0] == "formula" else None for item in shape[2]}
        return values.pop() if len(values) == 1 else None
    return number(without_bare_unit(given))


def _near(value: Fraction, found: Fraction, gold: Gold) -> bool:
    if found == value or not (gold.precision or gold.relative):
        return found == value
    return abs(found - value) <= max(Fraction(gold.precision or 0), Fraction(gold.relative or 0) * abs(value)) * (1 + Fraction(1, 10**9))


def _verdict(correct: bool) -> Verdict:
    return Verdict.CORRECT if correct else Verdict.WRONG


def _relation(text: str) -> bool:
    return RELATION.search(text) is not None


@lru_cache(maxsize=65536)  # the samples of a group often give the same answer
def _symbolic(gold: str, answer: str, absolute: float, relative: float) -> Verdict:
    verdict = workers.check(read(gold), read(answer), absolute, relative)
    if verdict == "bad gold":
        raise UserError(f"the gold answer {gold!r} cannot be read; correct it or leave the item out")
    return Verdict(verdict)


def needs_algebra(gold: str) -> bool:
    """Whether comparing with this gold may take the workers: it is no number, no words, no number in a base, no time, no choice."""
    wanted = normalise(gold)
    if number(wanted) is not None or _scaled(wanted) is not None or words(wanted) or in_base(wanted):
        return False
    return not ((time := clock(wanted)) and time[1]) and choice(wanted) is None
