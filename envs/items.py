"""Items and splits: what an environment can be asked to play.

An item is one problem with a stable id. A split is a fixed, ordered list of items; its digest names the exact content,
so two runs that report the same digest were measured on the same problems.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property


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
class Split:
    """A named, enumerated list of items, addressed by id."""

    name: str
    items: tuple[Item, ...]

    @cached_property
    def by_id(self) -> dict[str, Item]:
        return {item.id: item for item in self.items}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, questions, golds and what else is known of the items, in order (hex, 64 characters)."""
        sha = hashlib.sha256()
        for item in self.items:
            for text in (item.id, item.question, item.gold, json.dumps(dict(item.meta), sort_keys=True, default=str)):
                raw = text.encode()
                sha.update(len(raw).to_bytes(8, "big") + raw)
        return sha.hexdigest()


def tenth(text: str) -> int:
    """Which tenth of the hash space a text falls in, 0 to 9: divides items into splits by their content alone."""
    return hashlib.sha256(text.encode()).digest()[-1] * 10 // 256
