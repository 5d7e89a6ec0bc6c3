"""The records of an evaluation as its manifest has them: all that belong there, in order, with the keys and seeds of the protocol, and as
many right ones as the figures say.

Everything is counted before it is read, since a small parquet file can unfold to any size: rows by the file's footer, texts and tokens by
DuckDB, which reads a file in pieces and stops at a limit. Episodes are then read some at a time.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ...agents.verdicts import ERROR
from ...common.errors import UserError
from ...envs.items import Split
from ...evals.config import EvalConfig
from ...evals.evaluator import plan, summarise
from ...evals.records import Decoding, Source
from ...evals.replies import STATISTICS
from ...evals.samples import LARGEST_TABLE, SAMPLES, Sample, iter_samples, open_samples, read_columns
from .archive import Claim
from .refusal import Reason, Refused

TEXT_LIMIT = 2 << 30  # bytes of texts and tokens of one evaluation
BATCH_LIMIT = 48 << 20  # bytes that the records take which are in memory at a time, and that one may take
LARGEST_BATCH = 1024  # records that are in memory at a time
FOREIGN_ROWS = 1 << 19  # records of an evaluation that was made elsewhere
LOST_LIMIT = 0.05  # share of the samples that may be lost, as in training
COUNTING_MEMORY = "192MB"
STEP_BYTES, TOKEN_BYTES = 2048, 40  # that a step and a token take as Python objects, about


class StepFlags(NamedTuple):
    """What figures need of a step."""

    corrected: bool
    truncated: bool
    valid: bool


class RecordedSample(NamedTuple):
    """A sample without its episode: what figures are made of."""

    decoding: str
    item: str
    sample: int
    verdict: str
    reward: float
    answer: str | None
    tokens: int
    truncated: bool
    error: str | None
    steps: Sequence[StepFlags] = ()
    metrics: Sequence[tuple[str, float]] | None = None

    @property
    def name(self) -> str:
        return f"{self.item} {self.decoding} {self.sample}"


OUTCOME = tuple(name for name in RecordedSample._fields if name not in ("steps", "metrics"))
IDENTITY = ("key", "seed", "env_seed", "type")
REQUIRED = ("decoding", "item", "sample", "verdict", "reward", "key", "seed", "env_seed")
COUNTED = ("tokens", "truncated")
"""Known of every reply but those that were made elsewhere."""


@dataclass
class Records:
    """The records of a claim."""

    claim: Claim
    split: Split
    """The items that were played."""
    config: EvalConfig
    foreign: bool
    batch: int = 1
    """How many are read at a time: found by `outcomes`."""

    @property
    def path(self) -> Path:
        return self.claim.directory / SAMPLES

    def refuse(self, reason: Reason, detail: str) -> Refused:
        return Refused(self.claim.directory.name, reason, detail)

    def outcomes(self) -> list[RecordedSample]:
        """All records without their episodes, checked. Raises Refused."""
        columns = self._columns()
        found = [RecordedSample(*row) for row in zip(*(columns[name] for name in RecordedSample._fields), strict=True)]
        self._check_order(found)
        self._check_identities(found, zip(*(columns[name] for name in IDENTITY), strict=True))
        self._check_figures(found)
        self._check_lost(found)
        return found

    def batches(self) -> Iterator[list[Sample]]:
        """All records with their episodes, some at a time. Raises Refused."""
        with self._readable():
            yield from iter_samples(self.path, self.batch)

    def at(self, positions: Iterable[int]) -> list[Sample]:
        """Some of the records, by their numbers. Raises Refused."""
        wanted, first, found = set(positions), 0, list[Sample]()
        for batch in self.batches() if wanted else ():
            found += [sample for number, sample in enumerate(batch, first) if number in wanted]
            first += len(batch)
        return found

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """What is wrong with the file is why the evaluation is refused."""
        try:
            yield
        except Refused:
            raise
        except UserError as error:
            raise self.refuse(Reason.BROKEN, str(error).replace(f"{self.path.parent}/", "")) from error

    def _columns(self) -> dict[str, list[Any]]:
        """Every column but the episodes, once it is known to be small enough."""
        manifest, limit = self.claim.manifest, FOREIGN_ROWS if self.foreign else LARGEST_TABLE
        with self._readable():
            with open_samples(self.path) as file:
                there = file.metadata.num_rows
            if (rows := max(there, manifest.items * (manifest.sampled.samples + 1))) > limit:
                raise self.refuse(Reason.BROKEN, f"{rows} samples, more than the {limit} that are read")
            total, largest = sizes(self.path)
            for size, most, what in ((total, TEXT_LIMIT, SAMPLES), (largest, BATCH_LIMIT, "a record of it")):
                if size > most:
                    raise self.refuse(Reason.BROKEN, f"{what} unfolds to {size} bytes, more than the {most} that are read")
            self.batch = max(1, min(LARGEST_BATCH, BATCH_LIMIT // max(1, largest)))
            columns = read_columns(self.path, [*OUTCOME, *IDENTITY]) | {"steps": self._turns()}
            columns |= {"metrics": self._metrics(there)}
        counted = () if manifest.source is Source.RESPONSES else COUNTED
        if gap := next((name for name in (*REQUIRED, *counted) if None in columns[name]), None):
            raise self.refuse(Reason.BROKEN, f"{SAMPLES} has a record without {gap}")
        return columns

    def _metrics(self, rows: int) -> list[list[tuple[str, float]] | None]:
        """The environment's own figures of each record. Records of earlier releases have none."""
        with open_samples(self.path) as file:
            if "metrics" not in file.schema_arrow.names:
                return [None] * rows
            found = file.read(columns=["metrics"]).column("metrics").to_pylist()
        if any(value is None or not math.isfinite(value) for pairs in found for _, value in pairs or ()):
            raise self.refuse(Reason.BROKEN, f"{SAMPLES} has a figure of the environment's that is not finite")
        return found

    def _turns(self) -> list[tuple[StepFlags, ...]]:
        """Of each record what figures need of its steps; equal ones are one object."""
        turns = {values: StepFlags(*values) for values in product((False, True), repeat=len(StepFlags._fields))}
        with open_samples(self.path) as file:
            batches = file.iter_batches(batch_size=LARGEST_BATCH, columns=[f"steps.list.element.{name}" for name in StepFlags._fields])
            rows = (row or [] for batch in batches for row in batch.column("steps").to_pylist())
            return [tuple(turns[tuple(bool(step.get(name)) for name in StepFlags._fields)] for step in row) for row in rows]

    def _check_order(self, found: list[RecordedSample]) -> None:
        """Each sample of each item, once, in the order of the plan: sampled item by item, then greedy."""
        at = {item.id: number for number, item in enumerate(self.split.items)}
        if foreign := next((one for one in found if one.item not in at), None):
            raise self.refuse(Reason.ITEMS, f"{foreign.item} is not an item of {self.split.name}")
        each = self.claim.manifest.sampled.samples
        width = {Decoding.SAMPLED.value: each, Decoding.GREEDY.value: 1}
        start = {Decoding.SAMPLED.value: 0, Decoding.GREEDY.value: len(at) * each}
        planned = [one for one in found if 0 <= one.sample < width.get(one.decoding, 0)]
        places_N = np.array([start[one.decoding] + at[one.item] * width[one.decoding] + one.sample for one in planned], np.int64)
        count_P = np.bincount(places_N, minlength=len(at) * (each + 1))
        if (count_P > 1).any():
            raise self.refuse(Reason.TWICE, planned[int((count_P[places_N] > 1).argmax())].name)
        if missing := int((count_P == 0).sum()):
            place = int((count_P == 0).argmax())
            decoding, number = (Decoding.SAMPLED, place) if place < len(at) * each else (Decoding.GREEDY, place - len(at) * each)
            item, sample = divmod(number, width[decoding.value])
            raise self.refuse(Reason.MISSING, f"{self.split.items[item].id} {decoding} {sample}; {missing} in all")
        if more := next((one for one in found if not 0 <= one.sample < width.get(one.decoding, 0)), None):
            raise self.refuse(Reason.COUNTS, f"{more.name} is one more than the manifest says")
        if (moved_N := places_N != np.arange(len(places_N))).any():
            raise self.refuse(Reason.ORDER, f"{planned[int(moved_N.argmax())].name} stands elsewhere")

    def _check_identities(self, found: list[RecordedSample], identities: Iterable[tuple[Any, ...]]) -> None:
        """Key, seeds and type of task are those of the plan."""
        manifest = self.claim.manifest
        wanted = plan(self.split, self.config, manifest.sampled.samples, manifest.protocol)
        for one, there, identity in zip(wanted, found, identities, strict=True):
            if identity != (one.key, one.play.seed, one.play.env_seed, one.type):
                raise self.refuse(Reason.SEED, f"{there.name} has key {identity[0]}, and protocol, item and index give {one.key}")

    def _check_figures(self, found: list[RecordedSample]) -> None:
        """The manifest tells what the records come to."""
        types = {item.id: str(item.meta["type"]) for item in self.split.items if "type" in item.meta}
        for decoding in Decoding:
            made = summarise(cast("Any", [one for one in found if one.decoding == decoding]), types)
            told = self.claim.manifest.scores(decoding)
            later = {name for name in STATISTICS if getattr(told, name) is None and not type(told).model_fields[name].is_required()}
            if differ := [name for name in type(made).model_fields if name not in later and getattr(made, name) != getattr(told, name)]:
                raise self.refuse(Reason.COUNTS, f"{decoding}.{differ[0]} is not that of the records")

    def _check_lost(self, found: list[RecordedSample]) -> None:
        """A lost sample counts as an error, and few are lost: nothing tells what the others would have been."""
        for decoding in Decoding:
            samples = [one for one in found if one.decoding == decoding]
            lost = [one for one in samples if one.error is not None]
            if other := next((one for one in lost if (one.verdict, one.reward) != (ERROR, 0.0)), None):
                raise self.refuse(Reason.GRADE, f"{other.name} was lost, and is {other.verdict}")
            if len(lost) > LOST_LIMIT * len(samples):
                raise self.refuse(Reason.LOST, f"{len(lost)} of {len(samples)} {decoding} ones, more than {LOST_LIMIT:.0%}; evaluate again")


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of texts and tokens in a file of records, and bytes that the largest record takes in memory, counted without holding them.

    Raises UserError where the file cannot be read, has other columns, or would take more memory than counting may.
    """
    import duckdb

    with open_samples(path) as file:
        later = [name for name in ("gold", "metrics") if name in file.schema_arrow.names]  # not in records of earlier releases
    named = ("key", "decoding", "item", "type", "verdict", "answer", "error", "ending", *(name for name in later if name == "gold"))
    texts = [f"coalesce(strlen({name}), 0)" for name in named]
    if "metrics" in later:
        texts.append("coalesce(list_sum(list_transform(map_keys(metrics), lambda name: 64 + strlen(name))), 0)")
    others = [
        f"count({name})" for name in ("sample", "seed", "env_seed", "reward", "tokens", "truncated")
    ]  # read, too: a page may be large
    step = " + ".join(f"coalesce(strlen(s.{name}), 0)" for name in ("observation", "prompt", "response", "action"))

    def record(of_step: int, of_token: int) -> str:
        steps = f"list_transform(steps, lambda s: {of_step} + {step} + {of_token} * coalesce(len(s.token_ids), 0))"
        return f"{' + '.join(texts)} + coalesce(list_sum({steps}), 0)"

    figures = [f"sum({record(64, 4)})", f"max({record(STEP_BYTES, TOKEN_BYTES)})", *others]
    query = f"select {', '.join(figures)} from read_parquet(?, hive_partitioning = false)"
    settings: dict[str, Any] = {"memory_limit": COUNTING_MEMORY, "threads": 1, "temp_directory": ""}
    try:
        with duckdb.connect(config=settings) as connection:
            row = connection.execute(query, [glob.escape(str(path))]).fetchone()
    except duckdb.Error as error:
        raise UserError(f"{path}: cannot be read as records ({' '.join(str(error).split())[:80]})") from error
    return (int(row[0] or 0), int(row[1] or 0)) if row else (0, 0)
