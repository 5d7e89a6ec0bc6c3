"""The run as a rank has it that writes nothing: rank 0 keeps the directory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..agents.agent import Agent
from ..agents.patch import Patch
from ..agents.policy import Base
from ..agents.trained_sets import TrainedSet
from ..common.cost import Cost, Meter
from ..common.files import GrowingFile
from ..envs.items import Split
from .config import Config
from .ranks import LostRank, Ranks
from .run import Run
from .stopping import StopSignals


class Follower(Run):
    """Steps, phases, cost and signals of a run, without its directory."""

    def __init__(self, directory: Path, config: Config, checkpoint: dict[str, Any] | None, ranks: Ranks):
        self.directory, self.config, self.ranks, self.checkpoint = directory, config, ranks, checkpoint
        self.meter, self._before = Meter(), Cost()
        self.episodes = self.best = None
        self.stop = StopSignals(directory, ranks)
        self.note = lambda note: None
        self._phases = {}

    def steps(self, start: int, stop: int) -> Iterator[int]:
        yield from range(start, stop)

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        pass

    def keep_episodes(self, agent: Agent) -> None:
        pass

    def keep_best(self, rate_by_step: Mapping[int, float]) -> None:
        pass

    def growing(self, name: str, end: int) -> AbstractContextManager[GrowingFile]:
        return nullcontext(_Nowhere())

    def _write_checkpoint(self, state: dict[str, Any], cost: Cost) -> None:
        pass

    def _write_result(self, result: Patch, keep_checkpoint: bool, cost: Cost) -> None:
        pass


class _Nowhere(GrowingFile):
    """Lines that rank 0 writes."""

    def __init__(self) -> None:
        pass

    def write(self, line: bytes) -> None:
        pass


@contextmanager
def open_run(directory: Path, config: Config, base: Base, trained: TrainedSet, split: Split, resume: bool, ranks: Ranks) -> Iterator[Run]:
    """The run's directory at rank 0, and at the others a run that begins at the same checkpoint. Raises as `Run.open` does."""
    try:
        if ranks.first:
            with Run.open(directory, config, base, trained, split, resume, ranks) as run:
                ranks.from_first(lambda: run.checkpoint)
                yield run
        else:
            run = Follower(directory, config, ranks.from_first(lambda: None), ranks)
            with run.meter, run.stop.awaited():
                yield run
    except LostRank as error:
        command = shlex.join(ranks.resume_command(directory))
        raise LostRank(f"{error}: the run is in {directory}; continue with: {command}") from error
