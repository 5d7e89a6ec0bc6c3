"""Whether a launcher has started this process as one of several ranks, told without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from .ranks import ONE_PROCESS, Ranks


def launched() -> int:
    """How many ranks torchrun, or another launcher that tells as it does, has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1")) if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else 1


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that this process is one of. Of an error that ends them all, one rank tells and the others exit in silence."""
    if launched() == 1:
        yield ONE_PROCESS
    else:
        from .process_group import started  # brings torch

        with started() as ranks:
            yield ranks
