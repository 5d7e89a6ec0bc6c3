"""The ranks of a run: processes that train it together, each on a device of its own.

torchrun starts them, and all carry out the same `train`. Every rank loads the base, plays some of a step's groups and gets the episodes of
the others, so that advantages and weights are those of the whole batch at each of them. Every rank computes the gradient of some groups;
the sum over the ranks is the batch's, and all take the same optimiser step. Rank 0 keeps the run's directory (`follower.py`).

The form here is that of a run in one process, in which nothing is dealt and nothing is sent. `process_group.py` has the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

    from ..agents.episodes import Episode, Play
    from .config import Config
    from .rows import TrainingRow

T = TypeVar("T")


class LostRank(Exception):
    """Another rank has ended or does not answer: the run ends here as well, and goes on from its last checkpoint."""

    exit_code = 2


class Ranks:
    """What a run asks of its ranks."""

    rank, size = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def resume_command(self, directory: object) -> list[str]:
        """The words that continue a run."""
        return ["onelayer", "train", "--resume", str(directory)]

    def check(self, config: Config) -> None:
        """Raises UserError for a key that several ranks cannot work with."""

    def agree_on(self, what: str, make: Callable[[], object]) -> None:
        """Raises UserError where `make` gives one rank something else than rank 0."""

    def dealt(self, plays: Sequence[Play], playing: Callable[[Sequence[Play]], Iterable[Episode]]) -> Iterable[Episode]:
        """Every episode of `plays`, as `playing` gives them: each rank plays some of the groups. Raises UserError at all ranks where it is
        raised at one."""
        return playing(plays)

    def share(self, rows: Sequence[TrainingRow]) -> Sequence[TrainingRow]:
        """The rows whose gradient this rank computes: whole groups, at each rank about as many tokens."""
        return rows

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Put in the place of each tensor (float32) its sum over the ranks, the same at all of them."""

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives rank 0, which alone calls it."""
        return make()


ONE_PROCESS = Ranks()
