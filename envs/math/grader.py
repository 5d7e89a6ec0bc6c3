r"""The math grader: a response and a gold answer in, a verdict out.

The common cases (numbers, words, the same formula) are decided here in microseconds; what is left and small enough goes to
math-verify in worker processes. docs/math-grading.md lists the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache

from ..errors import UserError
from . import workers
from .answers import MAX_WRITTEN, admissible, extract_answer, in_base, normalise, number, same_spelling, same_words, variables, words
from .golds import Gold

__all__ = ["Gold", "Verdict", "extract_answer", "grade", "grade_many", "needs_algebra", "voted_answer"]


class Verdict(StrEnum):
    """What became of a response."""

    CORRECT = "correct"
    """The answer equals the gold."""
    WRONG = "wrong"
    """There is an answer, and it does not equal the gold."""
    UNPARSED = "unparsed"
    """No answer was found, or what was found can not be read or exceeds the caps."""
    TIMEOUT = "timeout"
    """The comparison exceeded its limit of time or memory and was killed."""


def grade(response: str, gold: str | Gold) -> Verdict:
    """The verdict on one response; a gold in plain text has no tolerance and no unit. Safe from any thread and inside any process.

    Raises UserError for a gold that can not be read: golds.py finds those when data is loaded.
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
    """Cheap rules first; each either decides or leaves the pair to the next."""
    if gold.text == answer:
        return Verdict.CORRECT
    if len(answer) > MAX_WRITTEN:
        return Verdict.UNPARSED
    if gold.unit:
        answer = answer.removesuffix(gold.unit)
    wanted, given = normalise(gold.text), normalise(answer)
    if (value := number(wanted)) is not None:
        return _against_number(value, given, max(gold.precision or 0.0, (gold.relative or 0.0) * abs(float(value))))
    if same_spelling(wanted, given) or (words(given) and same_words(wanted, given)):
        return Verdict.CORRECT
    if words(wanted):
        return _verdict(same_words(wanted, given))
    if (based := in_base(wanted)) is not None:
        other = in_base(given) or (given, based[1])
        return _verdict(based == other)
    if not admissible(given):
        return Verdict.UNPARSED
    if "=" not in given:
        wanted = NAMED.sub("", wanted)
    elif "=" not in wanted:
        given = NAMED.sub("", given)
    if _brackets(wanted) | _brackets(given) == {"{", "("} or (not _relation(wanted + given) and not variables(given) <= variables(wanted)):
        return Verdict.WRONG
    return _symbolic(wanted, given)


NAMED = re.compile(r"^[A-Za-z](?:\([A-Za-z]\))? ?= ?(?=[^=]*$)")
EQUATION = re.compile(r"(?:(?!\b(?:or|and)\b)[^,;<>!])*[^,;<>!=]=\s*([^=]+)")


def _against_number(value: Fraction, given: str, tolerance: float) -> Verdict:
    """A gold that is a number wants a number, or an equation that ends in one: unfinished work such as 2+3 is wrong."""
    found = number(given)
    if found is None and (equation := EQUATION.fullmatch(given)):
        found = number(equation.group(1))
    if found is None and (based := in_base(given)):
        found = number(based[0])
    if found is None and not admissible(given):
        return Verdict.UNPARSED
    if tolerance and found is not None:
        return _verdict(abs(found - value) <= tolerance)
    return _verdict(found == value)


def _verdict(correct: bool) -> Verdict:
    return Verdict.CORRECT if correct else Verdict.WRONG


def _brackets(text: str) -> set[str]:
    """How the whole expression is enclosed: as a set, as a tuple or interval, or not at all."""
    if text.startswith("\\{") and text.endswith("\\}"):
        return {"{"}
    return {"("} if text.startswith(("(", "[")) and text.endswith((")", "]")) else set()


def _relation(text: str) -> bool:
    return any(sign in text for sign in ("=", "<", ">", "\\in", "\\le", "\\ge", "\\lt", "\\gt", "\\ne"))


@lru_cache(maxsize=65536)  # the samples of a group often give the same answer
def _symbolic(gold: str, answer: str) -> Verdict:
    verdict = workers.check(gold, answer)
    if verdict == "bad gold":
        raise UserError(f"the gold answer {gold!r} can not be read; correct it or leave the item out")
    return Verdict(verdict)


def needs_algebra(gold: str) -> bool:
    """Whether comparing with this gold may take math-verify: it is no number, no words, no number in a base."""
    wanted = normalise(gold)
    return not (number(wanted) is not None or words(wanted) or in_base(wanted))
