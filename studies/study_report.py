"""The report of a study as data: what was compared, under which protocol, and every figure that a table or page may show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from ..agents.weight_change import WeightChange
from ..common.errors import UserError, first_problem
from ..common.reading import read_bytes
from ..envs.items import size_text
from ..evals.protocol import protocol
from ..evals.records import Decoding, Recorded, cut_off_warning
from ..evals.replies import mean_of
from ..evals.statistics import Difference, Rate
from .contribution import Contribution
from .figures import PolicyFigures, policy_figures
from .held_out_curve import Curve, CurvePoint, held_out_curves
from .limits import ArmLimits, AtLimit, at_limits, length_warning
from .pairing import SeedRates, contribution_of, corrected, minus
from .store import REPORT
from .study_findings import Findings, StudyAgreement, findings

LARGEST_REPORT = 1 << 28
"""Bytes: it holds the training curves of every arm."""


class LearningRateTrial(BaseModel):
    """A learning rate that was tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(description="peak learning rate")
    score: float = Field(description="pass@1 at the sampling temperature on the validation split")


class Training(BaseModel):
    """How an arm was trained; base has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: list[int] = Field(min_length=1, description="training seeds, one run each")
    lr: float = Field(description="learning rate of the reported runs")
    lr_tried: list[LearningRateTrial] = Field(description="the grid with its validation scores; empty where the rate was fixed")
    parameters: int = Field(ge=1, description="parameters that were trained")
    share: float = Field(gt=0, le=1, description="of all parameters")
    seconds: float = Field(ge=0, description="training time of the reported runs, all seeds together")
    tokens: int | None = Field(default=None, description="tokens that they sampled, all seeds together; null: of an earlier release")
    flops: float | None = Field(default=None, description="their operations, estimated, all seeds together; null as tokens")
    weight_changes: list[WeightChange] = Field(
        default=[], description="how far the weights moved, by layer: means over the seeds; empty where that was not kept"
    )
    no_signal: list[int] = Field(default=[], description="training seeds in which no group ever had an advantage: nothing was learned")


class ArmFigures(PolicyFigures):
    """One arm under one decoding, and what it differs by."""

    to_base: Difference | None = Field(default=None, description="this arm minus base, paired; null for base")
    contribution: Contribution | None = Field(
        default=None, description="C(k), with the differences to base and to full; null for base and full"
    )
    p_holm: float | None = Field(
        default=None, description="p of the difference to full, corrected over the arms other than base and full (Holm)"
    )


class BestFigures(BaseModel):
    """An arm at the best points of its held-out curves, under one decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pass_rate: Rate = Field(description="pass@1")
    to_base: Difference = Field(description="minus base, paired")
    to_last: Difference = Field(description="minus what the runs ended in, paired")
    contribution: Contribution | None = Field(default=None, description="C(k) with full at its best points, too; null for full")


class BestPoints(BaseModel):
    """An arm at the points of the held-out curves that were best on the panel, measured on the study's items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: list[int] = Field(description="the best step of each training seed")
    sampled: BestFigures
    greedy: BestFigures

    def measured(self, decoding: Decoding) -> BestFigures:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class Arm(BaseModel):
    """One row of the comparison."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="base, full or another trained set")
    training: Training | None = Field(default=None, description="null for base")
    sampled: ArmFigures
    greedy: ArmFigures
    majority: Rate | None = Field(
        default=None, description="majority vote of StudyReport.majority samples, for base where its answers are known"
    )
    curves: list[Curve] = Field(default=[], description="training curves, one per seed")
    held_out: list[CurvePoint] = Field(default=[], description="the held-out curve over the seeds; empty without eval.every")
    best: BestPoints | None = Field(default=None, description="at the best points of the curve; null without eval.keep_best")

    def measured(self, decoding: Decoding) -> ArmFigures:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class StudyReport(BaseModel):
    """Everything that the terminal, report.json and the page show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    recipe: str = Field(description="name of the recipe")
    model: str = Field(description="the base: tiny, a directory or a hub name")
    base: str = Field(description="fingerprint of the base")
    parameters: int = Field(ge=1, description="parameters of the base")
    algorithm: str = Field(description="how rewards became updates")
    split: str = Field(description="split that every figure was measured on")
    digest: str = Field(description="SHA-256 of its items")
    items: int = Field(description="its items")
    skipped: int = Field(default=0, ge=0, description="what stands among them in the data and cannot be graded")
    validation: str | None = Field(description="split that chose the learning rates; null where all were fixed")
    samples: int = Field(description="samples of each item for trained policies")
    base_samples: int = Field(description="samples of each item for base")
    majority: int = Field(description="samples in the base's majority vote")
    temperature: float = Field(description="of the sampled replies")
    max_tokens: int = Field(description="most tokens of one reply")
    prompt: str = Field(description="template of the prompt")
    eval_seed: int = Field(description="seed of the evaluation")
    protocol: str = Field(default="", description="SHA-256 over all that the figures rest on besides the policies: every arm has the same")
    settings: dict[str, JsonValue] = Field(default={}, description="all that protocol is made of")
    level: float = Field(default=0.95, description="confidence level of every interval")
    interval_over: Literal["items", "seeds and items"] = Field(description="what the intervals of trained policies allow for")
    arms: list[Arm] = Field(description="base, full, then the other trained sets")
    findings: Findings | None = Field(default=None, description="what the figures come to; null in reports of earlier releases")
    agreements: list[StudyAgreement] = Field(default=[], description="how far the layers' profile agrees with those of other studies")
    versions: dict[str, str] = Field(description="what it was made with")
    seconds: float = Field(description="wall-clock seconds of the whole study")
    failed: list[str] = Field(default=[], description="runs that could not be done, and why; a set without all of its runs is left out")
    limits: list[AtLimit] = Field(
        default=[], description="the arms at several limits of tokens, from the same samples; empty without lower ones"
    )
    warnings: list[str] = Field(default=[], description="what a reader of the figures must know of them")

    @property
    def size_text(self) -> str:
        """How many items it is of, in words."""
        return size_text(self.items, self.skipped)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)


def read_report(directory: Path) -> StudyReport:
    """The report of a study's directory. Raises UserError where there is none, or it cannot be read."""
    path = directory / REPORT
    try:
        return StudyReport.model_validate_json(read_bytes(path, LARGEST_REPORT))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; run the same `onelayer study` again") from error
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; run the same `onelayer study` again") from error


@dataclass(frozen=True)
class ArmRecords:
    """What a study hands in for one arm: one evaluation per training seed (base: one) and the curves, in the order of the seeds."""

    name: str
    evaluations: Sequence[Recorded]
    training: Training | None = None
    curves: Sequence[Curve] = field(default_factory=list)
    at_limits: Mapping[int, Sequence[Recorded]] = field(default_factory=dict)
    """The evaluations at all limits of tokens, their own included, in the order of the seeds."""
    best: Mapping[int, tuple[int, Recorded]] = field(default_factory=dict)
    """By training seed the best step of its held-out curve, and its evaluation there; empty without `eval.keep_best`."""

    def rates(self, decoding: Decoding) -> SeedRates:
        seeds = self.training.seeds if self.training else [0]
        by_seed = {seed: [one.outcomes(decoding).rate_I] for seed, one in zip(seeds, self.evaluations, strict=True)}
        return SeedRates(by_seed, self.training is not None)

    @property
    def limits(self) -> ArmLimits:
        return ArmLimits(self.at_limits, self.training.seeds if self.training else None)

    def best_rates(self, decoding: Decoding) -> SeedRates:
        return SeedRates({seed: [one.outcomes(decoding).rate_I] for seed, (_, one) in self.best.items()}, True)


def build_report(
    arms: Sequence[ArmRecords],
    *,
    recipe: str,
    model: str,
    parameters: int,
    algorithm: str,
    versions: Mapping[str, str],
    seconds: float,
    validation: str | None = None,
    majority: int = 8,
    failed: Sequence[str] = (),
    one_turn: bool = False,
    training_tokens: int | None = None,
) -> StudyReport:
    """Compute every figure of the report from the records of its arms, which must hold `base` and `full`.

    majority: samples in the base's vote; fewer where base was sampled less. failed: runs that could not be done, and why. one_turn: whether
    episodes have one turn. training_tokens: most tokens of a reply in training; null: as in the evaluation.

    Raises UserError where arms were measured on different bases or under different protocols, ValueError where
    they have different training seeds: their differences would not be paired.
    """
    by_name = {arm.name: arm for arm in arms}
    if not {"base", "full"} <= by_name.keys() or len(by_name) != len(arms):
        raise ValueError(f"a report needs base and full and each arm once, got {[arm.name for arm in arms]}")
    base, full = by_name["base"], by_name["full"]
    reference = base.evaluations[0].manifest
    for arm in arms:
        _check_comparable(arm, base, full)
    trained = [arm for arm in arms if arm not in (base, full)]
    majority = min(majority, reference.sampled.samples)
    vote = base.evaluations[0].sampled.vote(majority)
    curves = held_out_curves({arm.name: arm.curves for arm in (full, *trained) if any(curve.held_out for curve in arm.curves)})
    measured = {decoding: _measure(base, full, trained, decoding) for decoding in Decoding}
    best = {decoding: _at_best(base, full, trained, decoding) for decoding in Decoding}
    warm = measured[Decoding.SAMPLED]
    gain_full = warm["full"].to_base
    assert gain_full
    return StudyReport(
        recipe=recipe,
        model=model,
        base=reference.base,
        parameters=parameters,
        algorithm=algorithm,
        split=reference.split,
        digest=reference.digest,
        items=reference.items,
        skipped=len(reference.skipped),
        validation=validation,
        samples=full.evaluations[0].manifest.sampled.samples,
        base_samples=reference.sampled.samples,
        majority=majority,
        temperature=reference.temperature,
        max_tokens=reference.max_tokens,
        prompt=reference.prompt,
        eval_seed=reference.seed,
        protocol=protocol(reference).hash,
        settings=dict(protocol(reference).settings),
        interval_over="items" if len(full.evaluations) == 1 else "seeds and items",
        arms=[
            Arm(
                name=arm.name,
                training=arm.training,
                sampled=measured[Decoding.SAMPLED][arm.name],
                greedy=measured[Decoding.GREEDY][arm.name],
                majority=vote if arm is base else None,
                curves=list(arm.curves),
                held_out=curves.get(arm.name, []),
                best=_best_points(arm, best) if arm.best else None,
            )
            for arm in (base, full, *trained)
        ],
        findings=findings(
            {arm.name: arm.rates(Decoding.SAMPLED) for arm in (base, full, *trained)},
            {arm.name: arm.rates(Decoding.GREEDY) for arm in (base, full, *trained)},
            {name: share for name, found in warm.items() if (share := found.contribution)},
            gain_full,
            items=base.evaluations[0].sampled.items,
            depth=reference.layers,
            told=f"On {size_text(reference.items, len(reference.skipped))} of {reference.split}, {model} with {algorithm}",
        ),
        versions=dict(versions),
        seconds=seconds,
        failed=list(failed),
        limits=at_limits(
            {arm.name: ArmLimits(arm.at_limits, arm.training.seeds if arm.training else None) for arm in (base, full, *trained)}
        ),
        warnings=[*failed, *(warning for arm in arms for warning in _warnings(arm, one_turn, training_tokens))],
    )


def _at_best(base: ArmRecords, full: ArmRecords, trained: Sequence[ArmRecords], decoding: Decoding) -> dict[str, BestFigures]:
    """Figures of the arms at the best points of their curves, against base, their own last points, and full at its best points."""
    there = [arm for arm in (full, *trained) if arm.best]
    untrained, rates = base.rates(decoding), {arm.name: arm.best_rates(decoding) for arm in there}
    return {
        arm.name: BestFigures(
            pass_rate=rates[arm.name].pass_rate,
            to_base=minus(rates[arm.name], untrained).difference,
            to_last=minus(rates[arm.name], arm.rates(decoding)).difference,
            contribution=contribution_of(untrained, rates["full"], rates[arm.name]) if arm is not full and full.best else None,
        )
        for arm in there
    }


def _best_points(arm: ArmRecords, figures: Mapping[Decoding, Mapping[str, BestFigures]]) -> BestPoints:
    sampled, greedy = (figures[decoding][arm.name] for decoding in Decoding)
    return BestPoints(steps=[step for step, _ in arm.best.values()], sampled=sampled, greedy=greedy)


def _warnings(arm: ArmRecords, one_turn: bool, training_tokens: int | None) -> list[str]:
    """Replies that were cut off, in evaluation and training, and runs that had nothing to learn from."""
    found, most = [], arm.evaluations[0].manifest.max_tokens
    key = "agent.max_tokens" if training_tokens in (None, most) else "eval.max_tokens"
    for decoding in Decoding:
        share = mean_of([recorded.manifest.scores(decoding).truncated for recorded in arm.evaluations])
        if warning := cut_off_warning(share, most, key) or (length_warning(share, most) if one_turn else None):
            found.append(f"{arm.name}, {decoding.value}: {warning}.")
    cut = [step.truncated for curve in arm.curves for step in curve.steps if step.truncated is not None]
    if cut and (warning := cut_off_warning(float(np.mean(cut)), training_tokens or most)):
        found.append(f"{arm.name}, training: {warning}.")
    if arm.training and arm.training.no_signal:
        seeds = ", ".join(map(str, arm.training.no_signal))
        found.append(f"{arm.name}, training: no group ever had an advantage (seed {seeds}), so nothing was learned.")
    return found


def _check_comparable(arm: ArmRecords, base: ArmRecords, full: ArmRecords) -> None:
    seeds = arm.training.seeds if arm.training else [None]
    if len(arm.evaluations) != len(seeds) or (arm is base) != (arm.training is None):
        raise ValueError(f"{arm.name}: {len(arm.evaluations)} evaluations for {len(seeds)} training seeds")
    if full.training and arm.training and arm.training.seeds != full.training.seeds:
        raise ValueError(f"{arm.name}: trained with seeds {arm.training.seeds}, full with {full.training.seeds}")
    reference = base.evaluations[0]
    for recorded in (*arm.evaluations, *(one for _, one in arm.best.values())):
        differing = protocol(recorded.manifest).differing(protocol(reference.manifest))
        if recorded.manifest.base != reference.manifest.base:
            differing.append("base")
        if differing:
            raise UserError(
                f"{arm.name} and base were measured with different {', '.join(differing)}, so they cannot be compared; "
                f"remove the evaluations of the one that is out of date, and run the study again"
            )
        if recorded.sampled.items != reference.sampled.items:
            raise ValueError(f"{arm.name}: its records are of other items than those of base")


def _measure(base: ArmRecords, full: ArmRecords, trained: Sequence[ArmRecords], decoding: Decoding) -> dict[str, ArmFigures]:
    """Every arm's figures under one decoding."""

    found = {arm.name: arm.rates(decoding) for arm in (base, full, *trained)}
    shares = {arm.name: contribution_of(found["base"], found["full"], found[arm.name]) for arm in trained}
    p_holm = dict(zip(shares, corrected([("full", share.to_full.p) for share in shares.values()]), strict=True))
    result = {}
    for arm in (base, full, *trained):
        scores = [recorded.manifest.scores(decoding) for recorded in arm.evaluations]
        result[arm.name] = ArmFigures(
            **policy_figures(found[arm.name], scores),
            to_base=None if arm is base else minus(found[arm.name], found["base"]).difference,
            contribution=shares.get(arm.name),
            p_holm=p_holm.get(arm.name),
        )
    return result
