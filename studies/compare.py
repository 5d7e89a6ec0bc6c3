"""Runs side by side: what each policy solves on the same items, what it differs by, what it cost, and its learning curve.

Runs that differ in their seed alone are one policy. Differences are taken only between measurements of the same items under the same
protocol (protocol.py); for others the comparison holds the reason instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

from pydantic import JsonValue

from ..evals.protocol import UNTRAINED, Protocol, labels, protocol, training_settings, who
from ..evals.records import Decoding, Evaluation, Recorded
from ..evals.statistics import mcnemar
from .compare_records import AlgorithmDifference, Compared, ComparedPolicy, Comparison, ComparisonRow, Figures, Section, TrainedSeed
from .contribution import Contribution
from .figures import policy_figures
from .learning_curve import LearningCurve
from .pairing import SeedRates, contribution_of, corrected, minus, pair, pooled

FULL = "full"
TRAINED_SET, RATE = "trainer.trained_set", "trainer.lr"


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
    suite: str
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
class _PolicyDraft:
    """A policy in the making."""

    stem: str
    suite: str | None
    settings: Mapping[str, JsonValue]
    runs: Sequence[TrainedRun]
    measured: Sequence[tuple[int, Measurement]]
    """With the training seed; 0 where none is known."""


@dataclass(frozen=True)
class _Row:
    """One policy on one split under one protocol, before it is compared."""

    policy: ComparedPolicy
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

    def differing(self, other: _Row, decoding: Decoding = Decoding.SAMPLED) -> list[str]:
        """What the two were measured with differently, so that pairing them would compare more than the policies."""
        return self.protocols[decoding].differing(other.protocols[decoding])

    def rates(self, decoding: Decoding) -> SeedRates:
        by_seed = {seed: [measurement.recorded.outcomes(decoding).rate_I] for seed, measurement in self.by_seed.items()}
        return SeedRates(by_seed, bool(self.policy.runs))


def compare(entries: Sequence[TrainedRun | Measurement]) -> Comparison:
    """Pool runs into policies, and measure each against the base and the first, split by split.

    An evaluation of a run's patch counts as the run's, wherever it lies. What is given twice counts once.
    """
    drafts = _drafts(_gathered(entries))
    policies = [_policy(draft, *texts) for draft, *texts in zip(drafts, _names(drafts), _training_labels(drafts), strict=True)]
    measured = [row for draft, policy in zip(drafts, policies, strict=True) for row in _measured(draft, policy)]
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


def _drafts(entries: Sequence[TrainedRun | Measurement]) -> list[_PolicyDraft]:
    """Runs pooled over training seeds by what they agree in, evaluations without a run by their policy; in the order given."""

    def policy(entry: TrainedRun | Measurement) -> str:
        agree = (entry.suite, entry.settings) if isinstance(entry, TrainedRun) else (who(entry.manifest),)
        return json.dumps(agree, sort_keys=True)

    def seed(entry: TrainedRun | Measurement) -> object:
        return entry.seed if isinstance(entry, TrainedRun) else None

    def patch(entry: TrainedRun | Measurement) -> str | None:
        return entry.patch if isinstance(entry, TrainedRun) else "measured again"

    found = []
    for by_seed in pooled(entries, policy, seed, patch):
        members = [entry for there in by_seed.values() for entry in there]
        if runs := [entry for entry in members if isinstance(entry, TrainedRun)]:
            one = runs[0]
            stem = f"{one.settings['trainer.algorithm']} {one.settings['trainer.trained_set']}"
            measured = [(run.seed, measurement) for run in runs for measurement in run.measurements]
            distinct = [there[0] for there in by_seed.values() if isinstance(there[0], TrainedRun)]
            found.append(_PolicyDraft(stem, one.suite, one.settings, distinct, measured))
        else:
            measured = [(0, entry) for entry in members if isinstance(entry, Measurement)]
            seen = measured[0][1].manifest
            found.append(_PolicyDraft(seen.policy, None, {"model.path": seen.model}, [], measured))
    return found


def _names(drafts: Sequence[_PolicyDraft]) -> list[str]:
    """Algorithm and trained set; where that is not unique on a suite with the one or two settings that differ, else with a number."""
    names = []
    for draft in drafts:
        alike = [other for other in drafts if (other.stem, other.suite) == (draft.stem, draft.suite)]
        differ = sorted({key for other in alike for key in draft.settings if other.settings.get(key) != draft.settings[key]})
        settings = [tuple(json.dumps(other.settings.get(key)) for key in differ) for other in alike]
        if len(alike) == 1:
            names.append(draft.stem)
        elif 1 <= len(differ) <= 2 and len(set(settings)) == len(alike):
            short = {key: key.removesuffix(".path").rpartition(".")[2] for key in differ}
            names.append(" ".join([draft.stem, *(f"{short[key]}={draft.settings[key]}" for key in differ)]))
        else:
            names.append(f"{draft.stem} #{1 + alike.index(draft)}")
    return names


def _training_labels(drafts: Sequence[_PolicyDraft]) -> list[str]:
    """How the episodes that each was trained on differ from those of others of its suite."""
    found = {}
    for suite in {draft.suite for draft in drafts}:
        members = [at for at, draft in enumerate(drafts) if draft.suite == suite and draft.runs]
        found |= dict(zip(members, labels([[training_settings(drafts[at].settings)] for at in members]), strict=True))
    return [found.get(at, "") for at in range(len(drafts))]


def _policy(draft: _PolicyDraft, name: str, apart: str) -> ComparedPolicy:
    if not draft.runs:
        return ComparedPolicy(name=name)
    measured = next((run for run in draft.runs if run.patch), draft.runs[0])
    return ComparedPolicy(
        name=name,
        domain=draft.suite,
        model=str(draft.settings["model.path"]),
        algorithm=str(draft.settings["trainer.algorithm"]),
        trained_set=str(draft.settings["trainer.trained_set"]),
        settings=dict(draft.settings),
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
            for run in draft.runs
        ],
    )


def _measured(draft: _PolicyDraft, policy: ComparedPolicy) -> list[_Row]:
    """A row for each split and protocol. Of a seed measured twice in the same way the one with the most samples counts."""
    rows: list[_Row] = []
    for seed, measurement in draft.measured:
        one = _Row(policy, {seed: measurement})
        alike = (row for row in rows if (row.one.split, row.one.base) == (one.one.split, one.one.base) and not row.differing(one))
        if (row := next(alike, None)) is None:
            rows.append(one)
        elif seed not in row.by_seed or row.by_seed[seed].manifest.sampled.samples < measurement.manifest.sampled.samples:
            row.by_seed[seed] = measurement
    return rows


def _section(split: str, rows: list[_Row]) -> Section:
    apart = labels([row.protocols[Decoding.SAMPLED].levels for row in rows])
    rows = sorted((replace(row, apart=text) for row, text in zip(rows, apart, strict=True)), key=lambda row: not row.is_base)
    first = next((row for row in rows if not row.is_base), None)
    bases = [None if row.is_base else _base_of(row, rows) for row in rows]
    firsts = [None if row.is_base or row is first else first for row in rows]
    fulls = [_full_of(row, rows) for row in rows]
    found = {
        decoding: zip(
            _against(rows, bases, decoding), _against(rows, firsts, decoding), _contributions(rows, bases, fulls, decoding), strict=True
        )
        for decoding in Decoding
    }
    figures = {decoding: [_figures(row, decoding, *of) for row, of in zip(rows, found[decoding], strict=True)] for decoding in Decoding}
    return Section(
        domain=split.rpartition("/")[0] or split,
        split=split,
        rows=[_row(*of) for of in zip(rows, figures[Decoding.SAMPLED], figures[Decoding.GREEDY], strict=True)],
        algorithms=_algorithms(rows),
    )


def _algorithms(rows: Sequence[_Row]) -> list[AlgorithmDifference]:
    """Each two rows of one trained set that differ in the algorithm, the later minus the earlier."""

    def episodes(row: _Row) -> tuple[object, ...]:
        return row.policy.trained_set, row.policy.domain, row.policy.apart, row.one.base

    pairs = [
        (later, earlier)
        for earlier, later in combinations([row for row in rows if row.policy.runs], 2)
        if earlier.policy.algorithm != later.policy.algorithm and episodes(earlier) == episodes(later) and not later.differing(earlier)
    ]
    found = {}
    for decoding in Decoding:
        differences = [_compared(later, earlier, decoding) for later, earlier in pairs]
        p_holm = corrected([("algorithms", one.difference.p) if one.difference else None for one in differences])
        found[decoding] = [one.model_copy(update={"p_holm": p}) for one, p in zip(differences, p_holm, strict=True)]
    return [
        AlgorithmDifference(policy=later.label, trained_set=str(later.policy.trained_set), sampled=sampled, greedy=greedy)
        for (later, _), sampled, greedy in zip(pairs, found[Decoding.SAMPLED], found[Decoding.GREEDY], strict=True)
    ]


def _base_of(row: _Row, rows: Sequence[_Row]) -> _Row | None:
    """The row's own base, of several measurements the one that it is comparable with."""
    bases = [base for base in rows if base.is_base and base.one.base == row.one.base]
    return min(bases, key=lambda base: len(row.differing(base)), default=None)


def _full_of(row: _Row, rows: Sequence[_Row]) -> _Row | None:
    """The full-parameter row that was trained as this one, but for the trained set and the learning rate: of several the one at the same
    rate; None where there is none, or no telling which."""
    if not row.policy.runs or row.policy.trained_set == FULL:
        return None

    def training(one: _Row) -> dict[str, JsonValue]:
        return {key: value for key, value in one.policy.settings.items() if key not in (TRAINED_SET, RATE)}

    alike = [
        other for other in rows if other.policy.trained_set == FULL and other.one.base == row.one.base and training(other) == training(row)
    ]
    if len(alike) > 1:
        alike = [other for other in alike if other.policy.settings.get(RATE) == row.policy.settings.get(RATE)]
    return alike[0] if len(alike) == 1 else None


def _contributions(
    rows: Sequence[_Row], bases: Sequence[_Row | None], fulls: Sequence[_Row | None], decoding: Decoding
) -> list[Contribution | None]:
    """C(k) of each row that has a base and a full-parameter row measured in the same way."""
    return [
        contribution_of(base.rates(decoding), full.rates(decoding), row.rates(decoding))
        if base and full and not row.differing(base, decoding) and not row.differing(full, decoding)
        else None
        for row, base, full in zip(rows, bases, fulls, strict=True)
    ]


def _against(rows: Sequence[_Row], others: Sequence[_Row | None], decoding: Decoding) -> list[Compared | None]:
    """Each row minus its other one, with p corrected over those that are comparable with the same one."""
    found = [other and _compared(row, other, decoding) for row, other in zip(rows, others, strict=True)]
    differences = [(id(other), one.difference.p) if one and one.difference else None for one, other in zip(found, others, strict=True)]
    found = [one and one.model_copy(update={"p_holm": p}) for one, p in zip(found, corrected(differences), strict=True)]
    return found


def _compared(row: _Row, other: _Row, decoding: Decoding) -> Compared:
    if reasons := row.differing(other, decoding):
        return Compared(other=other.label, difference=None, not_comparable=reasons)
    mine, theirs = row.rates(decoding), other.rates(decoding)
    found = minus(mine, theirs)
    ((a_RI,), (b_RI,)) = pair(mine, theirs)
    exact = mcnemar(a_RI[0], b_RI[0]) if decoding is Decoding.GREEDY and found.seeds == 1 else None
    return Compared(other=other.label, difference=found.difference, mcnemar=exact, seeds=found.seeds)


def _figures(
    row: _Row, decoding: Decoding, to_base: Compared | None, to_first: Compared | None, contribution: Contribution | None
) -> Figures:
    scores = [measurement.manifest.scores(decoding) for measurement in row.by_seed.values()]
    return Figures(**policy_figures(row.rates(decoding), scores), to_base=to_base, to_first=to_first, contribution=contribution)


def _row(row: _Row, sampled: Figures, greedy: Figures) -> ComparisonRow:
    trained, seen = bool(row.policy.runs), row.one
    return ComparisonRow(
        policy=row.policy.name,
        trained_on=row.policy.domain,
        seeds=sorted(row.by_seed) if trained else [],
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
