"""Runs side by side: what each policy solves on the same items, what it differs by, what it cost, and its learning curve.

Runs that differ in their seed alone are one policy. Differences are taken only between measurements of the same items under the same
protocol (protocol.py); for others the comparison holds the reason instead.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from ..evals.protocol import UNTRAINED, Protocol, labels, protocol, training_settings, who
from ..evals.records import Decoding, Evaluation, Recorded
from ..evals.statistics import FloatArray, holm, mcnemar, paired_difference, pass_rate
from .compare_records import Compared, Comparison, Figures, Policy, Row, Section, TrainedSeed
from .learning_curve import LearningCurve


@dataclass(frozen=True)
class Measurement:
    """An evaluation and where it lies."""

    directory: Path
    recorded: Recorded

    @property
    def manifest(self) -> Evaluation:
        return self.recorded.manifest


@dataclass(frozen=True)
class TrainedRun:
    """A run's directory as it is handed in."""

    directory: Path
    domain: str
    """Suite that it trained on."""
    settings: Mapping[str, JsonValue]
    """Dotted keys of its recipe that bear on the result, without the seed: runs that agree in them are one policy."""
    seed: int
    steps: int
    curve: LearningCurve
    patch: str | None = None
    """SHA-256 of the patch it ended in; None: it is not finished."""
    parameters: int | None = None
    share: float | None = None
    seconds: float | None = None
    measurements: Sequence[Measurement] = ()


@dataclass(frozen=True)
class _Pool:
    """A policy in the making."""

    stem: str
    domain: str | None
    settings: Mapping[str, JsonValue]
    runs: list[TrainedRun] = field(default_factory=list)
    measured: list[tuple[int, Measurement]] = field(default_factory=list)
    """With the training seed; 0 where no run is known."""


@dataclass(frozen=True)
class _Measured:
    """One policy on one split under one protocol, before it is compared."""

    policy: Policy
    by_seed: dict[int, Measurement]
    apart: str = ""
    """What sets its protocol apart from others of its section."""

    @property
    def label(self) -> str:
        return f"{self.policy.name} ({self.apart})" if self.apart else self.policy.name

    @property
    def one(self) -> Evaluation:
        return next(iter(self.by_seed.values())).manifest

    @property
    def is_base(self) -> bool:
        return not self.policy.runs and not self.one.patches and self.one.base != UNTRAINED

    @cached_property
    def protocols(self) -> dict[Decoding, Protocol]:
        return {decoding: protocol(self.one, decoding) for decoding in Decoding}

    def differing(self, other: _Measured, decoding: Decoding = Decoding.SAMPLED) -> list[str]:
        """What the two were measured with differently, so that pairing them would compare more than the policies."""
        return self.protocols[decoding].differing(other.protocols[decoding])

    def rates(self, decoding: Decoding) -> dict[int, FloatArray]:
        return {seed: measurement.recorded.outcomes(decoding).rate_I for seed, measurement in self.by_seed.items()}


def compare(entries: Sequence[TrainedRun | Measurement]) -> Comparison:
    """Pool runs into policies, and measure each against the base and the first, split by split.

    An evaluation of a run's patch counts as the run's, wherever it lies. What is given twice counts once.
    """
    pools = _pools(_gathered(entries))
    policies = [_policy(pool, *texts) for pool, *texts in zip(pools, _names(pools), _training_labels(pools), strict=True)]
    measured = [row for pool, policy in zip(pools, policies, strict=True) for row in _measured(pool, policy)]
    splits = dict.fromkeys(row.one.split for row in measured)
    return Comparison(
        policies=policies, sections=[_section(split, [row for row in measured if row.one.split == split]) for split in splits]
    )


def _gathered(entries: Sequence[TrainedRun | Measurement]) -> list[TrainedRun | Measurement]:
    """Each directory once, and the evaluations of a run's patch with the run."""
    unique: dict[Path, TrainedRun | Measurement] = {}
    for entry in entries:
        unique.setdefault(entry.directory.resolve(), entry)
    entries = list(unique.values())
    runs = [entry for entry in entries if isinstance(entry, TrainedRun)]
    inside = {measurement.directory.resolve() for run in runs for measurement in run.measurements}
    loose = [entry for entry in entries if isinstance(entry, Measurement) and entry.directory.resolve() not in inside]
    owners: dict[str | None, Path] = {run.patch: run.directory for run in reversed(runs) if run.patch}
    gathered: list[TrainedRun | Measurement] = []
    for entry in entries:
        if isinstance(entry, TrainedRun):
            own = [found for found in loose if owners.get(_patch(found)) == entry.directory]
            gathered.append(replace(entry, measurements=[*entry.measurements, *own]))
        elif entry in loose and _patch(entry) not in owners:
            gathered.append(entry)
    return gathered


def _patch(measurement: Measurement) -> str | None:
    patches = measurement.manifest.patches
    return patches[0] if len(patches) == 1 else None


def _pools(entries: Sequence[TrainedRun | Measurement]) -> list[_Pool]:
    """Runs by what they agree in, each seed once: a run that was repeated tells nothing of other seeds. Evaluations by their policy."""
    pools: dict[object, _Pool] = {}
    repeated: Counter[object] = Counter()
    for entry in entries:
        if isinstance(entry, Measurement):
            found = entry.manifest
            pool = pools.setdefault(who(found), _Pool(found.policy, None, {"model.path": found.model}))
            pool.measured.append((0, entry))
            continue
        settings = json.dumps(entry.settings, sort_keys=True)
        again = repeated[entry.domain, settings, entry.seed]
        repeated[entry.domain, settings, entry.seed] += 1
        stem = f"{entry.settings['trainer.algorithm']} {entry.settings['trainer.trained_set']}"
        pool = pools.setdefault((entry.domain, settings, again), _Pool(stem, entry.domain, entry.settings))
        pool.runs.append(entry)
        pool.measured.extend((entry.seed, measurement) for measurement in entry.measurements)
    return list(pools.values())


def _names(pools: Sequence[_Pool]) -> list[str]:
    """Algorithm and trained set; where that is not unique in a domain with the one or two settings that differ, else with a number."""
    names = []
    for pool in pools:
        alike = [other for other in pools if (other.stem, other.domain) == (pool.stem, pool.domain)]
        differ = sorted({key for other in alike for key in pool.settings if other.settings.get(key) != pool.settings[key]})
        settings = [tuple(json.dumps(other.settings.get(key)) for key in differ) for other in alike]
        if len(alike) == 1:
            names.append(pool.stem)
        elif 1 <= len(differ) <= 2 and len(set(settings)) == len(alike):
            short = {key: key.removesuffix(".path").rpartition(".")[2] for key in differ}
            names.append(" ".join([pool.stem, *(f"{short[key]}={pool.settings[key]}" for key in differ)]))
        else:
            names.append(f"{pool.stem} #{1 + alike.index(pool)}")
    return names


def _training_labels(pools: Sequence[_Pool]) -> list[str]:
    """How the episodes that each was trained on differ from those of others of its domain."""
    found = {}
    for domain in {pool.domain for pool in pools}:
        members = [at for at, pool in enumerate(pools) if pool.domain == domain and pool.runs]
        found |= dict(zip(members, labels([[training_settings(pools[at].settings)] for at in members]), strict=True))
    return [found.get(at, "") for at in range(len(pools))]


def _policy(pool: _Pool, name: str, apart: str) -> Policy:
    if not pool.runs:
        return Policy(name=name)
    measured = next((run for run in pool.runs if run.patch), pool.runs[0])
    return Policy(
        name=name,
        domain=pool.domain,
        model=str(pool.settings["model.path"]),
        algorithm=str(pool.settings["trainer.algorithm"]),
        trained_set=str(pool.settings["trainer.trained_set"]),
        settings=dict(pool.settings),
        apart=apart,
        parameters=measured.parameters,
        share=measured.share,
        runs=[
            TrainedSeed(
                directory=str(run.directory),
                seed=run.seed,
                finished=run.patch is not None,
                steps=run.steps,
                seconds=run.curve.seconds if run.seconds is None else run.seconds,
                curve=run.curve,
            )
            for run in pool.runs
        ],
    )


def _measured(pool: _Pool, policy: Policy) -> list[_Measured]:
    """A row for each split and protocol. Of a seed measured twice in the same way the first counts."""
    rows: list[_Measured] = []
    for seed, measurement in pool.measured:
        one = _Measured(policy, {seed: measurement})
        alike = (row for row in rows if (row.one.split, row.one.base) == (one.one.split, one.one.base) and not row.differing(one))
        if (row := next(alike, None)) is None:
            rows.append(one)
        else:
            row.by_seed.setdefault(seed, measurement)
    return rows


def _section(split: str, rows: list[_Measured]) -> Section:
    apart = labels([row.protocols[Decoding.SAMPLED].levels for row in rows])
    rows = sorted((replace(row, apart=text) for row, text in zip(rows, apart, strict=True)), key=lambda row: not row.is_base)
    first = next((row for row in rows if not row.is_base), None)
    bases = [None if row.is_base else _base_of(row, rows) for row in rows]
    firsts = [None if row.is_base or row is first else first for row in rows]
    compared = {decoding: (_against(rows, bases, decoding), _against(rows, firsts, decoding)) for decoding in Decoding}
    found = [
        [_figures(row, decoding, *(column[at] for column in compared[decoding])) for decoding in Decoding] for at, row in enumerate(rows)
    ]
    return Section(
        domain=split.rpartition("/")[0] or split,
        split=split,
        rows=[_row(row, *both) for row, both in zip(rows, found, strict=True)],
    )


def _base_of(row: _Measured, rows: Sequence[_Measured]) -> _Measured | None:
    """The row's own base, of several measurements the one that it is comparable with."""
    bases = [base for base in rows if base.is_base and base.one.base == row.one.base]
    return min(bases, key=lambda base: len(row.differing(base)), default=None)


def _against(rows: Sequence[_Measured], others: Sequence[_Measured | None], decoding: Decoding) -> list[Compared | None]:
    """Each row minus its other one, with p corrected over those that are comparable with the same one."""
    found = [other and _compared(row, other, decoding) for row, other in zip(rows, others, strict=True)]
    families: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for at, (one, other) in enumerate(zip(found, others, strict=True)):
        if one and one.difference:
            families[id(other)][at] = one.difference.p
    for family in families.values():
        if len(family) > 1:
            for at, p in zip(family, holm(list(family.values())), strict=True):
                one = found[at]
                found[at] = one and one.model_copy(update={"p_holm": p})
    return found


def _compared(row: _Measured, other: _Measured, decoding: Decoding) -> Compared:
    if reasons := row.differing(other, decoding):
        return Compared(other=other.label, difference=None, not_comparable=reasons)
    mine, theirs = row.rates(decoding), other.rates(decoding)
    if row.policy.runs and other.policy.runs:
        a_RI, b_RI = _by_seed(mine, theirs)
    else:  # one of them has no training seed: it stands against every row of the other
        a_RI, b_RI = (np.stack(list(rates.values())) for rates in (mine, theirs))
        a_RI, b_RI = np.broadcast_arrays(a_RI, b_RI)
    exact = mcnemar(a_RI[0], b_RI[0]) if decoding is Decoding.GREEDY and len(a_RI) == 1 else None
    return Compared(other=other.label, difference=paired_difference(a_RI, b_RI), mcnemar=exact, seeds=len(a_RI))


def _by_seed(a: dict[int, FloatArray], b: dict[int, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Rates by item, (R, I) each, rows paired by the training seeds that both have.

    Without a common seed the rows are paired in order: they are independent then, and any pairing gives an honest spread.
    """
    common = [seed for seed in a if seed in b]
    pairs = list(zip(common, common, strict=True)) or list(zip(a, b, strict=False))
    return np.stack([a[seed] for seed, _ in pairs]), np.stack([b[seed] for _, seed in pairs])


def _figures(row: _Measured, decoding: Decoding, to_base: Compared | None, to_first: Compared | None) -> Figures:
    rate_RI = np.stack(list(row.rates(decoding).values()))
    scores = [measurement.manifest.scores(decoding) for measurement in row.by_seed.values()]
    return Figures(
        pass_rate=pass_rate(rate_RI),
        by_seed=rate_RI.mean(axis=1).tolist(),
        mean_tokens=float(np.mean([score.mean_tokens for score in scores])),
        truncated=float(np.mean([score.truncated for score in scores])),
        errors=sum(score.errors for score in scores),
        to_base=to_base,
        to_first=to_first,
    )


def _row(row: _Measured, sampled: Figures, greedy: Figures) -> Row:
    trained, seen = bool(row.policy.runs), row.one
    return Row(
        policy=row.policy.name,
        trained_on=row.policy.domain,
        seeds=list(row.by_seed) if trained else [],
        apart=row.apart,
        directories=[str(measurement.directory) for measurement in row.by_seed.values()],
        items=seen.items,
        skipped=len(seen.skipped),
        digest=seen.digest,
        base=seen.base,
        temperature=seen.temperature,
        max_tokens=seen.max_tokens,
        prompt=seen.prompt,
        seed=seen.seed,
        protocol=row.protocols[Decoding.SAMPLED].hash,
        settings=dict(row.protocols[Decoding.SAMPLED].settings),
        samples=min(measurement.manifest.sampled.samples for measurement in row.by_seed.values()),
        interval_over="seeds and items" if len(row.by_seed) > 1 else "items",
        sampled=sampled,
        greedy=greedy,
    )
