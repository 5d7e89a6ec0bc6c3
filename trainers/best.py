"""The patch of the best point of a run's held-out curve, kept beside the one that the run ends in (`eval.keep_best`).

The best point is the one after a step or more with the highest share of right sampled replies, of equal ones the first. It is chosen by the
panel, so the panel's figure of it is too high; other items tell what it is worth (docs/studies.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from ..common.errors import UserError

FILE = re.compile(r"best-(\d{6,9})\.safetensors")


def best_file(run: Path, step: int) -> Path:
    """The patch of the best point, after `step` steps."""
    return run / f"best-{step:06}.safetensors"


class BestPatch:
    """Keeps two files at most: of the best point of all, and of the best one up to the last checkpoint, where a run that is killed begins
    again."""

    def __init__(self, run: Path, rate_by_step: Mapping[int, float], done: int):
        """rate_by_step: the points up to the checkpoint, which has done `done` steps. Raises UserError where the patch of the best of them
        is missing."""
        self._run, self._rates, self._done = run, dict(rate_by_step), done
        if (best := self.step) and not best_file(run, best).exists():
            raise UserError(
                f"{best_file(run, best)}: is gone, and step {best} is the best of this run until its checkpoint; bring the file back, or "
                "start a new run"
            )
        self._remove_others()

    @property
    def step(self) -> int | None:
        """The best point so far; None before the first step."""
        return self._best(max(self._rates, default=0))

    def add(self, step: int, rate: float, write: Callable[[Path], object]) -> None:
        """A further point. write: writes the patch of the policy as it is now, whole or not at all."""
        self._rates[step] = rate
        if step and step == self.step:
            write(best_file(self._run, step))
            self._remove_others()

    def settle(self, done: int) -> None:
        """A checkpoint that has done so many steps is written: a run that is killed no longer goes back behind it."""
        self._done = done
        self._remove_others()

    def _best(self, last: int) -> int | None:
        steps = sorted(step for step in self._rates if 0 < step <= last)
        return max(steps, key=self._rates.__getitem__, default=None)  # max keeps the first of equal ones

    def _remove_others(self) -> None:
        wanted = {self.step, self._best(self._done)}
        for path in self._run.iterdir():
            if (named := FILE.fullmatch(path.name)) and int(named[1]) not in wanted:
                path.unlink()
