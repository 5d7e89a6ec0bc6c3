"""A study: base, full and the named sets, trained and evaluated under one protocol, then compared.

Directory: study.yaml holds the recipe; studies/tasks.py says what its runs are; report.json and report.html are the result. What is
complete is never done again, so a stopped study continues where it was.
"""

from __future__ import annotations

import logging
import platform
import signal
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from ..agents.agent import make_agent
from ..agents.episodes import assert_prompts_fit
from ..agents.policy import Base
from ..agents.trained_sets import TrainedSet
from ..common.errors import Interrupted, UserError
from ..common.files import owned
from ..envs import check_disjoint, load
from ..envs.pool import open_pool
from ..evals.evaluator import first_items
from ..trainers.config import Config
from ..trainers.held_out import HeldOut
from ..trainers.manifest import HELD_OUT, METRICS, complete_manifest
from ..trainers.metrics import read_lines, read_metrics
from ..trainers.run import claim
from ..trainers.train import Prepared, evaluation_suite, prepare
from .held_out_curve import Curve
from .limits import is_one_turn, limits_of_runs
from .outlook import Outlook
from .store import STUDY
from .study_report import ArmRecords, LearningRateTrial, StudyReport, Training, build_report
from .tasks import ATTEMPTS, BASE, Task, best_evaluation, perform, recorded, reported, stages, trials
from .weight_changes import kept_weight_changes, mean_changes

Failures = Mapping[Task, str]
"""Tasks that could not be done, and why."""
Runner = Callable[[Prepared, Path], Failures]
"""Does all tasks of a study that is prepared, in its directory."""

_log = logging.getLogger(__name__)


def one_after_another(prepared: Prepared, directory: Path) -> Failures:
    """Do all tasks in this process. Raises UserError where the base cannot be evaluated: there is nothing to compare then."""
    failures: dict[Task, str] = {}
    outlook = Outlook(sum(prepared.config.study.runs(trained.spec) for trained in prepared.sets), directory)
    for name in (BASE, *(trained.spec for trained in prepared.sets)):
        for stage in stages(name, prepared.config, directory):
            for task in stage:
                outlook.tell(task)
                for attempt in range(1, ATTEMPTS + 1):
                    try:
                        perform(task, prepared, directory)
                        break
                    except UserError as error:
                        if task.trained_set == BASE:
                            raise
                        _log.warning("%s: attempt %d of %d failed: %s", task, attempt, ATTEMPTS, error)
                        if attempt == ATTEMPTS:
                            failures[task] = str(error)
    return failures


def study(config: Config, directory: Path, run: Runner = one_after_another) -> StudyReport:
    """Run what is missing of the study, and compare.

    Raises UserError where `directory` holds another study, for anything in the recipe that cannot be used, and where base or full could not
    be measured. Another set that could not is left out, and the report says so.
    """
    started = time.perf_counter()
    prepared = prepare_study(config)
    check_prompts(prepared.config, prepared.base)  # whether there is such an engine is known before anything is made
    with owned(directory):
        claim(directory / STUDY, prepared.config)
        try:
            failures = run(prepared, directory)
        except (Interrupted, KeyboardInterrupt) as stop:
            number = stop.signal if isinstance(stop, Interrupted) else signal.SIGINT
            command = ["onelayer", "study", directory / STUDY, "--output", directory]
            raise Interrupted(number, f"the study is in {directory}", command) from stop
        return _report(prepared, directory, failures, time.perf_counter() - started)


def prepare_study(config: Config) -> Prepared:
    """As `prepare`, for a study's sets. Raises UserError for all that would stop the study later."""
    found = prepare(config, ["full", *config.study.trained_sets])
    names = [trained.spec for trained in found.sets]
    if stray := next((name for name in config.study.lr_by_set if name not in names), None):
        raise UserError(f"study.lr_by_set: {stray} is not a set of this study; it trains {', '.join(names)}")
    evaluation = first_items(load(*evaluation_suite(config)), config.eval.items)
    if limits := config.study.limits:
        highest = found.config.evaluated.agent.reply_length
        if max(limits) >= highest:
            raise UserError(f"study.limits: {max(limits)} is not below the {highest} tokens that replies may have; raise eval.max_tokens")
        if not is_one_turn(evaluation_suite(config)[0]):
            raise UserError("study.limits: episodes may take several turns, and only those of one turn can be cut; leave study.limits out")
    if config.study.chooses_lr:
        validation = first_items(load(config.env, "validation"), config.study.validation_items, "study.validation_items")
        check_disjoint(validation, evaluation)
    study = config.study.model_copy(update={"trained_sets": names[1:]})
    return found._replace(config=found.config.model_copy(update={"study": study}))


def check_prompts(config: Config, base: Base) -> None:
    """Raises UserError where not one prompt fits, of those trained on or of those evaluated."""
    for one, env, split in ((config, config.env, "train"), (config.evaluated, *evaluation_suite(config))):
        with open_pool(env, split, config.pool) as pool:
            assert_prompts_fit(make_agent(base, one.agent, env), pool, load(env, split))


def _report(prepared: Prepared, directory: Path, failures: Failures, seconds: float) -> StudyReport:
    config, base = prepared.config, prepared.base
    runs = {trained.spec: reported(trained.spec, config, directory) for trained in prepared.sets}
    failed = [f"{task}: could not be done: {reason}" for task, reason in failures.items()]
    if not runs["full"]:
        raise UserError(f"{directory}: full could not be measured, and nothing can be compared without it; {'; '.join(failed)}")
    base_records = [recorded(Task(BASE), config, base, directory)]
    arms = [ArmRecords(BASE, base_records, at_limits=limits_of_runs([directory / BASE]))]
    arms += [_arm(trained, runs[trained.spec], prepared, directory) for trained in prepared.sets if runs[trained.spec]]
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
        failed=failed,
        one_turn=is_one_turn(evaluation_suite(config)[0]),
        training_tokens=config.agent.max_tokens,
    )


def _arm(trained: TrainedSet, tasks: list[Task], prepared: Prepared, directory: Path) -> ArmRecords:
    """What a set's runs left, which are all there."""
    config, name = prepared.config, trained.spec
    runs = [directory / task.directory for task in tasks]
    manifests = [complete_manifest(run) for run in runs]
    training = Training(
        seeds=config.study.seeds,
        lr=tasks[0].lr,
        lr_tried=[LearningRateTrial(lr=lr, score=score) for lr, score in trials(name, config, directory).items()],
        parameters=manifests[0].trained_parameters,
        share=manifests[0].trained_parameters / manifests[0].total_parameters,
        seconds=sum(manifest.seconds for manifest in manifests),
        tokens=sum(manifest.cost.tokens for manifest in manifests),
        flops=sum(manifest.cost.flops for manifest in manifests),
        weight_changes=mean_changes([kept_weight_changes(run) for run in runs]),
        no_signal=[seed for seed, manifest in zip(config.study.seeds, manifests, strict=True) if manifest.no_signal],
    )
    curves = [
        Curve(seed=task.seed, steps=read_metrics(run / METRICS), held_out=[point for _, point in read_lines(run / HELD_OUT, HeldOut)])
        for task, run in zip(tasks, runs, strict=True)
    ]
    evaluations = [recorded(task, config, prepared.base, directory) for task in tasks]
    limits = limits_of_runs([directory / task.evaluation for task in tasks])
    best = {
        task.seed: (manifest.best.step, recorded(task, config, prepared.base, directory, best_evaluation(task, directory)))
        for task, manifest in zip(tasks, manifests, strict=True)
        if manifest.best
    }
    return ArmRecords(name, evaluations, training, curves, limits, best)
