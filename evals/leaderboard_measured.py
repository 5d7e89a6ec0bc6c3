"""What the leaderboard is made of: the complete evaluations of a directory of runs, put together over training seeds."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..agents.verdicts import CORRECT
from ..envs.errors import UserError
from .compare import PROTOCOL, UNTRAINED
from .marks import Mark, mark_of
from .records import Decoding, Evaluation, Trained
from .samples import SAMPLES, read_table
from .statistics import FloatArray
from .store import STUDY, Kind, State, evaluations, scan

if TYPE_CHECKING:
    import pyarrow as pa

Settings = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""From a run's configuration to the keys of it that bear on the result, without the seed."""
BY_LAYER = "trainer.lr_by_layer"


@dataclass(frozen=True)
class Measured:
    """A complete evaluation: its manifest, and per item the share of right samples."""

    directory: str
    """Below the directory of runs."""
    manifest: Evaluation
    items: str
    """Hash of the ids of its items, in order."""
    rates: Mapping[Decoding, FloatArray]
    """Of the decodings that were measured."""
    settings: Mapping[str, Any]
    """Of the run that its patch comes from; empty where that is not among the runs."""
    mark: Mark

    @property
    def trained(self) -> Trained | None:
        """Where its one patch comes from; None for a base, and where that is not known."""
        return self.manifest.trained[0] if len(self.manifest.trained) == 1 else None

    @property
    def seed(self) -> int:
        return self.trained.seed if self.trained else 0

    @property
    def table(self) -> tuple[str, str, str, str]:
        """What it has in common with all that stands in the same table."""
        return self.manifest.domain, self.manifest.split, self.manifest.digest, self.items

    @cached_property
    def measured_as(self) -> tuple[object, ...]:
        """What two measurements of a table must agree in to be paired."""
        return (self.manifest.base, *(getattr(self.manifest, key) for key in PROTOCOL))

    @cached_property
    def identity(self) -> str:
        """What evaluations must agree in to be one entry."""
        seen = self.manifest
        recipe: object = [seen.protocol, seen.patches]
        if self.trained:
            recipe = [self.trained.model_dump(mode="json", exclude={"seed", "cost"}), dict(self.settings)]
        return json.dumps([self.table, self.measured_as, seen.source, seen.policy, recipe], sort_keys=True)

    @cached_property
    def training(self) -> object:
        """What a run must agree in with the full-parameter run that it is measured against."""
        settings = {key: value for key, value in self.settings.items() if key not in ("trainer.trained_set", "trainer.lr")}
        settings = {key: value for key, value in settings.items() if not key.startswith(BY_LAYER)}
        return self.trained and (self.trained.algorithm, self.trained.recipe, self.trained.split_digest), settings

    @property
    def has_rates_by_layer(self) -> bool:
        return any(key.startswith(f"{BY_LAYER}.") for key in self.settings)


@dataclass(frozen=True)
class Pool:
    """Evaluations that differ in their training seed alone."""

    by_seed: dict[int, Measured]

    @property
    def one(self) -> Measured:
        return next(iter(self.by_seed.values()))

    @property
    def is_base(self) -> bool:
        return not self.one.manifest.patches and self.one.manifest.base != UNTRAINED

    @property
    def is_full(self) -> bool:
        trained = self.one.trained
        return trained is not None and trained.trained_set == "full" and not self.one.has_rates_by_layer

    def has(self, decoding: Decoding) -> bool:
        return all(decoding in one.rates for one in self.by_seed.values())

    def rates(self, decoding: Decoding, seeds: Iterable[int] | None = None) -> FloatArray:
        """Rates (R, I), of the seeds named (None: all)."""
        return np.stack([self.by_seed[seed].rates[decoding] for seed in (sorted(self.by_seed) if seeds is None else seeds)])

    def full(self, fulls: Sequence[Pool]) -> Pool | None:
        """The full-parameter run that it is measured against: of the same algorithm and training, but for the trained set and the
        learning rate; of several the one with the same learning rate. None where there is none, or no telling which."""
        one = self.one
        if one.trained is None:
            return None
        alike = [other for other in fulls if other.one.measured_as == one.measured_as and other.one.training == one.training]
        if len(alike) > 1:
            alike = [other for other in alike if other.one.trained and other.one.trained.lr == one.trained.lr]
        return alike[0] if len(alike) == 1 and alike[0] is not self else None


def collect(root: Path, settings: Settings) -> tuple[list[Measured], dict[Path, str]]:
    """Every complete evaluation below `root`, and by directory why others there can not be read.

    Evaluations that chose a study's learning rate are passed over. Raises UserError where `root` is no directory that can be read.
    """
    entries = [entry for entry in scan(root) if not chose_a_rate(entry.directory)]
    recipes = {
        entry.manifest["patch_sha256"]: settings(entry.manifest["config"])
        for entry in entries
        if entry.kind is Kind.RUN and entry.state is State.COMPLETE
    }
    broken = {entry.directory: entry.problem for entry in entries if entry.state is State.BROKEN}
    found: list[Measured] = []
    for directory, manifest in evaluations(entries):
        try:
            items, rates = read_rates(directory, manifest)
        except UserError as error:
            broken[directory] = str(error)
            continue
        known = recipes.get(manifest.patches[0], {}) if len(manifest.patches) == 1 else {}
        found.append(Measured(str(directory.relative_to(root)), manifest, items, rates, known, mark_of(directory)))
    return found, broken


def chose_a_rate(evaluation: Path) -> bool:
    """Whether an evaluation chose a study's learning rate: it flatters the rate chosen."""
    return evaluation.name == "validation" and (evaluation.parent.parent.parent / STUDY).is_file()


def read_rates(directory: Path, manifest: Evaluation) -> tuple[str, dict[Decoding, FloatArray]]:
    """A hash of the items' ids, and the share of right samples per item, of the decodings that were measured.

    Raises UserError where the samples can not be read, or are not as many as the manifest says, in its order.
    """
    path = directory / SAMPLES
    table = read_table(path, ["decoding", "item", "sample", "verdict"])
    (kind, kinds), (item, names), (verdict, verdicts) = (_coded(table.column(name)) for name in ("decoding", "item", "verdict"))
    sample = table.column("sample").fill_null(-1).to_numpy()
    correct = verdict == verdicts.get(CORRECT, -1)
    rates, order = {}, None
    for decoding in Decoding:
        chosen = kind == kinds.get(decoding.value, -1)
        shape = manifest.items, manifest.scores(decoding).samples
        if (there := int(chosen.sum())) != shape[0] * shape[1]:
            raise UserError(f"{path}: {there} {decoding} records, the manifest says {shape[0]} x {shape[1]}; run this evaluation again")
        item_IS = item[chosen].reshape(shape)
        order = item_IS[:, 0] if order is None else order
        ordered = (item_IS == order[:, None]).all() and (sample[chosen].reshape(shape) == np.arange(shape[1])).all()
        if not ordered or len(np.unique(order)) != shape[0]:
            raise UserError(f"{path}: its {decoding} records are not every sample of every item once, in order; run this evaluation again")
        if decoding is not manifest.repeats:
            rates[decoding] = correct[chosen].reshape(shape).mean(axis=1)
    assert order is not None
    ids = list(names)
    return hashlib.sha256(json.dumps([ids[at] for at in order]).encode()).hexdigest(), rates


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int32], dict[str, int]]:
    """A column of text as numbers, and the number of each text in it."""
    coded = column.fill_null("").combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(), {name: code for code, name in enumerate(coded.dictionary.to_pylist())}


def pools(rows: Sequence[Measured]) -> list[Pool]:
    """Entries in the making, each seed once: what was measured again counts once, with the most samples; a run that was repeated is a
    pool of its own."""
    found: defaultdict[str, list[Pool]] = defaultdict(list)
    for one in rows:
        alike = found[one.identity]
        free = (pool for pool in alike if one.seed not in pool.by_seed or pool.by_seed[one.seed].manifest.patches == one.manifest.patches)
        if (pool := next(free, None)) is None:
            alike.append(pool := Pool({}))
        there = pool.by_seed.get(one.seed)
        if there is None or there.manifest.sampled.samples < one.manifest.sampled.samples:
            pool.by_seed[one.seed] = one
    return [pool for alike in found.values() for pool in alike]
