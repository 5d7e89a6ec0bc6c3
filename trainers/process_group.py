"""The ranks of a run that are several processes, through torch.distributed: NCCL between GPUs, gloo between CPUs and for all else."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from ..agents.config import SERVER, engine_row
from ..agents.episodes import Episode, Play
from ..common import progress
from ..common.errors import Interrupted, UserError
from .config import Config
from .ranks import LostRank, Ranks
from .rows import TrainingRow

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for another that is alive; that one has ended is known at once."""
SENT_AT_ONCE = 256 * 2**20
"""Bytes of the buffer that tensors are added up in; a tensor that is larger has a buffer of its own."""


class ProcessGroup(Ranks):
    """This process is one of several."""

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.sent = 0
        """Bytes that this rank has given to be added up."""
        self.ending = False
        """Whether the run ends in an error, so that a launcher which ends all ranks need not."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._asked)
        with self.talking():
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            self._store, *_ = next(rendezvous("env://", timeout=PATIENCE))
            distributed.init_process_group(backend, store=self._store, rank=self.rank, world_size=self.size, timeout=PATIENCE)

    def resume_command(self, directory: object) -> list[str]:
        here = os.environ.get("LOCAL_WORLD_SIZE", str(self.size))
        nodes = ["--nnodes", str(self.size // int(here))] if here != str(self.size) else []
        return ["torchrun", *nodes, "--nproc-per-node", here, "-m", "onelayer", "train", "--resume", str(directory)]

    def check(self, config: Config) -> None:
        several = f"the run has {self.size} ranks (torchrun)"
        if engine_row(config.agent.engine) in ("vllm", SERVER):
            raise UserError(f"agent.engine: {several}, each of which makes its own tokens; set it to transformers, or train in one process")
        if config.model.device.startswith("cuda:"):
            raise UserError(f"model.device: {several}, each of which takes a GPU of its own; set it to cuda or auto")

    def agree_on(self, what: str, make: Callable[[], object]) -> None:
        values = self.gather(make())
        if others := [rank for rank, value in enumerate(values) if value != values[0]]:
            raise UserError(f"{what} of rank {others[0]} and of rank 0 are not the same; start all ranks alike, with the same files")

    def dealt(self, plays: Sequence[Play], playing: Callable[[Sequence[Play]], Iterable[Episode]]) -> Iterable[Episode]:
        groups = list(dict.fromkeys(play.group for play in plays))
        mine = set(groups[self.rank :: self.size])
        places = [place for place, play in enumerate(plays) if play.group in mine]
        episodes, problem = list[Episode](), None
        try:
            for episode in playing([plays[place] for place in places]):
                episode.index = places[episode.index]
                episodes.append(episode)
        except UserError as error:  # the others wait for this rank, and are to stop where it does
            problem = str(error)
        answers = self.gather((episodes, problem))
        if problems := [problem for _, problem in answers if problem]:
            raise UserError(problems[0])
        return [episode for episodes, _ in answers for episode in episodes]

    def share(self, rows: Sequence[TrainingRow]) -> Sequence[TrainingRow]:
        mine = shares(rows, self.size)[self.rank]
        return [row for row in rows if row.group in mine]

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with self.talking(flat.device.type):
                distributed.all_reduce(flat)
            for tensor, total in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))
            self.sent += flat.nbytes

    def gather(self, value: T) -> list[T]:
        values: list[T] = [value] * self.size
        with self.talking():
            distributed.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        values = [make() if self.first else None]
        with self.talking():
            distributed.broadcast_object_list(values)
        return values[0]  # pyright: ignore[reportReturnType] (rank 0's)

    def tells(self) -> bool:
        """Whether this rank is the first to ask, which tells why the run ends."""
        try:
            return self._store.add("told", 1) == 1
        except RuntimeError:  # the store has ended with the rank that held it
            return True

    @contextmanager
    def talking(self, device: str = "cpu") -> Iterator[None]:
        """What torch says of a rank that does not answer becomes a LostRank. device: of the tensors that are sent."""
        try:
            if device == "cuda":  # NCCL waits for a process that has ended; gloo does not
                distributed.all_reduce(torch.zeros(1))
            yield
        except (RuntimeError, ConnectionError) as error:
            self.ending = True
            reason, *_ = re.sub(r"^\[\S+\] ", "", " ".join(str(error).split())).split(". ")  # without a place in torch's source
            raise LostRank(f"another rank of the run has ended or does not answer ({reason[:100]})") from error

    def _asked(self, number: int, frame: FrameType | None) -> None:
        """A signal while no run is open: this process ends without a word, unless it is about to tell why all end."""
        if not self.ending:
            raise SystemExit(128 + number)


def shares(rows: Sequence[TrainingRow], count: int) -> list[set[int]]:
    """Groups dealt into `count` shares of about equally many tokens: the largest first, each to the share that has least."""
    tokens: dict[int, int] = {}
    prompts = set[tuple[int, tuple[int, ...]]]()
    for row in rows:
        prompt = (row.group, tuple(row.prompt_ids))
        tokens[row.group] = tokens.get(row.group, 0) + len(row.token_ids) + (0 if prompt in prompts else len(row.prompt_ids))
        prompts.add(prompt)
    dealt: list[set[int]] = [set() for _ in range(count)]
    loads = [0] * count
    for group in sorted(tokens, key=lambda group: (-tokens[group], group)):
        least = loads.index(min(loads))
        dealt[least].add(group)
        loads[least] += tokens[group]
    return dealt


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in order, as many together as fit into `SENT_AT_ONCE`."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(held.nbytes for held in bucket) + tensor.nbytes > SENT_AT_ONCE:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def started() -> Iterator[ProcessGroup]:
    """The ranks that a launcher has started this process as one of. All but rank 0 show neither progress nor warnings."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    ranks = ProcessGroup()
    if not ranks.first:
        progress.show(False)
        logging.disable(logging.WARNING)
    try:
        yield ranks
        ranks.gather(None)  # rank 0 may still be writing
    except (UserError, Interrupted, LostRank) as error:
        ranks.ending = True
        if not ranks.tells():
            raise SystemExit(getattr(error, "exit_code", 2)) from None
        raise
    distributed.destroy_process_group()
