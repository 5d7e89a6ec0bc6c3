"""Items and splits: what an environment can be asked to play.

An item is one problem with a stable id. A split is a fixed, ordered list of items; its digest names the exact content,
so two runs that report the same digest were measured on the same problems.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.text import counted


@dataclass(frozen=True)
class Item:
    """One problem: `question` is what the agent reads, `gold` is what the grader compares with.

    `meta["type"]`, where it is there, is the kind of task, by which results are broken down.
    """

    id: str
    question: str
    gold: str
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def text_key(self) -> str:
        """The question with white space folded: equal keys are the same problem under two ids."""
        return " ".join(self.question.split())


@dataclass(frozen=True)
class Skipped:
    """One that stands in the data and cannot be played."""

    id: str
    reason: str
    after: int
    """How many items of the split stand before it."""


@dataclass(frozen=True)
class Split:
    """A named, enumerated list of items, addressed by id; and what the data holds besides, that could not be made an item."""

    name: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...] = ()

    def first(self, count: int | None) -> Split:
        """Its first `count` items (null: all), with what was skipped among them."""
        return self if count is None else Split(self.name, self.items[:count], tuple(one for one in self.skipped if one.after < count))

    @property
    def size_text(self) -> str:
        """How many there are, in words."""
        return size_text(len(self.items), len(self.skipped))

    @cached_property
    def by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, questions, golds and what else is known of the items, in order, and the ids of the skipped ones (hex)."""
        sha = hashlib.sha256()
        for item in self.items:
            for text in (item.id, item.question, item.gold, json.dumps(dict(item.meta), sort_keys=True, default=str)):
                raw = text.encode()
                sha.update(len(raw).to_bytes(8, "big") + raw)
        if self.skipped:
            sha.update(json.dumps(["skipped", *(one.id for one in self.skipped)]).encode())
        return sha.hexdigest()


def check_disjoint(train: Split, evaluation: Split) -> None:
    """Refuse to train on what is evaluated: raises UserError where the splits share an id or a question's text."""
    texts = {item.text_key for item in evaluation.items}
    shared = [item.id for item in train.items if item.id in evaluation.by_id or item.text_key in texts]
    if shared:
        raise UserError(
            f"{len(shared)} of the {len(train.items)} items of {train.name} are also in {evaluation.name} ({', '.join(shared[:3])}"
            f"{', ...' if len(shared) > 3 else ''}): take another split, or leave them out of the file"
        )


def size_text(items: int, skipped: int) -> str:
    """The size of a split wherever it is shown: `272 items`, or `270 items (2 skipped)`."""
    return f"{counted(items, 'item')} ({skipped} skipped)" if skipped else counted(items, "item")


def choose(items: Mapping[str, object], options: Mapping[str, Any] | None, rng: np.random.Generator) -> str:
    """The id of the item that `reset` is to play: the one that its options name, else one drawn. Raises UserError for an unknown id."""
    wanted = (options or {}).get("item")
    if wanted is None:
        return list(items)[int(rng.integers(len(items)))]
    if wanted not in items:
        near = get_close_matches(str(wanted), items, n=1, cutoff=0.0)
        raise UserError(f"no item {wanted!r} among the {len(items)} of this split; the nearest id is {near[0]!r}")
    return str(wanted)


def tenth(text: str) -> int:
    """Which tenth of the hash space a text falls in, 0 to 9: divides items into splits by their content alone."""
    return hashlib.sha256(text.encode()).digest()[-1] * 10 // 256
