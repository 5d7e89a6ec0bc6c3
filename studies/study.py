"""A study: base, full and the named sets, trained and evaluated under one protocol, then compared.

Directory: study.yaml holds the recipe; `base/` the base's evaluation; `SET/lr-LR-seed-S/` a run with its `validation/` and
`test/` evaluations; report.json and report.html the result. What is complete is never done again, so a stopped study
continues where it was.
"""

from __future__ import annotations

import logging
import platform
import shlex
import time
from importlib.metadata import version
from pathlib import Path

from ..agents import patch
from ..agents.agent import make_agent
from ..agents.episodes import assert_prompts_fit
from ..agents.policy import Base
from ..agents.trained_sets import TrainedSet
from ..common.console import Console
from ..common.errors import UserError
from ..common.files import owned
from ..envs import check_disjoint, load
from ..envs.config import EnvConfig
from ..envs.pool import open_pool
from ..evals.config import EvalConfig
from ..evals.evaluator import evaluate, first_items, model_policy
from ..evals.records import MANIFEST, Recorded, read_evaluation
from ..trainers.config import Config
from ..trainers.held_out import HeldOut
from ..trainers.manifest import HELD_OUT, METRICS, complete_manifest, recipe_of, training_of
from ..trainers.metrics import read_lines, read_metrics
from ..trainers.run import NO_SIGNAL, Interrupted, claim, read_patch
from ..trainers.train import Prepared, evaluation_suite, prepare, train
from .held_out_curve import Curve
from .store import STUDY
from .study_report import ArmRecords, LearningRateTrial, StudyReport, Training, build_report

_log = logging.getLogger(__name__)


def study(config: Config, directory: Path) -> StudyReport:
    """Run what is missing of the study, and compare.

    Raises UserError where `directory` holds another study, or for anything in the recipe that cannot be used.
    """
    started = time.perf_counter()
    prepared = prepare_study(config)
    config, base = prepared.config, prepared.base
    check_prompts(config, base)  # whether there is such an engine, and whether prompts fit, is known before anything is made
    with owned(directory):
        claim(directory / STUDY, config)
        try:
            arms = [ArmRecords("base", [_evaluation(directory / "base", config, base, "test", [])])]
            arms += [_arm(trained, prepared, directory) for trained in prepared.sets]
        except Interrupted as stop:
            command = ["onelayer", "study", str(directory / STUDY), "--output", str(directory)]
            raise Interrupted(stop.signal, shlex.join(command)) from stop
        return _report(arms, config, base, time.perf_counter() - started)


def trained_sets(config: Config) -> list[str]:
    """What a study trains."""
    return ["full", *config.study.trained_sets]


def prepare_study(config: Config) -> Prepared:
    """As `prepare`, for a study's sets. Raises UserError for all that would stop the study later."""
    found = prepare(config, trained_sets(config))
    evaluation = first_items(load(*evaluation_suite(config)), config.eval.items)
    if config.study.chooses_lr:
        validation = first_items(load(config.env, "validation"), config.study.validation_items, "study.validation_items")
        check_disjoint(validation, evaluation)
    return found


def check_prompts(config: Config, base: Base) -> None:
    """Raises UserError where not one prompt fits, of those trained on or of those evaluated."""
    for env, split in ((config.env, "train"), evaluation_suite(config)):
        with open_pool(env, split, config.pool) as pool:
            assert_prompts_fit(make_agent(base, config.agent, env), pool, load(env, split))


def _report(arms: list[ArmRecords], config: Config, base: Base, seconds: float) -> StudyReport:
    return build_report(
        arms,
        recipe=config.name,
        model=config.model.path,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        algorithm=config.trainer.algorithm.name,
        versions={
            "onelayer": version("onelayer"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        seconds=seconds,
        validation=load(config.env, "validation").name if config.study.chooses_lr else None,
        majority=config.study.base_samples,
    )


def _arm(trained: TrainedSet, prepared: Prepared, directory: Path) -> ArmRecords:
    """Choose the learning rate with the first seed, train with all seeds, evaluate each run."""
    config, base, name = prepared.config, prepared.base, trained.spec
    first, *others = config.study.seeds
    rates = config.study.rates(name)
    tried = []
    if len(rates) > 1:
        for lr in rates:
            run = _train(trained, lr, first, prepared, directory)
            score = _evaluation(run / "validation", config, base, "validation", [run]).manifest.sampled.pass_rate.mean
            tried.append(LearningRateTrial(lr=lr, score=score))
    lr = max(tried, key=lambda trial: trial.score).lr if tried else rates[0]
    runs = [_train(trained, lr, seed, prepared, directory) for seed in (first, *others)]
    manifests = [complete_manifest(run) for run in runs]
    training = Training(
        seeds=config.study.seeds,
        lr=lr,
        lr_tried=tried,
        parameters=manifests[0].trained_parameters,
        share=manifests[0].trained_parameters / manifests[0].total_parameters,
        seconds=sum(manifest.seconds for manifest in manifests),
        no_signal=[seed for seed, manifest in zip(config.study.seeds, manifests, strict=True) if manifest.no_signal],
    )
    curves = [
        Curve(seed=seed, steps=read_metrics(run / METRICS), held_out=[point for _, point in read_lines(run / HELD_OUT, HeldOut)])
        for seed, run in zip(config.study.seeds, runs, strict=True)
    ]
    return ArmRecords(name, [_evaluation(run / "test", config, base, "test", [run]) for run in runs], training, curves)


def _train(trained: TrainedSet, lr: float, seed: int, prepared: Prepared, directory: Path) -> Path:
    """The directory of a finished run, trained now unless it was before. The model is the base again afterwards."""
    run = directory / trained.spec.replace(":", "-") / f"lr-{lr}-seed-{seed}"
    settings = prepared.config.trainer.model_copy(update={"trained_set": trained.spec, "lr": lr, "seed": seed})
    config = prepared.config.model_copy(update={"trainer": settings})
    with patch.restored(trained.parameters):
        train(config, run, resume=True, prepared=prepared._replace(config=config, sets=[trained], first_point=_first_point(directory)))
    if complete_manifest(run).no_signal:
        _log.warning("%s: %s; the study goes on", run, NO_SIGNAL)
    return run


def _first_point(directory: Path) -> HeldOut | None:
    """The base's point of the held-out curve, from any run of the study that has played it."""
    points = (point for path in sorted(directory.glob(f"*/*/{HELD_OUT}")) for _, point in read_lines(path, HeldOut))
    return next((point for point in points if point.step == 0), None)


def _evaluation(directory: Path, config: Config, base: Base, which: str, runs: list[Path]) -> Recorded:
    """The evaluation of the base with the runs' patches, made now unless it was before.

    Raises UserError where it was made before on another base or on other items than the recipe's names now stand for.
    """
    env, split_name, settings = _protocol(config, which)
    split = load(env, split_name)
    if not (directory / MANIFEST).exists():
        patches = [read_patch(run) for run in runs]
        with patch.applied(base, patches), open_pool(env, split_name, config.pool) as pool:
            evaluate(
                make_agent(base, config.agent, env),
                pool,
                split,
                settings,
                directory,
                policy=model_policy(base, config.model.path, patches, [training_of(complete_manifest(run)) for run in runs]),
                recipe=recipe_of(config, env, settings),
                samples=None if runs else config.study.base_samples,
                console=Console(stderr=True),
            )
    recorded = read_evaluation(directory)
    if (recorded.manifest.base, recorded.manifest.digest) != (base.fingerprint, first_items(split, settings.items).digest):
        raise UserError(
            f"{directory}: the base or the items have changed since this was measured; bring them back, or name another --output"
        )
    return recorded


def _protocol(config: Config, which: str) -> tuple[EnvConfig, str, EvalConfig]:
    """Environment, split and settings of the final evaluation (`test`), or of the one that chooses learning rates."""
    if which == "test":
        return *evaluation_suite(config), config.eval
    return config.env, "validation", config.eval.model_copy(update={"items": config.study.validation_items})
