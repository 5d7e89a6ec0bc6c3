"""Runs side by side: what each policy solves on the same items, what it differs by, what it cost, and its learning curve.

Runs that differ in their seed alone are one policy. Differences are taken only between measurements of the same items under the same
protocol; for others the comparison holds the reason instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..records import Decoding, Evaluation, Recorded
from ..statistics import Difference, FloatArray, Rate, holm, mcnemar, paired_difference, pass_rate
from .learning_curve import LearningCurve

UNTRAINED = "none"
"""Base fingerprint of policies without a model (`onelayer eval --baseline`)."""
PROTOCOL = {"digest": "items", "temperature": "temperature", "max_tokens": "max_tokens", "prompt": "prompt", "seed": "evaluation seed"}
"""What two measurements must agree in to be paired: key of the manifest, and its name for people."""


class TrainedSeed(BaseModel):
    """One run of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    seed: int = Field(description="training seed")
    finished: bool = Field(description="whether the run is complete; false: it still goes on, or was stopped")
    steps: int = Field(description="steps that the run is to take")
    seconds: float = Field(description="of the whole run where it is finished, else of its rollouts and updates so far")
    curve: LearningCurve


class Policy(BaseModel):
    """Runs that differ in their seed alone, or what was evaluated without a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="algorithm and trained set, and what else tells it from others of its domain")
    domain: str | None = Field(default=None, description="suite it was trained on; null: no run is known")
    model: str | None = Field(default=None, description="the base: tiny, a directory or a hub name")
    algorithm: str | None = None
    trained_set: str | None = None
    settings: dict[str, JsonValue] = Field(default={}, description="the keys of the recipe that bear on the result, without the seed")
    parameters: int | None = Field(default=None, description="parameters that were trained; null until a run is finished")
    share: float | None = Field(default=None, description="of all parameters")
    runs: list[TrainedSeed] = []


class Compared(BaseModel):
    """A policy minus another on the same items, or why there is no such figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    other: str = Field(description="the policy it is compared with")
    difference: Difference | None = Field(description="paired by item, and by training seed where both have several")
    p_holm: float | None = Field(
        default=None, description="p corrected over the rows with the same other policy (Holm); null for a single row"
    )
    mcnemar: float | None = Field(
        default=None, description="exact McNemar p of greedy answers, not corrected; null: sampled, or over several training seeds"
    )
    seeds: int = Field(default=0, description="training seeds of each that the difference is over; one: its interval is over items only")
    not_comparable: list[str] = Field(default=[], description="what the two were measured with differently")


class Figures(BaseModel):
    """One row under one decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pass_rate: Rate = Field(description="pass@1")
    by_seed: list[float] = Field(description="pass@1 of each training seed")
    mean_tokens: float = Field(description="tokens of a response, mean")
    truncated: float = Field(description="share of responses that reached max_tokens")
    errors: int = Field(ge=0, description="samples lost to failing environments; they count as wrong")
    to_base: Compared | None = Field(description="minus the base; null for a base, and where none was measured")
    to_first: Compared | None = Field(description="minus the first policy given that is no base; null for itself and for a base")


class Row(BaseModel):
    """One policy on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = Field(description="name of the policy")
    trained_on: str | None = Field(description="domain of the policy, by which names are unique; null: no run is known")
    seeds: list[int] = Field(description="training seeds measured; empty where no run is known")
    directories: list[str] = Field(description="the evaluations")
    items: int
    digest: str = Field(description="SHA-256 of the items")
    base: str = Field(description="fingerprint of the base")
    temperature: float = Field(description="of the sampled replies")
    max_tokens: int = Field(description="most tokens of one reply")
    prompt: str = Field(description="template of the prompt")
    seed: int = Field(description="seed of the evaluation")
    samples: int = Field(description="samples of each item; the fewest of its evaluations")
    interval_over: Literal["items", "seeds and items"]
    sampled: Figures
    greedy: Figures

    def figures(self, decoding: Decoding) -> Figures:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class Section(BaseModel):
    """Everything measured on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str = Field(description="the split's suite")
    split: str
    rows: list[Row] = Field(description="bases, then the others as they were given")


class Comparison(BaseModel):
    """Everything that the terminal, compare.json and the page show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    level: float = Field(default=0.95, description="confidence level of every interval")
    policies: list[Policy] = Field(description="in the order given")
    sections: list[Section]

    @property
    def domains(self) -> list[str]:
        """Suites that anything was measured or trained on."""
        found = [section.domain for section in self.sections] + [policy.domain for policy in self.policies if policy.domain]
        return list(dict.fromkeys(found))


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

    @property
    def one(self) -> Evaluation:
        return next(iter(self.by_seed.values())).manifest

    @property
    def is_base(self) -> bool:
        return not self.policy.runs and not self.one.patches and self.one.base != UNTRAINED

    def rates(self, decoding: Decoding) -> dict[int, FloatArray]:
        return {seed: measurement.recorded.outcomes(decoding).rate_I for seed, measurement in self.by_seed.items()}


def compare(entries: Sequence[TrainedRun | Measurement]) -> Comparison:
    """Pool runs into policies, and measure each against the base and the first, split by split.

    An evaluation of a run's patch counts as the run's, wherever it lies. What is given twice counts once.
    """
    pools = _pools(_gathered(entries))
    policies = [_policy(pool, name) for pool, name in zip(pools, _names(pools), strict=True)]
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
            pool = pools.setdefault((found.policy, found.base, *found.patches), _Pool(found.policy, None, {}))
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
            names.append(" ".join([pool.stem, *(f"{key.rpartition('.')[2]}={pool.settings[key]}" for key in differ)]))
        else:
            names.append(f"{pool.stem} #{1 + alike.index(pool)}")
    return names


def _policy(pool: _Pool, name: str) -> Policy:
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
    rows: dict[tuple[object, ...], _Measured] = {}
    for seed, measurement in pool.measured:
        seen = measurement.manifest
        protocol = (seen.split, seen.base, *(getattr(seen, key) for key in PROTOCOL))
        rows.setdefault(protocol, _Measured(policy, {})).by_seed.setdefault(seed, measurement)
    return list(rows.values())


def _section(split: str, rows: list[_Measured]) -> Section:
    rows = sorted(rows, key=lambda row: not row.is_base)
    first = next((row for row in rows if not row.is_base), None)
    bases = [None if row.is_base else _base_of(row, rows) for row in rows]
    firsts = [None if row.is_base or row is first else first for row in rows]
    compared = {decoding: (_against(rows, bases, decoding), _against(rows, firsts, decoding)) for decoding in Decoding}
    found = [
        [_figures(row, decoding, *(column[at] for column in compared[decoding])) for decoding in Decoding] for at, row in enumerate(rows)
    ]
    return Section(
        domain=split.rpartition("/")[0] or split, split=split, rows=[_row(row, *both) for row, both in zip(rows, found, strict=True)]
    )


def _base_of(row: _Measured, rows: Sequence[_Measured]) -> _Measured | None:
    """The row's own base, of several measurements the one that it is comparable with."""
    bases = [base for base in rows if base.is_base and base.one.base == row.one.base]
    return min(bases, key=lambda base: len(_differing(row, base, Decoding.SAMPLED)), default=None)


def _differing(row: _Measured, other: _Measured, decoding: Decoding) -> list[str]:
    """What two rows were measured with differently, so that pairing them would compare more than the policies."""
    keys = PROTOCOL
    if UNTRAINED in (row.one.base, other.one.base):  # there is no model to prompt
        keys = {key: keys[key] for key in ("digest", "seed")}
    elif decoding is Decoding.GREEDY:
        keys = {key: name for key, name in keys.items() if key != "temperature"}
    return [name for key, name in keys.items() if getattr(row.one, key) != getattr(other.one, key)]


def _against(rows: Sequence[_Measured], others: Sequence[_Measured | None], decoding: Decoding) -> list[Compared | None]:
    """Each row minus its other one, with p corrected over those that are comparable."""
    found = [other and _compared(row, other, decoding) for row, other in zip(rows, others, strict=True)]
    tested = [(at, one.difference.p) for at, one in enumerate(found) if one and one.difference]
    if len(tested) > 1:
        for (at, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
            one = found[at]
            found[at] = one and one.model_copy(update={"p_holm": p})
    return found


def _compared(row: _Measured, other: _Measured, decoding: Decoding) -> Compared:
    if reasons := _differing(row, other, decoding):
        return Compared(other=other.policy.name, difference=None, not_comparable=reasons)
    mine, theirs = row.rates(decoding), other.rates(decoding)
    if row.policy.runs and other.policy.runs:
        a_RI, b_RI = _by_seed(mine, theirs)
    else:  # one of them has no training seed: it stands against every row of the other
        a_RI, b_RI = (np.stack(list(rates.values())) for rates in (mine, theirs))
        a_RI, b_RI = np.broadcast_arrays(a_RI, b_RI)
    exact = mcnemar(a_RI[0], b_RI[0]) if decoding is Decoding.GREEDY and len(a_RI) == 1 else None
    return Compared(other=other.policy.name, difference=paired_difference(a_RI, b_RI), mcnemar=exact, seeds=len(a_RI))


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
    trained = bool(row.policy.runs)
    return Row(
        policy=row.policy.name,
        trained_on=row.policy.domain,
        seeds=list(row.by_seed) if trained else [],
        directories=[str(measurement.directory) for measurement in row.by_seed.values()],
        items=row.one.items,
        base=row.one.base,
        **{key: getattr(row.one, key) for key in PROTOCOL},
        samples=min(measurement.manifest.sampled.samples for measurement in row.by_seed.values()),
        interval_over="seeds and items" if len(row.by_seed) > 1 else "items",
        sampled=sampled,
        greedy=greedy,
    )
