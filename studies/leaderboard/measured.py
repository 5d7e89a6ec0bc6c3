"""What the leaderboard is made of: the complete evaluations of a directory of runs, put together over training seeds."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...agents.verdicts import CORRECT
from ...common.errors import UserError
from ...evals.protocol import UNTRAINED, Protocol, fingerprint, protocol, who
from ...evals.records import Decoding, Evaluation, Source, Trained
from ...evals.replies import ReplyStatistics, pooled_statistics
from ...evals.samples import SAMPLES, open_samples
from ...evals.statistics import FloatArray
from ...trainers.config import settings_of
from ..pairing import SeedRates, pooled
from ..store import PATCH, RUN, STUDY, DirectoryKind, State, StoreEntry, evaluations, scan, submission_of
from .marks import Mark, mark_of, sha256

if TYPE_CHECKING:
    import pyarrow as pa

BY_LAYER = "trainer.lr_by_layer"


@dataclass(frozen=True)
class Evaluated:
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
    def table(self) -> tuple[str, str, str, str]:
        """What it has in common with all that stands in the same table."""
        return self.manifest.domain, self.manifest.split, self.manifest.digest, self.items

    @cached_property
    def protocols(self) -> dict[Decoding, Protocol]:
        return {decoding: protocol(self.manifest, decoding) for decoding in Decoding}

    @property
    def measured_as(self) -> tuple[str, str]:
        """What two measurements of a table agree in that are pooled or paired: base and protocol."""
        return self.manifest.base, self.protocols[Decoding.SAMPLED].hash

    @cached_property
    def identity(self) -> list[object]:
        """What evaluations must agree in to be one entry."""
        recipe: object = who(self.manifest)
        if self.trained:
            recipe = [self.trained.model_dump(mode="json", exclude={"seed", "cost"}), dict(self.settings)]
        return [self.table, self.measured_as, self.manifest.source, self.manifest.policy, recipe]


@dataclass(frozen=True)
class Average:
    """A mean over suites that has a table of its own."""

    name: str
    """As math: the table's domain."""
    text: str
    """What it is of."""
    weights: Mapping[str, float]
    """By split; they add up to 1."""


@dataclass(frozen=True)
class TableRow:
    """A policy on the items of one table: an evaluation, or those on the suites of an average, in its order."""

    parts: tuple[Evaluated, ...]
    average: Average | None = None

    @property
    def manifest(self) -> Evaluation:
        """Of any of its evaluations: all are of the same policy."""
        return self.parts[0].manifest

    @property
    def trained(self) -> Trained | None:
        """Where its one patch comes from; None for a base, and where that is not known."""
        return self.parts[0].trained

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the run that its patch comes from."""
        return self.parts[0].settings

    @property
    def seed(self) -> int:
        return self.trained.seed if self.trained else 0

    @property
    def samples(self) -> int:
        return min(part.manifest.sampled.samples for part in self.parts)

    @cached_property
    def table(self) -> tuple[object, ...]:
        average = self.average and (self.average.name, self.average.text, *self.average.weights.values())
        return average, *(part.table for part in self.parts)

    @property
    def base(self) -> str:
        """Fingerprint of its base."""
        return self.parts[0].manifest.base

    def protocol(self, decoding: Decoding) -> str:
        """SHA-256 of how it was measured; of an average of how its parts were."""
        hashes = [part.protocols[decoding].hash for part in self.parts]
        return fingerprint(*hashes) if self.average else hashes[0]

    def differing(self, other: TableRow, decoding: Decoding = Decoding.SAMPLED) -> list[str]:
        """What the two, of one table, were measured with differently: empty where they may be compared."""
        pairs = zip(self.parts, other.parts, strict=True)
        return list(dict.fromkeys(name for a, b in pairs for name in a.protocols[decoding].differing(b.protocols[decoding])))

    @cached_property
    def identity(self) -> str:
        return json.dumps([part.identity for part in self.parts], sort_keys=True)

    @property
    def tokenizers(self) -> tuple[str, ...]:
        """How its base read the prompts of each part."""
        return tuple(part.protocols[Decoding.SAMPLED].tokenizer for part in self.parts)

    @cached_property
    def training(self) -> object:
        """What a run must agree in with the full-parameter run that it is measured against."""
        settings = {key: value for key, value in self.settings.items() if key not in ("trainer.trained_set", "trainer.lr")}
        settings = {key: value for key, value in settings.items() if not key.startswith(BY_LAYER)}
        return self.trained and (self.trained.algorithm, self.trained.recipe, self.trained.split_digest), settings

    @property
    def has_rates_by_layer(self) -> bool:
        return any(key.startswith(f"{BY_LAYER}.") for key in self.settings)

    def has(self, decoding: Decoding) -> bool:
        return all(decoding in part.rates for part in self.parts)

    @property
    def weights(self) -> list[float]:
        """Of its parts; they add up to 1."""
        return list(self.average.weights.values()) if self.average else [1.0]

    def rates(self, decoding: Decoding) -> list[FloatArray]:
        """For each task its rates (I,), scaled so that the plain mean over tasks is the weighted one."""
        return [len(self.parts) * weight * part.rates[decoding] for weight, part in zip(self.weights, self.parts, strict=True)]


@dataclass(frozen=True)
class MeasuredPolicy:
    """Evaluations that differ in their training seed alone."""

    by_seed: dict[int, TableRow]

    @property
    def one(self) -> TableRow:
        return next(iter(self.by_seed.values()))

    @property
    def is_base(self) -> bool:
        return not self.one.manifest.patches and self.one.manifest.base != UNTRAINED

    @property
    def is_full(self) -> bool:
        trained = self.one.trained
        return trained is not None and trained.trained_set == "full" and not self.one.has_rates_by_layer

    def has(self, decoding: Decoding) -> bool:
        return all(one.has(decoding) for one in self.by_seed.values())

    def rates(self, decoding: Decoding) -> SeedRates:
        return SeedRates({seed: one.rates(decoding) for seed, one in self.by_seed.items()}, self.one.trained is not None)

    def replies(self, decoding: Decoding) -> ReplyStatistics:
        """The statistics of its replies, the mean over the runs."""
        rows = list(self.by_seed.values())
        scores = [part.manifest.scores(decoding) for row in rows for part in row.parts]
        return ReplyStatistics(**pooled_statistics(scores, [weight for row in rows for weight in row.weights]))

    def base_of(self, bases: Sequence[MeasuredPolicy]) -> MeasuredPolicy | None:
        """Its own base, of several measurements the one that it is comparable with; None for a base, and where it was not measured."""
        own = [base for base in bases if base.one.base == self.one.base]
        return None if self in own else min(own, key=lambda base: len(base.one.differing(self.one)), default=None)

    def full_of(self, fulls: Sequence[MeasuredPolicy], decoding: Decoding) -> tuple[MeasuredPolicy | None, list[str]]:
        """The full-parameter run that it is measured against: of the same algorithm and training, but for the trained set and the
        learning rate; of several the one with the same learning rate. None where there is none, or no telling which.

        With what all of these were measured with differently, where that is why there is none.
        """
        one = self.one
        if one.trained is None:
            return None, []
        trained_alike = [other for other in fulls if other.one.base == one.base and other.one.training == one.training]
        differing = [other.one.differing(one, decoding) for other in trained_alike]
        alike = [other for other, names in zip(trained_alike, differing, strict=True) if not names]
        if len(alike) > 1:
            alike = [other for other in alike if other.one.trained and other.one.trained.lr == one.trained.lr]
        if len(alike) == 1:
            return (None if alike[0] is self else alike[0]), []
        return None, min(differing, key=len, default=[])


def collect(root: Path) -> tuple[list[Evaluated], list[Average], dict[Path, str]]:
    """Every complete evaluation below `root`, the averages that were asked for, and by directory why others there cannot be read.

    The settings of a patch are those of the run that made it, by its hash; a submission brings those of its own runs, and tells nothing of
    the patches of others. Evaluations that chose a study's learning rate are passed over, and those of the best point of a
    held-out curve: entries are what runs ended in. Raises UserError where `root` is no directory
    that can be read.
    """
    entries = [entry for entry in scan(root) if not chose_a_rate(entry.directory)]
    broken = {entry.directory: entry.problem for entry in entries if entry.state is State.BROKEN}
    recipes: dict[tuple[Path | None, str], Mapping[str, Any]] = {}
    for entry in entries:
        if entry.kind is DirectoryKind.RUN and entry.state is State.COMPLETE:
            patch = entry.manifest["patch_sha256"]
            if sha256(entry.directory / PATCH) != patch:
                broken[entry.directory] = f"{entry.directory / PATCH}: not the patch that {RUN} names; bring it back, or train again"
                continue
            recipes.setdefault((submission_of(entry.directory), patch), settings_of(entry.manifest["config"]))
    found: list[Evaluated] = []
    for directory, manifest in evaluations(entries):
        if manifest.is_best_point:
            continue
        try:
            items, rates = read_rates(directory, manifest)
        except UserError as error:
            broken[directory] = str(error)
            continue
        known = recipes.get((submission_of(directory), manifest.patches[0]), {}) if len(manifest.patches) == 1 else {}
        found.append(Evaluated(str(directory.relative_to(root)), manifest, items, rates, known, mark_of(directory)))
    splits = {root / one.directory: one.manifest.split for one in found}
    groups = [entry for entry in entries if entry.kind is DirectoryKind.GROUP and entry.state is State.COMPLETE]
    return found, [average for entry in groups for average in _averages(entry, splits)], broken


def _averages(group: StoreEntry, splits: Mapping[Path, str]) -> list[Average]:
    """The means that a `suites.json` tells of, over its groups too; without those of which a suite cannot be read."""
    split_of = {member["suite"]: splits.get(group.directory / member["directory"]) for member in group.manifest["suites"]}
    by_group = {name: [split_of.get(suite) for suite in one["suites"]] for name, one in group.manifest["groups"].items()}
    known = {name: [split for split in members if split] for name, members in by_group.items() if all(members)}
    found = [average(name, members) for name, members in known.items() if len(members) > 1]
    if len(known) == len(by_group) > 1:
        weights: defaultdict[str, float] = defaultdict(float)
        for members in known.values():
            for split in members:
                weights[split] += 1 / len(known) / len(members)
        found.append(Average("all", f"overall: average of {', '.join(known)}", weights))
    return found


def average(name: str, splits: Sequence[str]) -> Average:
    """The plain mean over splits."""
    short = [re.sub("^hub:[^/]*/", "", split).removesuffix("/test") for split in splits]
    return Average(name, f"average of {', '.join(short)}", dict.fromkeys(splits, 1 / len(splits)))


def averaged(found: Sequence[Evaluated], averages: Iterable[Average]) -> list[TableRow]:
    """Every policy on every average of which it has all suites, measured with the same seed, temperature and token limit.

    Of a suite that was measured on several sets of items the set counts that most evaluations are of, then the one with the most items;
    of several evaluations of a policy on the same items the one whose protocol most evaluations have, then the one with the most samples.
    """
    sets = Counter(one.table for one in found)
    usual = {one.manifest.split: one.table for one in sorted(found, key=lambda one: (sets[one.table], one.manifest.items))}
    found = [one for one in found if usual[one.manifest.split] == one.table]
    protocols = Counter((one.table, one.protocols[Decoding.SAMPLED].hash) for one in found)
    best: dict[tuple[object, ...], dict[str, Evaluated]] = defaultdict(dict)
    for one in sorted(found, key=lambda one: (protocols[one.table, one.protocols[Decoding.SAMPLED].hash], one.manifest.sampled.samples)):
        best[_sampled_as(one.manifest)][one.manifest.split] = one
    unique = {(one.name, one.text, *one.weights.items()): one for one in averages}.values()
    rows = []
    for key, there in best.items():
        by_split = best.get(key[:-1], {}) | there  # tasks of the harness have no settings of ours
        complete = (one for one in unique if one.weights.keys() & there.keys() and one.weights.keys() <= by_split.keys())
        rows += [TableRow(tuple(by_split[split] for split in one.weights), one) for one in complete]
    return rows


def _sampled_as(seen: Evaluation) -> tuple[object, ...]:
    """The very policy, and how it was sampled on any suite."""
    policy = (seen.policy, seen.model if seen.base == UNTRAINED else seen.base, *seen.patches, seen.seed)
    return policy if seen.source is Source.LM_EVAL else (*policy, (seen.source, seen.temperature, seen.max_tokens))


def chose_a_rate(evaluation: Path) -> bool:
    """Whether an evaluation chose a study's learning rate: it flatters the rate chosen."""
    return evaluation.name == "validation" and (evaluation.parent.parent.parent / STUDY).is_file()


def read_rates(directory: Path, manifest: Evaluation) -> tuple[str, dict[Decoding, FloatArray]]:
    """A hash of the items' ids, and the share of right samples per item, of the decodings that were measured.

    Raises UserError where the samples cannot be read, or are not as many as the manifest says, in its order.
    """
    path = directory / SAMPLES
    columns = ["decoding", "item", "sample", "verdict"]
    with open_samples(path, manifest.samples_sha256, columns, coded=True) as file:
        table = file.read(columns=columns)
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
    """A column of coded text as numbers, and the number of each text in it; what is missing counts as the empty text."""
    coded = column.unify_dictionaries().combine_chunks()
    names = [*coded.dictionary.to_pylist(), ""]
    return coded.indices.fill_null(len(names) - 1).to_numpy(), {name: code for code, name in enumerate(names)}


def policies_of(rows: Sequence[TableRow]) -> list[MeasuredPolicy]:
    """Entries in the making: what differs in its training seed alone is one. What was measured again counts once, with the most samples."""
    found = pooled(rows, lambda one: (one.identity, one.tokenizers), lambda one: one.seed, lambda one: tuple(one.manifest.patches))
    return [MeasuredPolicy({there[0].seed: max(there, key=lambda one: one.samples) for there in by_seed.values()}) for by_seed in found]
