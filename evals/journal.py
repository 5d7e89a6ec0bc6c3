"""The journal of an evaluation under way: a line for each sample as it ends, so that a kill at any moment loses none that is in it.

A line is a JSON object: a `Sample`, or a `Spent` that tells what a process has cost so far. It is handed to the system at once, which keeps
it when the process is killed. A last line without its line break is torn; it, and any other line that cannot be read, count as not there.

The last key of a line is the SHA-256 of the line without it, so that a line that has changed since is one of those. Journals of earlier
releases have no such key.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ..common.cost import Cost
from ..common.errors import UserError
from ..common.files import GrowingFile, growing
from ..common.reading import parse_json, read_bytes
from .samples import Sample

JOURNAL = "journal.jsonl"
LARGEST_JOURNAL = 4 << 30  # bytes
LONGEST_LINE, MOST_BRACES = 64 << 20, 1 << 20
"""Bytes of a line, and opened braces in it, each of which takes a hundred bytes in memory. A sample has one brace for each step."""
MOST_UNREADABLE = 1000
"""Lines: a kill or a flipped bit spoils one."""
CHECKSUM = re.compile(rb',"sha256":"([0-9a-f]{64})"}$')
SPENT_EVERY = 5.0
"""Seconds between lines that tell the cost: what a killed process had spent since the last one is not counted."""


class Spent(BaseModel):
    """What a process has spent on the evaluation so far, and what it is making."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spent: Cost = Field(description="of this process")
    requests: dict[str, int] = Field(description="of this process, to an endpoint; by what became of them")
    process: int = Field(ge=0, description="how many were at work before it")
    policy: str = Field(description="name of the policy")
    split: str = Field(description="split that the items are from")
    wanted: int = Field(ge=0, description="samples that the evaluation has when it is complete")


@dataclass
class Entries:
    """What stands in a journal."""

    samples: dict[str, Sample] = field(default_factory=dict)
    """By key."""
    spent: dict[int, Spent] = field(default_factory=dict)
    """The last that each process wrote."""
    unreadable: int = 0
    """Lines that count as not there, a torn last one included."""
    end: int = 0
    """Bytes up to the last line break."""

    @property
    def cost(self) -> Cost:
        return sum((one.spent for one in self.spent.values()), Cost())

    @property
    def requests(self) -> dict[str, int]:
        return add_up([one.requests for one in self.spent.values()])


def add_up(counts: list[dict[str, int]]) -> dict[str, int]:
    """Counts by name, summed."""
    return {name: sum(one.get(name, 0) for one in counts) for name in sorted({name for one in counts for name in one})}


class RequestCounts:
    """The requests to an endpoint during one evaluation, where the engine counts them."""

    def __init__(self, engine: object):
        self._engine, self.counted = engine, hasattr(engine, "counts")
        self._before = self._all()

    def now(self) -> dict[str, int]:
        return add_up([self._all(), {name: -count for name, count in self._before.items()}])

    def _all(self) -> dict[str, int]:
        return dict(getattr(self._engine, "counts", {}))


def read_journal(path: Path) -> Entries:
    """All that can be read of a journal; nothing of one that is not there. Raises UserError where it is no file that can be read."""
    entries = Entries()
    if not path.exists():
        return entries
    try:
        data = read_bytes(path, LARGEST_JOURNAL)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it readable, or remove it") from error
    entries.end = data.rfind(b"\n") + 1
    lines = data[: entries.end].split(b"\n")[:-1]
    entries.unreadable = int(entries.end < len(data))
    for line in lines:
        try:
            text = _checked(line)
            if text.startswith(b'{"spent"'):
                spent = Spent.model_validate_json(text)
                entries.spent[spent.process] = spent
            else:
                sample = Sample.model_validate_json(text)
                if (before := entries.samples.get(sample.key)) is None or before.failed:  # what failed is played again
                    entries.samples[sample.key] = sample
        except ValueError as error:
            entries.unreadable += 1
            if entries.unreadable > MOST_UNREADABLE:
                raise UserError(f"{path}: more than {MOST_UNREADABLE} lines cannot be read, so it is not a journal; remove it") from error
    return entries


def _checked(line: bytes) -> bytes:
    """A line without its checksum. Raises ValueError where it is not that of the line, and for a line that no sample fills."""
    if len(line) > LONGEST_LINE or line.count(b"{") > MOST_BRACES:
        raise ValueError("the line is too long")
    if (found := CHECKSUM.search(line)) is None:
        return line
    text = line[: found.start()] + b"}"
    if hashlib.sha256(text).hexdigest().encode() != found[1]:
        raise ValueError("the line has changed")
    return text


@dataclass(frozen=True)
class Outline:
    """What a list shows of a sample."""

    key: str
    decoding: str
    item: str
    sample: int
    verdict: str
    reward: float
    tokens: int | None
    steps: int


def read_outline(line: bytes) -> Outline | Spent:
    """A line without the texts of a sample's steps, which are most of it. Raises ValueError where it counts as not there."""
    text = _checked(line.rstrip(b"\n"))
    if text.startswith(b'{"spent"'):
        return Spent.model_validate_json(text)
    # Within JSON text a quote is escaped, so neither of these can be a part of one.
    head, _, steps = text.partition(b',"steps":[')
    try:
        found = parse_json(head + b"}")
        return Outline(
            key=str(found["key"]),
            decoding=str(found["decoding"]),
            item=str(found["item"]),
            sample=int(found["sample"]),
            verdict=str(found["verdict"]),
            reward=float(found["reward"]),
            tokens=None if found["tokens"] is None else int(found["tokens"]),
            steps=steps.count(b'"observation":'),
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError("no sample") from error


class Journal:
    """A journal open for writing."""

    def __init__(self, file: GrowingFile):
        self._file, self._told = file, time.monotonic()

    def add(self, sample: Sample) -> None:
        self._write(sample)

    def tell(self, spent: Spent) -> None:
        """Note what was spent."""
        self._write(spent)
        self._told = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to `tell`."""
        return time.monotonic() - self._told > SPENT_EVERY

    def _write(self, line: Sample | Spent) -> None:
        text = line.model_dump_json().encode()
        checksum = hashlib.sha256(text).hexdigest().encode()
        self._file.write(text[:-1] + b',"sha256":"' + checksum + b'"}\n')  # unbuffered: one call of the system


@contextmanager
def open_journal(path: Path, entries: Entries) -> Iterator[Journal]:
    """Go on after the last whole line of `entries`, which were read from it. Raises UserError where it cannot be written."""
    with growing(path, entries.end) as file:
        yield Journal(file)


def progress(path: Path) -> Mapping[str, object]:
    """What an unfinished evaluation is: policy, split, samples there and wanted; empty where the journal does not tell."""
    entries = read_journal(path)
    if not entries.spent:
        return {}
    last = entries.spent[max(entries.spent)]
    return {"policy": last.policy, "split": last.split, "samples": len(entries.samples), "wanted": last.wanted}
