"""The episodes of one run or evaluation, by pages: a few columns of all of them in memory, the texts of one read when it is opened.

They come from parquet files (`samples.parquet`, a training run's `episodes/`) and from the journal of an evaluation that still goes on.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.reading import open_regular, parse_json
from ...evals.journal import JOURNAL, Spent, read_outline
from ...evals.samples import SAMPLES
from ...studies.store import EPISODES, DirectoryKind

ROWS_AT_ONCE = 64
"""Episodes decoded together: what is opened next is often the neighbour."""
_CODES = pa.dictionary(pa.int32(), pa.string())
_LISTED = pa.schema(
    [
        ("part", _CODES),
        ("item", _CODES),
        ("sample", pa.int32()),
        ("verdict", _CODES),
        ("reward", pa.float64()),
        ("tokens", pa.float64()),
        ("steps", pa.int32()),
        ("advantage", pa.float64()),
    ]
)
_IN_FULL = [
    "step",
    "group",
    "decoding",
    "type",
    "item",
    "sample",
    "seed",
    "env_seed",
    "verdict",
    "reward",
    "answer",
    "tokens",
    "truncated",
    "error",
    "ending",
    "gold",
    "metrics",
]
_STEP = ["observation", "prompt", "response", "action", "reward", "truncated", "valid", "advantage"]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Version:
    """A file as it was when it was looked at."""

    path: Path
    modified: int
    """Nanoseconds."""
    size: int

    @classmethod
    def of(cls, path: Path) -> Version | None:
        """None where there is no such regular file."""
        try:
            found = path.stat()
        except OSError:
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(path, found.st_mtime_ns, found.st_size)


@dataclass(frozen=True)
class EpisodeFilter:
    """Which episodes to list; an empty text leaves all."""

    part: str = ""
    """sampled, greedy or a training step."""
    verdict: str = ""
    item: str = ""
    """An item's id, or a part of ids."""


@dataclass(frozen=True)
class Column:
    """Texts that repeat: row n holds names[codes_N[n]]."""

    names: list[str]
    codes_N: IntArray

    def __getitem__(self, row: int) -> str:
        return self.names[self.codes_N[row]]

    def counts(self, rows: IntArray | None = None) -> dict[str, int]:
        """How often each text occurs, in the rows or in all."""
        codes = self.codes_N if rows is None else self.codes_N[rows]
        return {name: int(count) for name, count in zip(self.names, np.bincount(codes, minlength=len(self.names)), strict=True) if count}


@dataclass(frozen=True)
class Listing:
    """What a list shows of N episodes."""

    part: Column
    item: Column
    verdict: Column
    sample_N: IntArray
    reward_N: NDArray[np.float64]
    tokens_N: NDArray[np.float64]
    """NaN where they were not counted."""
    steps_N: IntArray
    advantage_N: NDArray[np.float64]
    """Mean over the steps; NaN where nothing was learned from it."""

    def __len__(self) -> int:
        return len(self.sample_N)

    def find(self, wanted: EpisodeFilter) -> IntArray:
        """Rows that are wanted, in order."""
        chosen_N = np.ones(len(self), dtype=bool)
        for column, text in ((self.part, wanted.part), (self.verdict, wanted.verdict)):
            if text:
                chosen_N &= np.array([name == text for name in column.names], dtype=bool)[column.codes_N]
        if wanted.item:
            text = wanted.item.casefold()
            alike = [name == wanted.item for name in self.item.names]
            if not any(alike):
                alike = [text in name.casefold() for name in self.item.names]
            chosen_N &= np.array(alike, dtype=bool)[self.item.codes_N]
        return np.flatnonzero(chosen_N)

    def row(self, part: str, item: str, sample: int) -> int | None:
        """The row of one episode; None where it is not there."""
        if part not in self.part.names or item not in self.item.names:
            return None
        codes = self.part.names.index(part), self.item.names.index(item)
        found = np.flatnonzero((self.part.codes_N == codes[0]) & (self.item.codes_N == codes[1]) & (self.sample_N == sample))
        return int(found[0]) if len(found) else None


def _storable(text: object) -> str:
    """Text that UTF-8 can hold."""
    return str(text).encode("utf-8", "backslashreplace").decode()


class GrowingEpisodes:
    """The samples in a journal that grows, read on from where it was read to; torn and broken lines count as not there."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._forget(0)

    def _forget(self, inode: int) -> None:
        self._inode, self._end = inode, 0
        self._rows: list[tuple[Any, ...]] = []
        self._places: list[tuple[int, int]] = []
        self._keys: set[str] = set()
        self.spent: dict[str, Any] = {}

    def read_on(self) -> int:
        """Take in what was written since; returns the samples there."""
        with self._lock:
            with open_regular(self.path) as file:
                found = self.path.stat()
                if found.st_ino != self._inode or found.st_size < self._end:
                    self._forget(found.st_ino)
                file.seek(self._end)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._take(line)
                    self._end += len(line)
            return len(self._rows)

    def _take(self, line: bytes) -> None:
        try:
            found = read_outline(line)
        except ValueError:  # half a line, or none of ours
            return
        if isinstance(found, Spent):
            self.spent = {"policy": found.policy, "split": found.split, "wanted": found.wanted}
        elif found.key not in self._keys:
            self._keys.add(found.key)
            part, item, verdict = (_storable(text) for text in (found.decoding, found.item, found.verdict))
            self._rows.append((part, item, found.sample, verdict, found.reward, found.tokens, found.steps, None))
            self._places.append((self._end, len(line)))

    def table(self) -> pa.Table:
        """What a list shows of them."""
        with self._lock:
            columns = list(zip(*self._rows, strict=True)) or [[] for _ in _LISTED]
        return pa.table([pa.array(list(values), field.type) for values, field in zip(columns, _LISTED, strict=True)], schema=_LISTED)

    def episode(self, row: int) -> dict[str, Any]:
        """One sample in full. Raises UserError where its line cannot be read."""
        with self._lock:
            offset, length = self._places[row]
        with open_regular(self.path) as file:
            file.seek(offset)
            line = file.read(length)
        try:
            return parse_json(line)
        except ValueError as error:
            raise UserError(f"{self.path}: the line at byte {offset} cannot be read") from error


@dataclass(frozen=True)
class Episodes:
    """All episodes of one run or evaluation, as they are now."""

    files: Sequence[Version]
    journal: GrowingEpisodes | None
    journal_rows: IntArray
    """Of the journal, those that no file holds."""
    listing: Listing

    def episode(self, row: int, prompts: bool = True) -> dict[str, Any]:
        """One in full: the columns of docs/run-store.md without the key and the tokens.

        prompts: with them. In a long conversation each repeats the one before, so they are most of what there is to read. Raises
        UserError where its file cannot be read.
        """
        for file in self.files:
            rows = _rows_of(file)
            if row < rows:
                return _read_row(file, row, prompts)
            row -= rows
        assert self.journal is not None
        return self.journal.episode(int(self.journal_rows[row]))


def open_episodes(directory: Path, kind: DirectoryKind, journal: GrowingEpisodes | None) -> Episodes:
    """The episodes of a directory. journal: of an evaluation, read on already. Raises UserError where a file cannot be read."""
    paths = [directory / SAMPLES] if kind is DirectoryKind.EVALUATION else sorted((directory / EPISODES).glob("*.parquet"))
    files = tuple(version for path in paths if (version := Version.of(path)))
    if journal is None or not (directory / JOURNAL).exists():
        return Episodes(files, None, np.empty(0, dtype=np.int64), _listing(files))
    more = journal.table()
    new = np.arange(len(more))
    if files:
        there = _listing(files)
        fresh = [there.row(*(more.column(name)[row].as_py() for name in ("part", "item", "sample"))) is None for row in range(len(more))]
        new = np.flatnonzero(fresh)
    return Episodes(files, journal, new, _to_listing([*map(_read_listed, files), more.take(pa.array(new))]))


@lru_cache(maxsize=64)
def _listing(files: tuple[Version, ...]) -> Listing:
    return _to_listing([_read_listed(file) for file in files])


def _to_listing(tables: Sequence[pa.Table]) -> Listing:
    whole = (pa.concat_tables(tables) if tables else _LISTED.empty_table()).unify_dictionaries().combine_chunks()
    numbers = {name: whole.column(name).to_numpy() for name in ("sample", "reward", "tokens", "steps", "advantage")}
    texts = {}
    for name in ("part", "item", "verdict"):
        chunks = whole.column(name).chunks
        column = chunks[0] if chunks else pa.array([], _CODES)
        texts[name] = Column(column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int64))
    return Listing(**texts, **{f"{name}_N": values for name, values in numbers.items()})


@lru_cache(maxsize=256)
def _read_listed(file: Version) -> pa.Table:
    """The columns that a list shows. Of the steps only the advantages are read, which also tells their number."""
    try:
        part = "step" if "step" in pq.read_schema(file.path).names else "decoding"
        opened = pq.ParquetFile(file.path, read_dictionary=[*(["decoding"] if part == "decoding" else []), "item", "verdict"])
        names = [part, "item", "sample", "verdict", "reward", "tokens"]
        table = opened.read(columns=[*names, "steps.list.element.advantage"], use_threads=False)
        if "steps" not in table.column_names:
            table = table.append_column("steps", pa.array([[]] * len(table), pa.list_(pa.struct([("advantage", pa.float64())]))))
        parts = table.column(part)
        if part == "step":
            parts = parts.cast(pa.string())
        columns = [parts, *(table.column(name) for name in names[1:]), *_of_steps(table.column("steps"))]
        return pa.table([column.cast(field.type) for column, field in zip(columns, _LISTED, strict=True)], schema=_LISTED)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{file.path}: cannot be read ({' '.join(str(error).split())[:200]})") from error


def _of_steps(steps: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Number of steps, and the mean of their advantages."""
    counts, means = [], []
    for chunk in steps.chunks:
        length_N = np.diff(chunk.offsets.to_numpy())
        values = chunk.flatten().field("advantage").to_numpy(zero_copy_only=False).astype(np.float64)
        total_N = np.diff(np.concatenate([[0], np.cumsum(values)])[np.concatenate([[0], np.cumsum(length_N)])])
        if np.isnan(values).any():  # one of them would spoil all sums behind it
            ends = np.cumsum(length_N)
            total_N = np.array([values[end - length : end].sum() for end, length in zip(ends, length_N, strict=True)])
        counts.append(pa.array(length_N, pa.int32()))
        means.append(pa.array(np.divide(total_N, length_N, out=np.full(len(length_N), np.nan), where=length_N > 0), pa.float64()))
    return pa.chunked_array(counts, pa.int32()), pa.chunked_array(means, pa.float64())


@lru_cache(maxsize=256)
def _rows_of(file: Version) -> int:
    return len(_read_listed(file))


def _read_row(file: Version, row: int, prompts: bool) -> dict[str, Any]:
    try:
        group, first = _group_of(file, row)
        batch = _batch(file, group, (row - first) // ROWS_AT_ONCE, prompts)
        return batch.slice((row - first) % ROWS_AT_ONCE, 1).to_pylist()[0]
    except (OSError, IndexError, KeyError, StopIteration, pa.ArrowException) as error:
        raise UserError(f"{file.path}: cannot be read ({' '.join(str(error).split())[:200]})") from error


def _group_of(file: Version, row: int) -> tuple[int, int]:
    """The row group that holds a row, and the group's first row."""
    metadata = pq.read_metadata(file.path)
    first = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < first + rows:
            return group, first
        first += rows
    raise IndexError(f"no row {row}")


@lru_cache(maxsize=8)
def _batch(file: Version, group: int, number: int, prompts: bool) -> pa.RecordBatch:
    """Decoded only as far as is needed: token ids never, and no row behind the batch."""
    opened = pq.ParquetFile(file.path, memory_map=True)
    there = set(opened.schema_arrow.names)
    columns = [name for name in _IN_FULL if name in there]
    columns += [f"steps.list.element.{name}" for name in _STEP if prompts or name != "prompt"]
    batches = opened.iter_batches(batch_size=ROWS_AT_ONCE, row_groups=[group], columns=columns, use_threads=False)
    return next(batch for at, batch in enumerate(batches) if at == number)
