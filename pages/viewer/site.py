"""What all pages of `onelayer view` share: a directory of runs, the leaderboard of it, and templates. Everything shown is escaped text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import jinja2

from ...common.errors import UserError
from ...common.text import shown
from ...evals.protocol import section
from ...evals.records import Decoding
from ...studies.leaderboard.build import build
from ...studies.leaderboard.records import Leaderboard
from ...studies.store import DirectoryKind, State, StoreEntry
from ..page import share_cell, templates
from .episode_page import NotFound, Query, number, url
from .run_index import Index, Signature, name_of

PATIENCE = 1.5
"""Seconds that a page waits for figures that are being computed; it shows them later if they come later."""
MOMENT = 0.2
"""The same for figures that it can do without."""


def _seconds_of(moment: object) -> float | None:
    """A moment in ISO 8601 as seconds since 1970; None where it is none."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except ValueError:
        return None


def date(seconds: float) -> str:
    """A moment to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them; nothing where they are not known."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    size, unit = next((size, unit) for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (0, "s")) if seconds >= size)
    return f"{seconds / (size or 1):.{int(size > 0)}f} {unit}"


@dataclass
class Board:
    """The leaderboard of the directory, computed in the background when evaluations come or go."""

    root: Path
    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _of: Signature | None = None
    _future: Future[Leaderboard] | None = None
    _last: Leaderboard | None = None

    def get(self, signature: Signature) -> tuple[Leaderboard | None, bool]:
        """The newest there is, and whether a newer one is being computed."""
        if self._future is None or (self._of != signature and self._future.done()):
            self._of, self._future = signature, self.worker.submit(build, self.root)
        with suppress(NotYet, UserError):  # the directory may be gone for the moment
            self._last = self._future.result(0 if self._last else PATIENCE)
        return self._last, not self._future.done()


@dataclass
class Later:
    """Figures that a page shows when they are there: computed in the background, each once for a leaderboard."""

    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _of: Leaderboard | None = None
    _futures: dict[object, Future[Any]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, board: Leaderboard | None, jobs: Mapping[object, Callable[[], Any]]) -> dict[object, Any]:
        """What is done of these within a moment."""
        with self._lock:
            if board is not self._of:
                for future in self._futures.values():
                    future.cancel()
                self._of, self._futures = board, {}
            asked = {key: self._futures.get(key) or self.worker.submit(job) for key, job in jobs.items()}
            self._futures |= asked
        wait(asked.values(), MOMENT)
        return {key: future.result() for key, future in asked.items() if future.done() and not future.cancelled()}


class Site:
    """All pages of a directory of runs."""

    def __init__(self, root: Path, tabs: Mapping[str, str]):
        """tabs: the pages that each page links to, by address, and their labels."""
        self.root, self.tabs = root, tabs
        self.index = Index(root)
        self.board = Board(root)
        self.later = Later()

    @cached_property
    def _templates(self) -> jinja2.Environment:
        return templates(tabs=self.tabs, url=url, shown=shown, number=number, date=date, duration=duration)

    def render(self, template: str, **texts: object) -> str:
        """A page as HTML."""
        return self._templates.get_template(template).render(root=self.root.resolve().name or "/", **texts)

    def problem(self, error: object) -> str:
        """A message with paths as the pages name them."""
        return shown(str(error).replace(f"{self.root}/", ""))

    def told(self, tell: Callable[[], str]) -> str:
        """A figure in a sentence, or the reason why there is none."""
        try:
            return tell()
        except (UserError, OSError, ValueError) as error:
            return f"none, since {self.problem(error)}."

    def row(self, name: str, entry: StoreEntry) -> dict[str, Any]:
        """What is shown of a run or an evaluation in a line: texts, and the figures that lines are sorted by; None where there is none."""
        found, recipe = entry.manifest, self.index.recipe(name, entry)
        done = wanted = None
        if entry.kind is DirectoryKind.RUN and entry.state is State.UNFINISHED:
            done, wanted = found.get("steps_done"), section(recipe, "trainer").get("steps")
        if entry.kind is DirectoryKind.EVALUATION and entry.state is State.UNFINISHED:
            done, wanted = found.get("samples"), found.get("wanted")
        rates = {
            decoding.value: section({} if decoding.value == found.get("repeats") else section(found, decoding.value), "pass_rate")
            for decoding in Decoding
        }
        seconds = section(found, "cost").get("seconds")
        seed = section(recipe, "trainer").get("seed") if entry.kind is DirectoryKind.RUN else None
        what = shown(name_of(entry, recipe)) + (shown(f", seed {seed}") if seed is not None else "")
        return {
            "name": name,
            "entry": entry,
            "what": what or self._contributions(name, entry),
            "rates": {
                decoding: f"{rate['mean']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]" if rate else "" for decoding, rate in rates.items()
            },
            **{decoding: rate.get("mean") for decoding, rate in rates.items()},
            "seconds": seconds if isinstance(seconds, int | float) else None,
            "date": _seconds_of(found.get("finished")) or self.index.changed(name),
            "done": done,
            "wanted": wanted,
            "unit": "steps" if entry.kind is DirectoryKind.RUN else "samples",
        }

    def _contributions(self, name: str, entry: StoreEntry) -> str:
        """C(k) of each trained set of a study, in a line."""
        try:
            report = self.index.report(name, entry)
        except (UserError, OSError) as error:
            return self.problem(error)
        shares = [(arm.name, arm.sampled.contribution) for arm in report.arms if arm.sampled.contribution] if report else []
        return "; ".join(
            shown(f"C({set}) {' '.join(filter(None, (cell.figure, cell.detail)))}") for set, share in shares for cell in [share_cell(share)]
        )

    def entry(self, query: Query) -> tuple[str, StoreEntry]:
        """What a query names. Names are those that were found, so none leads out of the directory."""
        name = query.get("run", "")
        if (entry := self.index.entries().get(name)) is None:
            raise NotFound(f"{shown(name)}: there is no such run here, or no longer")
        return name, entry
