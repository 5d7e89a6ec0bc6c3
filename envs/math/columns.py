r"""What a row of a data set says: its question, its gold answer, and what its benchmark allows beside that answer.

Rows are read under the columns that the data sets are published with; tests/envs/test_math_sources.py cites the card or the loader of each:
OlympiadBench's `final_answer` (a list, all of it right together) with `unit` and `error`, lists of answers of which each is right,
a chat's messages as the question, a worked solution with its answer in a box.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...common.errors import UserError
from ...common.reading import parse_json
from ..items import Item
from .answers import distinct, extract_answer
from .config import FieldMapping
from .gold import Gold
from .latex import normalise
from .numerals import number

QUESTIONS = ("question", "problem", "prompt")
OLYMPIAD = "final_answer"  # the column that tells OlympiadBench's rows
ANSWERS = ("answer", OLYMPIAD, "gold", "reward_model.ground_truth", "solution")
KEPT = ("level", "subject", "type")  # what an item keeps of its row, as it is
GOLD = ("precision", "relative", "unit")  # and what it keeps for the grader: the fields of Gold besides its text
ENDING = re.compile(r"\s*Please reason step by step, and put your final answer within \\boxed\{\}\.?\s*$")

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])")
IMAGE = re.compile(r"<(?:image|img)_\d+>")
ASKS = re.compile(r"\?|\b(?:find|determine|calculate|compute|evaluate|solve|simplify|express|how (?:many|much))\b", re.IGNORECASE)
PROVES = re.compile(r"\b(?:prove|show|verify)\b", re.IGNORECASE)
PART = re.compile(r"(?:^|(?<=[\s.;:,?!$]))[(（](?:[1-9]|[a-e]|i|ii|iii|iv|v|I|II|III|IV|V|[Ⅰ-Ⅴ])[)）]|[①-⑨]")
COUNTED = re.compile(r"(.*\S)\s*\(\s*([a-z][a-z ]+)\)")  # 9 (apples)


class Unplayable(Exception):
    """A row whose answer cannot be graded. The message is the reason."""


@dataclass(frozen=True)
class Row:
    """One row as it was read; `meta` is what an item keeps of it, for the grader too."""

    question: str
    gold: str
    meta: Mapping[str, object] = field(default_factory=dict)


def golds_of(item: Item) -> list[Gold]:
    """The gold answers of an item, of which a response must give one."""
    allowed: dict[str, Any] = {name: item.meta[name] for name in GOLD if name in item.meta}
    others = item.meta.get("alternatives", ())
    assert isinstance(others, (list, tuple))
    return [Gold(text, **allowed) for text in (item.gold, *others)]


def read_question(values: Mapping[str, Any], fields: FieldMapping) -> str:
    """The question, without white space around it; of a chat, what its user said last. Raises UserError without a place."""
    key = find(values, "question", fields.question, QUESTIONS)
    asked = value_at(values, key)
    if isinstance(asked, (list, tuple)) and asked and all(isinstance(message, Mapping) for message in asked):
        asked = next((message.get("content") for message in reversed(asked) if message.get("role") == "user"), None)
    text = "" if asked is None else ENDING.sub("", as_text(asked, key)).strip()
    context = values.get("context") if OLYMPIAD in values else None
    return f"{context.strip()}\n\n{text}" if isinstance(context, str) and context.strip() else text


def read_row(values: Mapping[str, Any], question: str, fields: FieldMapping, relative: float | None, *, several: str | None) -> Row:
    """The row with its gold answer. relative: the tolerance of its benchmark; several: what a list of answers means there.

    Raises Unplayable where the row cannot be graded; UserError, without a place, for a column that is missing or of another type.
    """
    key = find(values, "answer", fields.answer, ANSWERS)
    texts, together = _answers(values, key, fields.several, several)
    if not question:
        raise Unplayable("the question is empty")
    if values.get("modality") == "Multimodal" or IMAGE.search(question):
        raise Unplayable("its question needs an image")
    if "proof" in str(values.get("question_type", "")).lower() or texts == ["proof"]:
        raise Unplayable("it asks for a proof")
    if "need_human_evaluate" in str(values.get("answer_type", "")).lower():
        raise Unplayable("its answer has to be judged by a person")
    if not texts or texts == ["notfound"]:
        raise Unplayable("the answer is empty")
    golds = [_out_of(text, question, worked=key == "solution" and fields.answer is None) for text in texts]
    if together:
        golds = [", ".join(golds)]
    meta = {name: values[name] for name in KEPT if name in values} | _allowed(values, fields, golds, relative)
    if len(golds) == 1 and (counted := COUNTED.fullmatch(golds[0])) and number(normalise(counted[1])) is not None:
        golds, meta["unit"] = [counted[1]], counted[2].strip()
    if others := [gold for gold in dict.fromkeys(golds) if gold != golds[0]]:
        meta["alternatives"] = others
    return Row(question, golds[0], meta)


def find(values: Mapping[str, Any], what: str, named: str | None, usual: tuple[str, ...]) -> str:
    """The key to read: the one that the configuration names, else the first of the usual ones. Raises UserError where there is none."""
    keys = (named,) if named else usual
    for key in keys:
        try:
            value_at(values, key)
        except KeyError:
            continue
        return key
    from ..code.columns import is_code_row

    remedy = "these are tasks of code: write code: before the suite" if is_code_row(values) else f"set env.fields.{what}"
    raise UserError(f"no key {' or '.join(map(repr, keys))}; it has {', '.join(values)}; {remedy}")


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value under a key, or under a path of keys joined by dots. Raises KeyError."""
    if key in values:
        return values[key]
    outer, _, inner = key.partition(".")
    if not inner or not isinstance(values.get(outer), Mapping):
        raise KeyError(key)
    return value_at(values[outer], inner)


def as_text(value: object, key: str) -> str:
    """A value as text; whole floats lose their `.0`. Raises UserError, without a place, for what is neither a text nor a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{key!r} is {json.dumps(value, default=str)[:40]}, but must be text or a number")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{key!r} holds half a surrogate pair; write the character itself") from error
    return text


def _answers(values: Mapping[str, Any], key: str, named: str | None, usual: str | None) -> tuple[list[str], bool]:
    """The answers under a key, without empty ones, and whether all of them are asked for together.

    named, usual: what a list means, by the configuration and else.
    """
    found = value_at(values, key)
    ground_truth = key.endswith("ground_truth")
    if ground_truth and isinstance(found, str) and found.startswith('["'):  # a list of texts as JSON; [1,2] is an interval
        with contextlib.suppress(ValueError):
            found = parse_json(found)
    if found is None:
        return [], False
    if not isinstance(found, (list, tuple)):
        return [text] if (text := as_text(found, key).strip()) else [], False
    several = named or ("all" if key == OLYMPIAD else "any" if ground_truth else usual)
    texts = [text for one in found if (text := as_text(one, key).strip())]
    if several is None:
        raise UserError(
            f"{key!r} is a list, {json.dumps(found)[:40]}: set env.fields.several to all (a response must give all of them) "
            "or any (each of them is right)"
        )
    return texts, several == "all"


def _out_of(text: str, question: str, *, worked: bool) -> str:
    r"""The gold answer in a text that may be a whole solution: GSM8K's after ####, MATH's in its box.

    worked: the text is known to be a worked solution, so that without a box it has no answer. Raises Unplayable where the box is not all of
    the answer: a proof, a problem of several parts, boxes that differ.
    """
    if "####" in text:
        return text.rpartition("####")[2].strip()
    if not BOX.search(text):
        if worked:
            raise Unplayable("its solution has no answer in a box (where the column is the answer itself, set env.fields.answer=solution)")
        return text
    if len(found := _boxed(text)) != 1:
        shown = ", then ".join(found)
        raise Unplayable(f"its solution boxes different answers: {shown}" if found else "its solution has no answer in its box")
    if PROVES.search(question) and not ASKS.search(question):
        raise Unplayable("it asks for a proof")
    if sum(bool(ASKS.search(part) or PROVES.search(part)) for part in PART.split(question)[1:]) > 1:
        raise Unplayable("it asks for several parts, and one answer is in a box")
    return found[0]


def _boxed(solution: str) -> list[str]:
    """The answers that a solution boxes, line by line, those that differ."""
    lines = sorted({solution.rfind("\n", 0, box.start()) + 1 for box in BOX.finditer(solution)})
    answers = (extract_answer(solution[start:end]) for start, end in zip(lines, [*lines[1:], len(solution)], strict=True))
    return distinct(answer for answer in answers if answer)


def _allowed(values: Mapping[str, Any], fields: FieldMapping, golds: list[str], relative: float | None) -> dict[str, object]:
    """What the benchmark allows beside the gold's text, by the names of Gold's fields."""
    olympiad = OLYMPIAD in values
    allowed: dict[str, object] = {} if relative is None else {"relative": relative}
    unit = value_at(values, fields.unit) if fields.unit else values.get("unit") if olympiad else None
    if unit is not None and (text := as_text(unit, "unit").strip().strip("$")):
        allowed["unit"] = text
    key = fields.precision or "error"
    error = value_at(values, key) if fields.precision else values.get(key) if olympiad else None
    if error is not None and (text := as_text(error, key).strip()):
        allowed["precision"] = _precision(text, key, golds)
    return allowed


def _precision(text: str, key: str, golds: list[str]) -> float:
    """A tolerance such as 1e-1. Raises Unplayable for one of each of several answers, which the grader does not compare."""
    if "," in text or any("," in gold and number(normalise(gold)) is None for gold in golds):
        raise Unplayable(f"its tolerance ({text}) is for each of several answers")
    try:
        precision = float(text)
    except ValueError as error:
        raise UserError(f"{key!r} is {text[:40]!r}, but must be a number: the absolute error within which an answer is right") from error
    if not 0 < precision < math.inf:
        raise UserError(f"{key!r} is {text[:40]}, but must be a positive number")
    return precision
