"""How far a study is, from its directory alone: it may be under way in other processes, or have been stopped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..evals.journal import JOURNAL, progress
from ..evals.records import MANIFEST, read_manifest
from ..trainers.config import Config
from ..trainers.manifest import METRICS
from ..trainers.metrics import read_metrics
from .tasks import BASE, Task, stages


class State(StrEnum):
    """What a task is at."""

    WAITING = "waiting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    DONE = "done"


@dataclass(frozen=True)
class TaskStatus:
    """How far one task is."""

    task: Task
    state: State
    done: int = 0
    """Steps that have been trained, or samples that have been evaluated."""
    wanted: int = 0
    """Of how many."""
    figure: float | None = None
    """Mean reward of the last step in training; pass@1 at the sampling temperature where it is done."""


def status(config: Config, directory: Path) -> list[TaskStatus]:
    """Every task that is known yet: where a learning rate is still to be chosen, the runs with it are not."""
    names = [BASE, "full", *config.study.trained_sets]
    return [_status(task, config, directory) for name in names for task in _known(name, config, directory)]


def _known(name: str, config: Config, directory: Path) -> Iterator[Task]:
    for stage in stages(name, config, directory):
        yield from stage
        if not all((directory / task.evaluation / MANIFEST).exists() for task in stage):
            return


def _status(task: Task, config: Config, directory: Path) -> TaskStatus:
    evaluation, run = directory / task.evaluation, directory / task.directory
    if (evaluation / MANIFEST).exists():
        return TaskStatus(task, State.DONE, figure=read_manifest(evaluation).sampled.pass_rate.mean)
    if (evaluation / JOURNAL).exists():
        found = progress(evaluation / JOURNAL)
        return TaskStatus(task, State.EVALUATING, int(str(found.get("samples", 0))), int(str(found.get("wanted", 0))))
    if (run / METRICS).exists() and (steps := read_metrics(run / METRICS)):
        return TaskStatus(task, State.TRAINING, len(steps), config.trainer.steps, steps[-1].reward)
    return TaskStatus(task, State.WAITING)
