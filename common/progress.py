"""How far a piece of work is, on stderr: a bar on a terminal, elsewhere a plain line a step. Results go to stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from .text import printable

_shown = True


def show(wanted: bool) -> None:
    """Whether progress is shown from here on."""
    global _shown
    _shown = wanted


def say(text: str) -> None:
    """A line about the progress of the whole."""
    if _shown:
        print(printable(text), file=sys.stderr, flush=True)


class Progress:
    """Steps done of a total. This one shows nothing."""

    def __init__(self, name: str, total: int, done: int):
        self.name, self.total, self.done, self.text = printable(name), total, done, ""

    def note(self, text: str) -> None:
        """What to show beside the steps, until something else is noted."""
        self.text = printable(text)

    def advance(self) -> None:
        """One step more is done."""
        self.done += 1


class _Lines(Progress):
    """Lines of `name  3/20  note  0:01:20 left`: one at the end, and before it one a step, or for a step at least `every` seconds later."""

    def __init__(self, name: str, total: int, done: int, every: float):
        super().__init__(name, total, done)
        self._before, self._every = done, every
        self._started = self._told = time.monotonic()

    def advance(self) -> None:
        super().advance()
        now = time.monotonic()
        if now - self._told >= self._every or self.done == self.total:
            self._told = now
            left = (now - self._started) / (self.done - self._before) * (self.total - self.done)
            parts = [self.name, f"{self.done}/{self.total}", self.text, f"{duration(left)} left"]
            print("  ".join(filter(None, parts)), file=sys.stderr, flush=True)


class _Bar(Progress):
    """A row of a terminal that is drawn again and again."""

    def __init__(self, name: str, total: int, done: int, show: Callable[[Progress], None]):
        super().__init__(name, total, done)
        self._show = show

    def note(self, text: str) -> None:
        super().note(text)
        self._show(self)

    def advance(self) -> None:
        super().advance()
        self._show(self)


@contextmanager
def progress(name: str, total: int, done: int = 0, *, every: float = 0, stays: bool = False) -> Iterator[Progress]:
    """Show how far it is. every: seconds between lines where no bar can be drawn. stays: leave the bar on the terminal at the end."""
    from .console import Console

    console = Console(stderr=True)
    if not _shown:
        yield Progress(name, total, done)
    elif not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(name, total, done, every)
    else:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = [TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False)]
        with Bars(*columns, console=console, transient=not stays) as bars:
            task = bars.add_task(printable(name), total=total, completed=done, note="")
            yield _Bar(name, total, done, lambda one: bars.update(task, completed=one.done, note=one.text))


def duration(seconds: float) -> str:
    """As H:MM:SS."""
    return str(timedelta(seconds=round(seconds)))
