"""Which run of a study is next, and how long the rest will take, for people who wait."""

from __future__ import annotations

import time
from pathlib import Path

from ..common.progress import duration, say
from ..evals.records import MANIFEST
from .tasks import BASE, Task


class Outlook:
    """Counts a study's runs as they begin. The time left is that of the runs done here, with their evaluations, for as many as are left."""

    def __init__(self, runs: int, directory: Path):
        self._runs, self._directory = runs, directory
        self._seen, self._done = set[Path](), 0
        self._started = 0.0

    def tell(self, task: Task) -> None:
        """A task is next. Nothing is said of the base, which is no run, of a run again, and of one that is complete."""
        if task.trained_set == BASE or task.directory in self._seen:
            return
        self._seen.add(task.directory)
        if (self._directory / task.evaluation / MANIFEST).exists():
            return
        now = time.monotonic()
        if not self._done:
            self._started = now
        left = (now - self._started) / self._done * (self._runs - len(self._seen) + 1) if self._done else None
        say(f"run {len(self._seen)} of {self._runs}: {task}" + (f"; about {duration(left)} left for the study" if left else ""))
        self._done += 1
