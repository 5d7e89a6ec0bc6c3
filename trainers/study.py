"""A study: base, full and the named sets, trained and evaluated under one protocol, then compared.

Directory: `base/` holds the base's evaluation; `SET/lr-LR-seed-S/` a run with its `validation/` and `test/` evaluations;
report.json and report.html the result. What is complete is never done again, so a stopped study continues where it was.
"""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from ..agents import patch
from ..agents.agent import make_agent
from ..agents.episodes import Envs
from ..agents.policy import Base, load_base, select
from ..envs import load, make
from ..envs.config import EnvConfig
from ..envs.errors import UserError
from ..envs.files import write_atomically
from ..evals.config import EvalConfig
from ..evals.evaluator import evaluate
from ..evals.records import MANIFEST, Recorded, read_evaluation
from ..evals.report import render_table, write_report
from ..evals.study_report import ArmRecords, Curve, LearningRateTrial, StepMetrics, Training, build_report
from .config import Config, dump
from .run import Manifest, read_manifest
from .train import evaluation_suite, train, training_split


def study(config: Config, directory: Path) -> Path:
    """Run what is missing of the study, print the leaderboard, write the report; returns the page's path.

    Raises UserError where `directory` holds another study, or for anything in the recipe that can not be used.
    """
    started = time.perf_counter()
    _claim(directory, config)
    training_split(config)
    base = load_base(config.model)
    for name in config.study.trained_sets:
        select(base.model, name)
    arms = [ArmRecords("base", [_evaluation(directory / "base", config, base, "test", [])])]
    for name in ["full", *config.study.trained_sets]:
        arms.append(_arm(name, config, base, directory))
    report = build_report(
        arms,
        recipe=config.name,
        model=config.model.path,
        parameters=sum(parameter.numel() for parameter in base.model.parameters()),
        algorithm=config.trainer.algorithm,
        versions={"onelayer": version("onelayer"), "python": platform.python_version(), "torch": version("torch"), "transformers": version("transformers")},
        seconds=time.perf_counter() - started,
        validation=load(config.env, "validation").name if config.study.chooses_lr else None,
        majority=config.study.base_samples,
    )
    write_report(report, directory)
    Console().print(render_table(report))
    return directory / "report.html"


def _claim(directory: Path, config: Config) -> None:
    """Make the directory this study's own. Raises UserError where it is another's."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.yaml"
    if path.exists() and path.read_text() != dump(config):
        raise UserError(f"{directory}: holds a study under another configuration (see its config.yaml); name another --output")
    if not path.exists() and any(directory.iterdir()):
        raise UserError(f"{directory}: not empty, and not a study; name another --output")
    write_atomically(path, dump(config))


def _arm(name: str, config: Config, base: Base, directory: Path) -> ArmRecords:
    """Choose the learning rate with the first seed, train with all seeds, evaluate each run."""
    first, *others = config.study.seeds
    fixed = config.study.layer_lr if name != "full" else None
    rates = [fixed] if fixed else config.study.lr_grid
    tried = []
    if len(rates) > 1:
        for lr in rates:
            run = _train(name, lr, first, config, directory)
            score = _evaluation(run / "validation", config, base, "validation", [run]).manifest.sampled.pass_rate.mean
            tried.append(LearningRateTrial(lr=lr, score=score))
    lr = max(tried, key=lambda trial: trial.score).lr if tried else rates[0]
    runs = [_train(name, lr, seed, config, directory) for seed in (first, *others)]
    manifests = [_finished(run) for run in runs]
    training = Training(
        seeds=config.study.seeds,
        lr=lr,
        lr_tried=tried,
        parameters=manifests[0].trained_parameters,
        share=manifests[0].trained_parameters / manifests[0].total_parameters,
        seconds=sum(manifest.seconds for manifest in manifests),
    )
    curves = [Curve(seed=seed, steps=_metrics(run)) for seed, run in zip(config.study.seeds, runs, strict=True)]
    return ArmRecords(name, [_evaluation(run / "test", config, base, "test", [run]) for run in runs], training, curves)


def _train(name: str, lr: float, seed: int, config: Config, directory: Path) -> Path:
    """The directory of a finished run, trained now unless it was before."""
    run = directory / name.replace(":", "-") / f"lr-{lr:g}-seed-{seed}"
    if read_manifest(run) is None:
        settings = config.trainer.model_copy(update={"trained_set": name, "lr": lr, "seed": seed})
        train(config.model_copy(update={"trainer": settings}), run, resume=True)
    return run


def _evaluation(directory: Path, config: Config, base: Base, which: str, runs: list[Path]) -> Recorded:
    """The evaluation of the base with the runs' patches, made now unless it was before."""
    if not (directory / MANIFEST).exists():
        env, split_name, settings = _protocol(config, which)
        patches = [patch.read(run / "patch.safetensors") for run in runs]
        with patch.applied(base, patches):
            evaluate(
                make_agent(base, config.agent),
                Envs(lambda: make(env, split_name)),
                load(env, split_name),
                settings,
                directory,
                policy=" + ".join(found.trained_set for found in patches) or "base",
                base=base.fingerprint,
                patches=[found.sha256 for found in patches],
                samples=None if runs else config.study.base_samples,
                console=Console(stderr=True),
            )
    return read_evaluation(directory)


def _protocol(config: Config, which: str) -> tuple[EnvConfig, str, EvalConfig]:
    """Environment, split and settings of the final evaluation (`test`), or of the one that chooses learning rates."""
    if which == "test":
        return *evaluation_suite(config), config.eval
    return config.env, "validation", config.eval.model_copy(update={"items": config.study.validation_items})


def _finished(run: Path) -> Manifest:
    manifest = read_manifest(run)
    assert manifest is not None, run
    return manifest


def _metrics(run: Path) -> list[StepMetrics]:
    return [StepMetrics.model_validate(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


