r"""Answers in words (`\text{yes}`, `June 20`) and choices in any dress (`B`, `(B)`, `\textbf{(B)}\ 25`, `B: 25`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from .numerals import number

TEXT = re.compile(r"\\text\{([^{}]*)\}")
WORDS = re.compile(r"(?:[^\W\d_]|[\s,.'()-])+")
LABEL = re.compile(
    r"(?:(?:the\s+)?(?:option|choice|answer)\s+(?:is\s+)?)?"
    r"(?:\(([A-Ja-j])\)|([A-J])\s*[.):](?![0-9]*:)|(?:(?<=option )|(?<=choice ))([A-J])\b|([A-J])\s*(?=$|\s[0-9]))\s*(.*)",
    re.DOTALL | re.IGNORECASE,
)
NO_CHOICE = re.compile(r"(?:or|and)\b|[,;/+=*^&<>]|\\(?:cdot|times|cup|cap|text\{ ?(?:or|and))|.*(?:\([A-J]\)|\b[A-J]\))", re.DOTALL)


def words(answer: str) -> bool:
    r"""Whether a normalised answer is in words: all of it in `\text{}`, or letters with at least one run of four."""
    if match := TEXT.fullmatch(answer):
        return number(match.group(1).strip()) is None
    plain = TEXT.sub(r"\1", answer)
    return WORDS.fullmatch(plain) is not None and (plain != answer or re.search(r"[^\W\d_]{4}", plain) is not None)


def same_words(first: str, second: str) -> bool:
    r"""Whether two answers in words agree, whatever their case, white space and `\text{}`."""
    return _folded(first) == _folded(second)


def _folded(text: str) -> str:
    return "".join(TEXT.sub(r"\1", text).casefold().split()).strip(".,")


class Choice(NamedTuple):
    """A choice: its letter, and what stands beside it."""

    letter: str
    text: str


def choice(answer: str) -> Choice | None:
    r"""A normalised answer as a choice: `(B) 25` and `B: 25` are (B, 25), `B`, `(b)` and `\text{B.}` are (B, ""). Else None."""
    if not answer or answer[0] not in "(\\ABCDEFGHIJaco":
        return None
    plain = TEXT.sub(r"\1", answer).strip()
    match = LABEL.fullmatch(plain)
    if match is None or NO_CHOICE.match(match.group(5)):
        return None
    letter = match.group(1) or match.group(2) or match.group(3) or match.group(4)
    if letter.islower() and not match.group(1):
        return None
    return Choice(letter.upper(), match.group(5).strip())
