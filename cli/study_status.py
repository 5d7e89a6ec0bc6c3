"""What a study is at, as a table: `onelayer study status`, and while one goes on in parallel."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.text import Text

from ..common.console import Console, Table
from ..common.errors import UserError
from ..common.text import printable
from ..studies.status import State, TaskStatus, status
from ..studies.store import STUDY
from ..trainers.config import Config
from .config import load

ROWS = 20
"""Of the table that is shown while a study goes on."""
EVERY = 2.0
"""Seconds between two looks at the directory."""


def print_status(directories: Sequence[str]) -> None:
    """Raises UserError for a directory without a study."""
    if len(directories) != 1:
        raise UserError("onelayer study status takes the directory of one study, for example: onelayer study status runs/quickstart")
    directory = Path(directories[0])
    for study in sorted(path.parent for path in directory.glob(f"*/{STUDY}")) or [directory]:
        tasks = status(_recipe(study), study)
        Console().print(Group(Text(printable(str(study))), _table(tasks), Text(_summary(tasks))))


@contextmanager
def watching(directory: Path) -> Iterator[Callable[[], None]]:
    """A function that shows how far the study is, now and then: a table in a terminal, elsewhere a line for each task that is done."""
    console, told, looked, started = Console(stderr=True), set[str](), 0.0, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False) as live:

        def look() -> None:
            nonlocal looked
            if time.monotonic() - looked < EVERY or not (directory / STUDY).exists():
                return
            looked = time.monotonic()
            tasks = status(_recipe(directory), directory)
            if console.is_terminal:
                busy = sorted(tasks, key=lambda one: (one.state is State.WAITING, one.state is State.DONE))[:ROWS]
                live.update(Group(_table(busy), Text(f"{_summary(tasks)}, {looked - started:.0f} s")), refresh=True)
                return
            for one in tasks:
                if one.state is State.DONE and str(one.task) not in told:
                    told.add(str(one.task))
                    print(f"{printable(str(one.task))}: {_figure(one)}; {_summary(tasks)}", file=sys.stderr, flush=True)

        yield look
        looked = 0.0
        look()


def _recipe(directory: Path) -> Config:
    if not (directory / STUDY).is_file():
        raise UserError(f"{directory}: no study; `onelayer runs list` shows what there is")
    return load(str(directory / STUDY), earlier=True)


def _table(tasks: Sequence[TaskStatus]) -> Table:
    table = Table("run", "evaluated on", "state", "done", "figure", box=None)
    for one in tasks:
        done = f"{one.done} of {one.wanted}" if one.wanted else ""
        table.add_row(*(Text(printable(cell)) for cell in (str(one.task), one.task.split, one.state, done, _figure(one))))
    return table


def _figure(one: TaskStatus) -> str:
    if one.figure is None:
        return ""
    return f"{'pass@1' if one.state is State.DONE else 'reward'} {one.figure:.3f}"


def _summary(tasks: Sequence[TaskStatus]) -> str:
    done = sum(one.state is State.DONE for one in tasks)
    busy = sum(one.state in (State.TRAINING, State.EVALUATING) for one in tasks)
    return f"{done} of {len(tasks)} done, {busy} begun"
