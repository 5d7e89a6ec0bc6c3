"""The tasks of a study: the base's evaluation, and every training run with its evaluation. Each can be done in a process of its own.

Directory: `base/` is the base's evaluation; `SET/lr-LR-seed-S/` a run with its `validation/` or `test/` evaluations, and `best/`, that
of the best point of its held-out curve where it is kept and not the last one. What is complete is never done again, and what was begun goes
on, so a task may be performed any number of times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..agents import patch
from ..agents.agent import make_agent
from ..agents.policy import Base
from ..common.errors import UserError
from ..envs import load
from ..envs.config import EnvConfig
from ..envs.pool import open_pool
from ..evals.config import EvalConfig
from ..evals.cutting import cut, limits_of
from ..evals.evaluator import evaluate, first_items
from ..evals.model_policy import model_policy
from ..evals.records import MANIFEST, Recorded, read_evaluation
from ..trainers.config import Config
from ..trainers.held_out import HeldOut
from ..trainers.manifest import HELD_OUT, complete_manifest, recipe_of, training_of
from ..trainers.metrics import read_lines
from ..trainers.run import NO_SIGNAL, read_best, read_patch
from ..trainers.train import Prepared, evaluation_suite, train
from .limits import is_one_turn, length_warning
from .weight_changes import keep_weight_changes

BASE, BEST = "base", "best"
ATTEMPTS = 2
"""How often a task is tried: what fails for a passing reason goes on where it was."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """One training run and its evaluation, or the base's evaluation."""

    trained_set: str
    """`base` for the base, which is not trained."""
    lr: float = 0.0
    seed: int = 0
    split: Literal["validation", "test"] = "test"
    """What it is evaluated on afterwards: `validation` chooses learning rates, `test` is what the study reports."""

    @property
    def directory(self) -> Path:
        """Of the run, below the study's."""
        return Path(BASE) if self.trained_set == BASE else Path(self.trained_set.replace(":", "-")) / f"lr-{self.lr}-seed-{self.seed}"

    @property
    def evaluation(self) -> Path:
        """Of the evaluation, below the study's."""
        return self.directory if self.trained_set == BASE else self.directory / self.split

    def __str__(self) -> str:
        return BASE if self.trained_set == BASE else f"{self.trained_set}, lr {self.lr:g}, seed {self.seed}"


def stages(trained_set: str, config: Config, directory: Path) -> Iterator[list[Task]]:
    """The tasks of a trained set: those that choose its learning rate with the first seed, where there is a choice, and those reported.

    Tasks of one stage can be done at the same time; the next stage is asked for when they have been. None follows where no rate was
    measured.
    """
    rates, seeds = config.study.rates(trained_set), config.study.seeds
    if trained_set == BASE:
        yield [Task(BASE)]
        return
    if len(rates) > 1:
        yield [Task(trained_set, lr, seeds[0], "validation") for lr in rates]
        if not (tried := trials(trained_set, config, directory)):
            return
        rates = [max(tried, key=tried.__getitem__)]
    yield [Task(trained_set, rates[0], seed) for seed in seeds]


def reported(trained_set: str, config: Config, directory: Path) -> list[Task]:
    """The tasks of a set whose figures the study reports, one for each seed; none unless all have been done."""
    *_, last = stages(trained_set, config, directory)
    whole = all(task.split == "test" and (directory / task.evaluation / MANIFEST).exists() for task in last)
    return last if whole else []


def trials(trained_set: str, config: Config, directory: Path) -> dict[float, float]:
    """Learning rates that have been tried, and pass@1 at the sampling temperature on the validation split; none where the rate is fixed."""
    rates = config.study.rates(trained_set)
    tasks = [Task(trained_set, lr, config.study.seeds[0], "validation") for lr in rates] if len(rates) > 1 else []
    made = {task.lr: directory / task.evaluation for task in tasks if (directory / task.evaluation / MANIFEST).exists()}
    return {lr: read_evaluation(path).manifest.sampled.pass_rate.mean for lr, path in made.items()}


def perform(task: Task, prepared: Prepared, directory: Path) -> None:
    """Do what is missing of a task. The model is the base again afterwards.

    Raises UserError for what stops the run, and Interrupted where it was asked to stop.
    """
    if task.trained_set == BASE:
        _evaluate(task, directory / task.evaluation, prepared)
        return
    config = prepared.config
    trained = next(trained for trained in prepared.sets if trained.spec == task.trained_set)
    settings = config.trainer.model_copy(update={"trained_set": task.trained_set, "lr": task.lr, "seed": task.seed})
    own = config.model_copy(update={"trainer": settings})
    run = directory / task.directory
    with patch.restored(trained.parameters):
        train(own, run, resume=True, prepared=prepared._replace(config=own, sets=[trained], first_point=_first_point(directory)))
    if complete_manifest(run).no_signal:
        _log.warning("%s: %s; the study goes on", run, NO_SIGNAL)
    if task.split == "test":
        keep_weight_changes(run, prepared.base)
    if place := best_evaluation(task, directory):  # before the last: a task whose own evaluation is there is done
        _evaluate(task, place, prepared, run, read_best)
    _evaluate(task, directory / task.evaluation, prepared, run)


def _evaluate(
    task: Task, place: Path, prepared: Prepared, run: Path | None = None, read: Callable[[Path], patch.Patch] = read_patch
) -> None:
    """Evaluate the base, or the policy of a run, at the study's lower limits, too, unless that was done before. read: which patch of the
    run; that of the best point is not cut at lower limits."""
    config, base = prepared.config.evaluated, prepared.base
    env, split_name, settings = _protocol(config, task.split)
    limits = config.study.limits if task.split == "test" and read is read_patch else []
    if (place / MANIFEST).exists() and set(limits) <= set(limits_of(place)):
        return
    split, patches = load(env, split_name), [read(run)] if run else []
    trained = [training_of(complete_manifest(run), patches[0].sha256)] if run else []
    with patch.applied(base, patches), open_pool(env, split_name, config.pool) as pool:
        agent = make_agent(base, config.agent, env)
        found = evaluate(
            agent,
            pool,
            split,
            settings,
            place,
            policy=model_policy(base, config.model.path, patches, trained),
            recipe=recipe_of(config, env, settings),
            samples=None if run else config.study.base_samples,
        )
        cut(place, limits, agent, env, pool, split)
    if is_one_turn(env) and (warning := length_warning(found.sampled.truncated, found.max_tokens)):
        _log.warning("%s: %s", place, warning)


def best_evaluation(task: Task, directory: Path) -> Path | None:
    """Where the best point of a trained run's held-out curve is evaluated; None where none is kept or it is the last one, and for runs that
    only choose a learning rate."""
    manifest = complete_manifest(directory / task.directory)
    found = task.split == "test" and manifest.best and manifest.best.patch_sha256 != manifest.patch_sha256
    return directory / task.directory / BEST if found else None


def recorded(task: Task, config: Config, base: Base, directory: Path, place: Path | None = None) -> Recorded:
    """The evaluation of a task that has been done. place: another one than its own.

    Raises UserError where it was made on another base or on other items than the recipe's names now stand for.
    """
    env, split_name, settings = _protocol(config, task.split)
    place = place or directory / task.evaluation
    found = read_evaluation(place)
    if (found.manifest.base, found.manifest.digest) != (base.fingerprint, first_items(load(env, split_name), settings.items).digest):
        raise UserError(f"{place}: the base or the items have changed since this was measured; bring them back, or name another --output")
    return found


def _first_point(directory: Path) -> HeldOut | None:
    """The base's point of the held-out curve, from any run of the study that has played it."""
    points = (point for path in sorted(directory.glob(f"*/*/{HELD_OUT}")) for _, point in read_lines(path, HeldOut))
    return next((point for point in points if point.step == 0), None)


def _protocol(config: Config, split: str) -> tuple[EnvConfig, str, EvalConfig]:
    """Environment, split and settings of the final evaluation (`test`), or of the one that chooses learning rates."""
    if split == "test":
        return *evaluation_suite(config), config.eval
    return config.env, "validation", config.eval.model_copy(update={"items": config.study.validation_items})
