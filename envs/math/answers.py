r"""Which part of a response is its answer.

Plain text processing in time linear in the input: nothing that a hostile response can make expensive. docs/math-grading.md
lists the rules for readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .latex import normalise
from .numerals import PLAIN_NUMBER, number

WINDOW = 100_000  # characters from the end of a response in which a box or #### is looked for
STATED = 4_000  # the same for "the answer is" and plain numbers
MAX_WRITTEN = 1024  # characters of an answer as it is written
MAX_LISTED = 256  # characters of the boxes that are listed together

THOUGHT = re.compile(r"<(?:(/)?(?:think(?:ing)?|thoughts?|reasoning)\s?|\|(?:begin|(end))_of_thought\|)>", re.IGNORECASE)
BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*(?:(\{)|(-?[0-9][0-9.,/]*+|[A-Za-z](?![A-Za-z]))(?!\s*\}))?")  # \boxed 5 has no braces
PLACEHOLDER = re.compile(r"(?:\\text\{)?(?:(?:your|the)?\s*(?:final)?\s*answer(?:\s+here)?|\.\.\.|\?|\\[lc]?dots)?\}?", re.IGNORECASE)
JOINED_BOXES = re.compile(
    r"(?=.*(?:\b(?:or|and)\b|,))(?:[\s,;$*()]|\\[\[\]()]|\\text\{|\}|\b(?:or|and|either)\b)*", re.IGNORECASE | re.DOTALL
)
ANSWER_IS = re.compile(
    r"answers?\s+(?:(?:to|for)\s[^.:$\n]{1,40}\s)?(?:is|are)\b(?:\s+(?:therefore|thus|then|simply|just|hence)\b)*\s*:?"
    r"|answer[\s*_]*[:=]|<answer>|correct\s+(?:option|choice)\s+is\b\s*:?"
    r"|answer\s+(?:(?:should|must|would|will|can)\s+be|equals)\b(?=[\s:*_]*[$\\(0-9-])"
    r"|^[#*_ \t]*(?:the\s+)?(?:final\s+)?answer[*_ \t]*\n(?=[\s*_]*[$\\(])",  # a heading above a formula
    re.IGNORECASE | re.ASCII | re.MULTILINE,
)
LAST_NUMBER = re.compile(rf"(?<![\w.])-?\$?(?:{PLAIN_NUMBER})(?:/[0-9]++)?(?!\d)|-?\\[dt]?frac\{{-?[0-9]++\}}\{{[0-9]++\}}")
MATH = {"$$": "$$", "\\[": "\\]", "$": "$", "\\(": "\\)"}  # how a formula in text begins and ends
DISPLAY = re.compile(r"\\begin\{((?:equation|displaymath|math|align|gather|multline)\*?)\}(.*?)\\end\{\1\}", re.DOTALL)
DELIMITERS = re.compile(r"(?<!\\)\$+|\\[\[\]()]")
SENTENCE_END = re.compile(r"\.(?:\s|$)|</answer>|\n")
EXPLANATION = re.compile(
    r"(?<![\s,;(:])[\s,;(:]+(?:because|since|as|so|which|where|using|after|thus|hence|and\s+(?:we|this|that|so|thus|hence))\b.*",
    re.IGNORECASE | re.DOTALL,
)
CONTINUED = re.compile(r"\s*[,;]?\s*(?:[$0-9\\/+*=<>^{:-]|\(?(?:or|and|to)\b)", re.IGNORECASE)  # the formula goes on after its end
ALTERNATIVE = re.compile(
    r"\b(?:or|and|maybe|perhaps|possibly|alternatively|(?:could|might|may)(?:\s+also)?(?:\s+be)?)\b\W*[$0-9\\]", re.IGNORECASE
)
UNIT_WORDS = re.compile(r"(?:\s+(?!(?:of|in|from|at|on|with|when|if|for|is|was|are|by)\b)[A-Za-z/.%^0-9-]+)*", re.IGNORECASE)


def extract_answer(response: str) -> str | None:
    r"""The answer that a response commits to, as written, or None.

    Thoughts (`<think>...</think>`) are left out. Tried in this order, the last occurrence of each: `\boxed{...}`, GSM8K's
    `####`, "the answer is" or "Answer:", a plain number. The first kind that occurs decides: where a box is written only the
    box counts, even an empty or unclosed one (None). Several different boxes on one line, or with nothing but "or", "and" and
    punctuation between them, are a list, so `\boxed{1} or \boxed{2}` answers "1, 2".
    """
    text = (_without_thoughts(response) if "<" in response else response)[-WINDOW:]
    if (last := max(text.rfind("\\boxed"), text.rfind("\\fbox"))) >= 0:
        return _boxed(text, _first_of_the_last_boxes(text, last))
    if "####" in text:
        return _line(text.rpartition("####")[2]) or None
    text = text[-STATED:]
    if stated := list(ANSWER_IS.finditer(text)):
        return _stated(text[stated[-1].end() :])
    numbers = LAST_NUMBER.findall(text)
    return numbers[-1] if numbers else None


def _without_thoughts(text: str) -> str:
    """What stands outside of thoughts. An unclosed one reaches to the end; one that was opened in the prompt begins before the text."""
    kept, start, open_ = [], 0, False
    for tag in THOUGHT.finditer(text):
        if tag.group(1) or tag.group(2):
            if not open_:
                kept.clear()
            start, open_ = tag.end(), False
        elif not open_:
            kept.append(text[start : tag.start()])
            open_ = True
    return "".join(kept) + ("" if open_ else text[start:])


def _first_of_the_last_boxes(text: str, last: int) -> int:
    """Where the list of boxes begins that ends at `last`: those of its line, and those before that "or" and the like join to it."""
    start = at = text.rfind("\n", 0, last) + 1
    for _ in range(16):
        at = max(text.rfind("\\boxed", 0, at), text.rfind("\\fbox", 0, at))
        box = BOX.match(text, at) if at >= 0 else None
        end = _closing_brace(text, box.end()) if box and box.group(1) else None
        following = BOX.search(text, start)
        if end is None or following is None or not JOINED_BOXES.fullmatch(text, end + 1, following.start()):
            break
        start = at
    return start


def _boxed(text: str, start: int) -> str | None:
    """The contents of the boxes from `start` on: one answer, or a list where they differ."""
    found: list[str] = []
    placeholder = False  # whether the last box only shows where the answer goes, as in an instruction that is quoted
    while box := BOX.search(text, start):
        end = _closing_brace(text, box.end()) if box.group(1) else box.end()
        if end is None:
            return None
        inner = text[box.end() : end].strip() if box.group(1) else (box.group(2) or "").rstrip(".,")
        while (nested := BOX.match(inner)) and inner.endswith("}"):
            inner = inner[nested.end() : -1].strip()
        start = end
        if placeholder := PLACEHOLDER.fullmatch(inner) is not None:
            continue
        if inner not in found:
            found.append(inner)
        if sum(map(len, found)) > MAX_LISTED:  # no answer any more, however it goes on
            break
    if placeholder or not found:
        return None
    return found[0] if len(found) == 1 else ", ".join(distinct(found))


def distinct(answers: Iterable[str]) -> list[str]:
    r"""Answers of different values, so that `15\frac{39}{40}` or `\frac{639}{40}` is one."""
    values: dict[object, str] = {}
    for answer in answers:
        spelling = normalise(answer)
        value = number(spelling)
        values.setdefault(spelling if value is None else value, answer)
    return list(values.values())


def _closing_brace(text: str, start: int) -> int | None:
    """Where the brace that was opened just before `start` closes, if not too far on; escaped braces do not count."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start : start + MAX_WRITTEN], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return start + match.start()
    return None


def _line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()


def _stated(text: str) -> str | None:
    """What follows "the answer is", up to the end of the sentence: its formulas and the words between, without explanations.

    A formula may stand on lines of its own. What follows it counts where it changes it: `$5$ or $6$` is no answer, `$7$ million` not 7.
    """
    text = text.lstrip("*_: \t\n")
    formula = ""
    if display := DISPLAY.match(text):
        formula, text = display.group(2).replace("\\\\", " ").replace("&", "").strip(), text[display.end() :]
    for opening, closing in MATH.items():
        if text.startswith(opening) and (end := text.find(closing, len(opening))) > 0:
            formula, text = text[len(opening) : end].strip(), text[end + len(closing) :]
            break
    end = SENTENCE_END.search(text)
    rest = EXPLANATION.sub("", text[: end.start()] if end else text)
    if formula and not CONTINUED.match(rest) and not ALTERNATIVE.search(rest):
        words = UNIT_WORDS.match(rest)
        rest = words.group() if words else ""
    return (formula + DELIMITERS.sub("", rest)).strip("*_: \t\n,;") or None
