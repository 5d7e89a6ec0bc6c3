"""Synthetic studies with known truth: records, arms and a report, made without a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from made_runs import evaluated_as

from onelayer.common.cost import Cost, Hardware
from onelayer.evals.evaluator import summarise
from onelayer.evals.records import Evaluation, Outcomes, Recorded
from onelayer.evals.samples import Sample
from onelayer.studies.held_out_curve import Curve
from onelayer.studies.study_report import ArmRecords, LearningRateTrial, StudyReport, Training, build_report
from onelayer.trainers.config import Config
from onelayer.trainers.metrics import StepMetrics


def to_samples(correct_IS: np.ndarray) -> list[Sample]:
    """Records of given outcomes; wrong answers differ from each other, so a majority can be right."""
    return [
        Sample(
            key=f"{i}/{s}",
            decoding="sampled",
            type=None,
            env_seed=0,
            error=None,
            ending="",
            item=f"item-{i}",
            sample=s,
            seed=1000 * i + s,
            verdict="correct" if right else "wrong",
            reward=float(right),
            answer="gold" if right else f"wrong-{s}",
            tokens=20 + s,
            truncated=False,
            steps=[],
        )
        for i, row in enumerate(correct_IS)
        for s, right in enumerate(row)
    ]


def to_recorded(policy: str, sampled_IS: np.ndarray, greedy_I: np.ndarray) -> Recorded:
    sampled, greedy = to_samples(sampled_IS), to_samples(greedy_I[:, None])
    manifest = Evaluation(
        policy=policy,
        base="f" * 64,
        patches=[] if policy == "base" else ["a" * 64],
        split="arithmetic/test",
        digest="d" * 64,
        items=len(sampled_IS),
        temperature=1.0,
        max_tokens=40,
        prompt="{observation}",
        seed=0,
        config=evaluated_as(Config()),
        cost=Cost(seconds=1.0, tokens=1),
        hardware=Hardware(cpu="any", cores=1, threads=1, gpu=None),
        versions={},
        git_commit=None,
        sampled=summarise(sampled),
        greedy=summarise(greedy),
    )
    return Recorded(manifest, Outcomes.of(sampled), Outcomes.of(greedy))


def synthetic_arms(rates: dict[str, tuple[float, float]] | None = None, seeds: int = 1, items: int = 500) -> list[ArmRecords]:
    """A study whose arms solve the given shares (sampled, greedy) of the items; harder items are harder for every arm."""
    rng = np.random.default_rng(7)
    easy_I = rng.normal(size=items)
    arms = []
    for name, (sampled, greedy) in (rates or {"base": (0.26, 0.55), "full": (0.76, 0.84), "layer:3": (0.71, 0.86)}).items():
        evaluations = []
        for _ in range(1 if name == "base" else seeds):
            p_I = 1 / (1 + np.exp(-(np.log(sampled / (1 - sampled)) * 1.2 + easy_I)))
            samples_IS = rng.random((items, 8 if name == "base" else 4)) < p_I[:, None]
            evaluations.append(to_recorded(name, samples_IS.astype(float), (easy_I > np.quantile(easy_I, 1 - greedy)).astype(float)))
        if name == "base":
            arms.append(ArmRecords(name, evaluations))
            continue
        tried = [LearningRateTrial(lr=1e-4, score=0.6), LearningRateTrial(lr=3e-4, score=0.7)]
        parameters = 1_900_000 if name == "full" else 250_000
        training = Training(
            seeds=list(range(seeds)), lr=3e-4, lr_tried=tried, parameters=parameters, share=parameters / 1_900_000, seconds=90.0
        )
        curves = []
        for seed in range(seeds):
            reward = 0.26 + (sampled - 0.26) * (1 - np.exp(-np.arange(60) / 20)) + rng.normal(0, 0.03, 60)
            steps = [
                StepMetrics.model_validate({"step": step, "reward": value, "response_length": 25 + 5 * value, "entropy": 1 - value})
                for step, value in enumerate(reward.tolist())
            ]
            curves.append(Curve(seed=seed, steps=steps))
        arms.append(ArmRecords(name, evaluations, training, curves))
    return arms


def synthetic_report(rates: dict[str, tuple[float, float]] | None = None, recipe: str = "quickstart", **sizes: int) -> StudyReport:
    return build_report(
        synthetic_arms(rates, **sizes),
        recipe=recipe,
        model="tiny",
        parameters=1_900_000,
        algorithm="grpo",
        versions={"onelayer": "0.1.0"},
        seconds=300.0,
        validation="arithmetic/validation",
    )


@pytest.fixture
def samples() -> Callable[[np.ndarray], list[Sample]]:
    return to_samples


@pytest.fixture
def arms() -> Callable[..., list[ArmRecords]]:
    return synthetic_arms


@pytest.fixture
def study() -> Callable[..., StudyReport]:
    return synthetic_report
