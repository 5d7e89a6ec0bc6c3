"""Where math items come from: generated, built-in suites, JSON-lines files, Hugging Face data sets.

A file that is meant for training is divided into train and validation, and a user's own file into train, validation and test,
by a hash of the question's text: the division is fixed by the data and never by its order or the seed.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import FieldMapping, MathConfig
from ..errors import UserError
from ..items import Item, Split, tenth
from . import arithmetic
from .answers import extract_answer
from .golds import unreadable_golds

TRAINING_FILE = {"train": range(1, 10), "validation": range(0, 1)}  # tenths of the hash space
OWN_FILE = {"train": range(3, 10), "validation": range(2, 3), "test": range(0, 2), "all": range(0, 10)}
ENDING = re.compile(r"\s*Please reason step by step, and put your final answer within \\boxed\{\}\.?\s*$")


@dataclass(frozen=True)
class Suite:
    """A built-in suite: its file of each kind under ONELAYER_DATA/NAME, its place on the hub, and what is known to be broken."""

    files: tuple[str, ...]  # "train" is divided into train and validation, "test" is the split test
    hub: str
    hub_config: str | None = None
    hub_split: str | None = None  # where the hub names it differently
    id: str | None = None  # the key of an id of its own, where the records have one
    without_gold: tuple[str, ...] = ()  # how the questions begin that have no gold answer in the published data


SUITES = {
    "gsm8k": Suite(("train", "test"), "openai/gsm8k", hub_config="main"),
    "math": Suite(
        ("train",),
        "DigitalLearningGmbH/MATH-lighteval",
        id="unique_id",
        without_gold=("You are given a sequence of $58$ terms", "For any integer $n>1$, the number of prime numbers greater than $n!+1$"),
    ),
    "math500": Suite(("test",), "HuggingFaceH4/MATH-500", id="unique_id"),
    "aime24": Suite(("test",), "HuggingFaceH4/aime_2024", hub_split="train"),
    "aime25": Suite(("test",), "math-ai/aime25"),
    "amc23": Suite(("test",), "math-ai/amc23", id="id"),
}


@dataclass(frozen=True)
class Record:
    """One line of a file or row of a data set, and where it stands (for error messages)."""

    place: str
    number: int  # from 1
    values: Mapping[str, Any]


def load(config: MathConfig, split: str) -> Split:
    """The items of one split, checked. Cached: the same configuration gives the same object.

    Raises UserError for an unknown suite or split, for data that is missing or broken (with file and line), and for golds
    that the grader can not read.
    """
    return _load(config, split, os.environ.get("ONELAYER_DATA"))


@functools.lru_cache(maxsize=32)
def _load(config: MathConfig, split: str, data: str | None) -> Split:
    name = f"{config.suite}/{split}"
    if config.suite == "arithmetic":
        _require(split, tuple(arithmetic.SPLITS), "arithmetic")
        return Split(name, arithmetic.generate(split, config.size, config.difficulty, config.seed))
    items = _items(config, split, data)
    if config.size is not None and config.size > len(items):
        raise UserError(f"env.size={config.size}, but {name} has {len(items)} items: lower it, or leave it out to take all")
    items = dict(list(items.items())[: config.size])
    for at in unreadable_golds([item.gold for item in items.values()]):
        item, place = list(items.values())[at], list(items)[at]
        raise UserError(f"{place}: the gold answer {item.gold!r} can not be read by the grader; correct it or remove the item")
    return Split(name, tuple(items.values()))


def _items(config: MathConfig, split: str, data: str | None) -> dict[str, Item]:
    """The items of a split of a file or data set, each under the place where it stands."""
    if config.suite in SUITES:
        suite = SUITES[config.suite]
        tenths = (TRAINING_FILE if "train" in suite.files else {}) | ({"test": range(10)} if "test" in suite.files else {})
        _require(split, tuple(tenths), config.suite)
        kind = "test" if split == "test" else "train"
        path = Path(data, config.suite, f"{kind}.jsonl") if data else None
        if path is not None and path.exists():
            records = read_lines(path)
        else:
            otherwise = f"set ONELAYER_DATA to a folder that holds {config.suite}/{kind}.jsonl"
            records = read_hub(suite.hub, suite.hub_config, suite.hub_split or kind, otherwise)
        items = _convert(records, config.fields, f"{config.suite}/{kind}", suite)
    elif config.suite.startswith("hub:") and (name := config.suite.removeprefix("hub:")):
        there = hub_splits(name)
        tenths = {kind: range(10) for kind in there}
        if "train" in there and "validation" not in there:
            tenths |= TRAINING_FILE
        _require(split, tuple(tenths), config.suite)
        kind = split if split in there else "train"
        items = _convert(read_hub(name, None, kind, "save it as a .jsonl file"), config.fields, f"{name}/{kind}")
    elif config.suite.endswith(".jsonl"):
        tenths = OWN_FILE
        _require(split, tuple(tenths), config.suite)
        items = _convert(read_lines(Path(config.suite)), config.fields, Path(config.suite).stem)
    else:
        built_in = ", ".join(["arithmetic", *SUITES])
        raise UserError(f"no suite {config.suite!r}; there are {built_in}, files (NAME.jsonl) and data sets (hub:OWNER/NAME)")
    chosen = {place: item for place, item in items.items() if tenth(item.text_key) in tenths[split]}
    if not chosen:
        raise UserError(
            f"{config.suite}: none of its {len(items)} items falls into {split}; add items, or take another of {', '.join(tenths)}"
        )
    return chosen


def _require(split: str, there: tuple[str, ...], suite: str) -> None:
    if split not in there:
        raise UserError(f"{suite} has no split {split!r}; it has {', '.join(there)}")


def read_lines(path: Path) -> list[Record]:
    """The JSON objects of a JSON-lines file; empty lines are passed over. Raises UserError with file and line."""
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name an existing .jsonl file") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line.decode())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error}); each line is one JSON object") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}:{number}: a {type(values).__name__}, but each line is one JSON object")
        records.append(Record(str(path), number, values))
    if not records:
        raise UserError(f"{path}: the file is empty; each line is one JSON object")
    return records


def _datasets(name: str, otherwise: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: not at hand; {otherwise}, or pip install datasets to fetch it from the hub") from error
    return datasets


def read_hub(name: str, config: str | None, split: str, otherwise: str) -> list[Record]:
    datasets = _datasets(name, otherwise)
    try:
        rows = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # many kinds: no network, no such data set, no such split
        raise UserError(f"{name}: the hub does not give its split {split} ({_one_line(error)}); {otherwise}") from error
    return [Record(f"{name}/{split}", number, row) for number, row in enumerate(rows, 1)]


def hub_splits(name: str, config: str | None = None) -> list[str]:
    try:
        return list(_datasets(name, "save it as a .jsonl file").get_dataset_split_names(name, *filter(None, [config])))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}: the hub does not list its splits ({_one_line(error)}); check the name and the network") from error


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _convert(records: Iterable[Record], fields: FieldMapping, prefix: str, suite: Suite | None = None) -> dict[str, Item]:
    """Items by place (file:line). Raises UserError for missing keys, empty texts and repeated ids."""
    items: dict[str, Item] = {}
    places: dict[str, str] = {}
    for record in records:
        place = f"{record.place}:{record.number}"
        question = ENDING.sub("", _text(record, place, "question", fields.question, ("question", "problem", "prompt"))).strip()
        if suite and question.startswith(suite.without_gold):
            continue
        gold = _gold(_text(record, place, "answer", fields.answer, ("answer", "gold", "solution")))
        own_id = fields.id or (suite.id if suite and suite.id in record.values else None)
        item_id = f"{prefix}/{_text(record, place, 'id', own_id, ()) if own_id else record.number}"
        if item_id in places:
            raise UserError(f"{place}: the id {item_id!r} is taken by {places[item_id]}; ids must differ")
        if not question or not gold:
            raise UserError(f"{place}: the {'answer' if question else 'question'} is empty; fill it in or remove the line")
        meta = {key: record.values[key] for key in ("level", "subject", "type") if key in record.values}
        items[place], places[item_id] = Item(item_id, question, gold, meta), place
    return items


def _text(record: Record, place: str, what: str, named: str | None, usual: tuple[str, ...]) -> str:
    """A field as text; whole floats lose their `.0`."""
    keys = (named,) if named else usual
    key = next((key for key in keys if key in record.values), None)
    if key is None:
        raise UserError(f"{place}: no key {' or '.join(map(repr, keys))}; it has {', '.join(record.values)}; set env.fields.{what}")
    value = record.values[key]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{place}: {key!r} is {json.dumps(value)[:40]}, but a text or a number is wanted")
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {key!r} holds half a surrogate pair; write the character itself") from error
    return text


def _gold(text: str) -> str:
    """The gold answer in a field that may be a whole solution: GSM8K's after ####, MATH's in the last box."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    return ((extract_answer(text) or "") if "\\boxed" in text else text).strip()


def check_disjoint(train: Split, evaluation: Split) -> None:
    """Refuse to train on what is evaluated: raises UserError where the splits share an id or a question's text."""
    texts = {item.text_key for item in evaluation.items}
    shared = [item.id for item in train.items if item.id in evaluation.by_id or item.text_key in texts]
    if shared:
        raise UserError(
            f"{len(shared)} of the {len(train.items)} items of {train.name} are also in {evaluation.name} ({', '.join(shared[:3])}"
            f"{', ...' if len(shared) > 3 else ''}): take another split, or leave them out of the file"
        )
