"""What a training run has played: its episodes as parquet, a file for the steps between two checkpoints (docs/run-store.md)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..agents.agent import Agent
from ..agents.episodes import Episode
from ..common.errors import UserError
from ..evals.samples import columns_of, prompt_reader, read_table, training_schema, write_rows
from .manifest import EPISODES


def kept_steps(run: Path) -> list[int]:
    """The steps whose episodes are kept, in the order of the files; those of a file that cannot be read count as not there."""
    found: list[int] = []
    for path in sorted((run / EPISODES).glob("*.parquet")):
        with suppress(UserError):
            found += sorted(set(read_table(path, ["step"])["step"].drop_null().to_pylist()))
    return found


class KeptEpisodes:
    """Collects the episodes of each step, and writes them when a checkpoint is written."""

    def __init__(self, run: Path, agent: Agent, done: int):
        """done: steps that the checkpoint holds; what was written of later ones is removed, since they are about to be done again."""
        self._directory, self._read = run / EPISODES, prompt_reader(agent)
        self._rows: list[dict[str, Any]] = []
        for path in self._directory.glob(".*.tmp"):  # of a write that was killed
            path.unlink()
        for path in self._directory.glob("*.parquet"):
            if (named := re.fullmatch(r"\d{6,9}-(\d{6,9})", path.stem)) and int(named[1]) >= done:  # others are not ours
                path.unlink()

    def add(self, step: int, played: Sequence[Episode], advantages: Mapping[int, Sequence[float]]) -> None:
        """The episodes of a step. advantages: for each step of an episode, by the episode's index; without those not learned from."""
        samples: Counter[str] = Counter()
        for episode in played:
            item = episode.play.item
            columns = columns_of(episode, self._read, True, advantages.get(episode.index))
            self._rows.append({"step": step, "group": episode.play.group, "sample": samples[item], **columns})
            samples[item] += 1

    def write(self) -> None:
        """Write what was collected. Raises UserError where that cannot be done."""
        if self._rows:
            first, last = self._rows[0]["step"], self._rows[-1]["step"]
            write_rows(self._directory / f"{first:06}-{last:06}.parquet", self._rows, training_schema())
            self._rows.clear()
