"""Where math items come from: generated, built-in suites, JSON-lines files, Hugging Face data sets.

A file that is meant for training is divided into train and validation, and a user's own file into train, validation and test,
by a hash of the question's text: the division is fixed by the data and never by its order or the seed.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ...common.errors import UserError
from ..data_files import OWN_FILE, TRAINING_FILE, Record, hub_rows, read_hub, read_lines, require_split, warn_of_skipped
from ..items import Item, Skipped, Split, tenth
from . import arithmetic
from .columns import Unplayable, as_text, find, golds_of, read_question, read_row, value_at
from .config import FieldMapping, MathConfig
from .golds import unreadable_golds


@dataclass(frozen=True)
class Suite:
    """A built-in suite: its file of each kind under ONELAYER_DATA/NAME, its place on the hub, and how its answers are compared."""

    files: tuple[str, ...]  # "train" is divided into train and validation, "test" is the split test
    hub: str
    hub_config: str | None = None
    hub_split: str | None = None  # where the hub names it differently
    id: str | None = None  # the key of an id of its own, where the records have one
    relative: float | None = None  # the error within which its benchmark takes a number


SUITES = {
    "gsm8k": Suite(("train", "test"), "openai/gsm8k", hub_config="main"),
    "math": Suite(("train",), "DigitalLearningGmbH/MATH-lighteval", id="unique_id"),
    "math500": Suite(("test",), "HuggingFaceH4/MATH-500", id="unique_id"),
    "aime24": Suite(("test",), "HuggingFaceH4/aime_2024", hub_split="train"),
    "aime25": Suite(("test",), "math-ai/aime25"),
    "amc23": Suite(("test",), "math-ai/amc23", id="id"),
    "minerva": Suite(("test",), "math-ai/minervamath", relative=1e-4),
    "olympiadbench": Suite(("test",), "math-ai/olympiadbench", id="id"),
    "numinamath": Suite(("train", "test"), "AI-MO/NuminaMath-CoT"),
    "deepscaler": Suite(("train",), "agentica-org/DeepScaleR-Preview-Dataset"),
    "skywork": Suite(("train",), "Skywork/Skywork-OR1-RL-Data", hub_split="math"),
}


@dataclass(frozen=True)
class Read:
    """One record as it was read: an item whose gold has not been tried yet, or the reason why it is none."""

    place: str
    id: str
    key: str  # the question's text, by which a file is divided
    item: Item | None
    reason: str = ""


def load(config: MathConfig, split: str) -> Split:
    """The items of one split, checked. Cached: the same configuration gives the same object.

    Raises UserError for an unknown suite or split, for data that is missing or broken (with file and line), where no item can be played,
    and, where env.unreadable is refuse, for the first that cannot.
    """
    return _load(config, split, os.environ.get("ONELAYER_DATA"))


@functools.lru_cache(maxsize=32)
def _load(config: MathConfig, split: str, data: str | None) -> Split:
    name = f"{config.suite}/{split}"
    if config.suite == "arithmetic":
        require_split(split, tuple(arithmetic.SPLITS), "arithmetic")
        return Split(name, arithmetic.generate(split, config.size, config.difficulty, config.seed))
    items, skipped = _tried(_read(config, split, data), config.size, config.unreadable == "refuse")
    if not items:
        raise UserError(f"{next(iter(skipped.values()))}; the same holds for all {len(skipped)} items of {name}")
    if config.size is not None and config.size > len(items):
        raise UserError(f"env.size={config.size}, but {name} has {len(items)} items: lower it, or leave it out to take all")
    found = Split(name, tuple(items), tuple(skipped))
    warn_of_skipped(found)
    return found


def _tried(rows: Iterator[Read], size: int | None, refuse: bool) -> tuple[list[Item], dict[Skipped, str]]:
    """The first `size` items that can be played (null: all), and those passed over on the way, each with its place and reason as one line.

    Raises UserError for the first that is passed over where that is refused.
    """
    items: list[Item] = []
    skipped: dict[Skipped, str] = {}
    while chunk := list(itertools.islice(rows, size)):
        tried = _readable([row.item for row in chunk if row.item])
        for row in chunk:
            item = row.item and tried[row.item.id]
            if size is not None and len(items) == size:
                return items, skipped
            if item:
                items.append(item)
                continue
            reason = f"the gold answer {row.item.gold!r} cannot be read by the grader" if row.item else row.reason
            if refuse:
                raise UserError(f"{row.place}: {reason}; correct it or remove the item (env.unreadable=skip leaves it out)")
            skipped[Skipped(row.id, reason, len(items))] = f"{row.place}: {reason}"
    return items, skipped


def _readable(items: list[Item]) -> dict[str, Item | None]:
    """The items by id, each with those of its gold answers that the grader can read; None where it can read none."""
    golds = [(item, gold) for item in items for gold in golds_of(item)]
    bad = set(unreadable_golds([gold for _, gold in golds]))
    good: dict[str, list[str]] = {item.id: [] for item in items}
    for at, (item, gold) in enumerate(golds):
        if at not in bad:
            good[item.id].append(gold.text)
    return {item.id: _with_golds(item, good[item.id]) for item in items}


def _with_golds(item: Item, golds: list[str]) -> Item | None:
    """The item with these of its gold answers only."""
    if len(golds) == len(golds_of(item)):
        return item
    if not golds:
        return None
    meta = {name: value for name, value in item.meta.items() if name != "alternatives"}
    return replace(item, gold=golds[0], meta=meta | ({"alternatives": golds[1:]} if golds[1:] else {}))


def _read(config: MathConfig, split: str, data: str | None) -> Iterator[Read]:
    """The records of a split of a file or data set."""
    if config.suite in SUITES:
        suite = SUITES[config.suite]
        tenths = (TRAINING_FILE if "train" in suite.files else {}) | ({"test": range(10)} if "test" in suite.files else {})
        require_split(split, tuple(tenths), config.suite)
        kind = "test" if split == "test" else "train"
        path = Path(data, config.suite, f"{kind}.jsonl") if data else None
        if path is not None and path.exists():
            records = read_lines(path)
        else:
            otherwise = f"set ONELAYER_DATA to a folder that holds {config.suite}/{kind}.jsonl"
            records = read_hub(suite.hub, suite.hub_config, suite.hub_split or kind, otherwise)
        rows = _convert(records, config.fields, f"{config.suite}/{kind}", suite)
    elif config.suite.startswith("hub:") and (name := config.suite.removeprefix("hub:")):
        records, prefix, tenths = hub_rows(name, None, split, config.suite)
        rows = _convert(records, config.fields, prefix)
    elif config.suite.endswith(".jsonl"):
        tenths = OWN_FILE
        require_split(split, tuple(tenths), config.suite)
        rows = _convert(read_lines(Path(config.suite)), config.fields, Path(config.suite).stem)
    else:
        built_in = ", ".join(["arithmetic", *SUITES])
        raise UserError(f"no suite {config.suite!r}; there are {built_in}, files (NAME.jsonl) and data sets (hub:OWNER/NAME)")
    count = fallen = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 (counted for the message below)
        if tenth(row.key) in tenths[split]:
            fallen += 1
            yield row
    if not fallen:
        raise UserError(f"{config.suite}: none of its {count} items falls into {split}; add items, or take another of {', '.join(tenths)}")


def _convert(records: Iterable[Record], fields: FieldMapping, prefix: str, suite: Suite | None = None) -> Iterator[Read]:
    """The rows, in order. Raises UserError, with file and line, for missing keys, values of another type and repeated ids."""
    places: dict[str, str] = {}
    for record in records:
        place, values = f"{record.place}:{record.number}", record.values
        try:
            own_id = fields.id or (suite.id if suite and suite.id in values else None)
            item_id = f"{prefix}/{as_text(value_at(values, find(values, 'id', own_id, ())), own_id) if own_id else record.number}"
            if item_id in places:
                raise UserError(f"the id {item_id!r} is taken by {places[item_id]}; ids must differ")
            places[item_id] = place
            question = read_question(values, fields)
            key = Item(item_id, question, "").text_key
            try:
                row = read_row(values, question, fields, suite.relative if suite else None, several="any" if suite else None)
            except Unplayable as reason:
                yield Read(place, item_id, key, None, str(reason))
            else:
                yield Read(place, item_id, key, Item(item_id, row.question, row.gold, row.meta))
        except UserError as error:
            raise UserError(f"{place}: {error}") from error
