"""What lies below a directory of runs, while it changes: looked through at every question, read again only where files have changed."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.reading import LARGEST_YAML, parse_yaml, read_bytes
from ...evals.journal import JOURNAL
from ...evals.protocol import algorithm_of, section
from ...evals.records import MANIFEST
from ...evals.samples import SAMPLES
from ...evals.suites import SUITES
from ...studies import store
from ...studies.learning_curve import learning_curve
from ...studies.store import METRICS, RECIPE, REPORT, RUN, STUDY, DirectoryKind, State, StoreEntry
from ...studies.study_report import StudyReport, read_report
from ...trainers.held_out import HeldOut
from ...trainers.manifest import HELD_OUT
from ...trainers.metrics import PART, read_lines, read_metrics
from .episode_table import Episodes, GrowingEpisodes, Version, open_episodes

LOOK_EVERY = 1.0
"""Seconds: questions that come faster get the same answer."""
WATCHED = (MANIFEST, SAMPLES, JOURNAL, RUN, RECIPE, METRICS, HELD_OUT, STUDY, SUITES, REPORT, "patch.safetensors", "verified.json")
GROWING = (METRICS, HELD_OUT, JOURNAL)
Signature = tuple[Any, ...]
Point = Mapping[str, Any]


class Index:
    """The entries below a directory, by their paths relative to it. Several threads may ask."""

    def __init__(self, root: Path):
        self.root = root
        self._lock = threading.Lock()
        self._looked = -LOOK_EVERY
        self._found: dict[str, tuple[Signature, StoreEntry]] = {}
        self._journals: dict[str, GrowingEpisodes] = {}
        self._recipes: dict[str, tuple[Version, Mapping[str, Any]]] = {}
        self._reports: dict[str, tuple[Version, StudyReport]] = {}
        self._curves: dict[str, tuple[tuple[Version, Version | None], list[Point]]] = {}

    def entries(self) -> dict[str, StoreEntry]:
        """All that is there now, in the order of the paths."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_EVERY:
                self._found, self._looked = self._look(), time.monotonic()
            return {name: entry for name, (_, entry) in self._found.items()}

    def signature(self) -> Signature:
        """Changes when a run or an evaluation is completed, verified, changed or removed; not while one only grows."""
        self.entries()
        with self._lock:
            settled = [(name, found) for name, (found, entry) in self._found.items() if entry.state is not State.UNFINISHED]
        return tuple((name, tuple(part for part in found if part and part[0] not in GROWING)) for name, found in settled)

    def changed(self, name: str) -> float:
        """When a file of an entry was last written, in seconds since 1970."""
        with self._lock:
            times = [part[1] for part in self._found[name][0] if isinstance(part, tuple)] if name in self._found else []
        return max(times, default=0) / 1e9

    def episodes(self, name: str, entry: StoreEntry) -> Episodes:
        """The episodes of an entry. Raises UserError where they cannot be read."""
        journal = self._journal(name, entry.directory) if entry.kind is DirectoryKind.EVALUATION else None
        return open_episodes(entry.directory, entry.kind, journal)

    def recipe(self, name: str, entry: StoreEntry) -> Mapping[str, Any]:
        """The configuration of a run as it stands in its files; empty where there is none to be read."""
        if "config" in entry.manifest:
            return section(entry.manifest, "config")
        if (version := Version.of(entry.directory / RECIPE)) is None:
            return {}
        if self._recipes.get(name, (None,))[0] != version:
            self._recipes[name] = version, _read_yaml(version.path)
        return self._recipes[name][1]

    def report(self, name: str, entry: StoreEntry) -> StudyReport | None:
        """A study's report; None until it is complete. Raises UserError where it cannot be read."""
        if (version := Version.of(entry.directory / REPORT)) is None:
            return None
        if self._reports.get(name, (None,))[0] != version:
            self._reports[name] = version, read_report(entry.directory)
        return self._reports[name][1]

    def curve(self, name: str, entry: StoreEntry) -> list[Point]:
        """A run's metrics so far, a mapping for each step; `episodes`, `tokens` and `seconds` are those of the steps before it, `held_out`
        is pass@1 on the panel where that was played, and part/NAME are the environment's own figures.

        Raises UserError for broken metrics.
        """
        if (metrics := Version.of(entry.directory / METRICS)) is None:
            return []
        version = metrics, Version.of(entry.directory / HELD_OUT)
        if self._curves.get(name, (None,))[0] != version:
            settings = section(self.recipe(name, entry), "trainer")
            sizes = [settings.get(key) for key in ("prompts_per_step", "group_size")]
            steps = read_metrics(metrics.path)
            curve = learning_curve(steps, math.prod(size if isinstance(size, int) else 0 for size in sizes))
            points: dict[int, dict[str, Any]] = {
                step.step: step.model_dump() | {f"{PART}{name}": value for name, value in step.parts.items()} | point.model_dump()
                for step, point in zip(steps, curve.points, strict=True)
            }
            end = {"episodes": curve.episodes, "tokens": curve.tokens, "seconds": curve.seconds}
            for _, seen in read_lines(entry.directory / HELD_OUT, HeldOut):
                there = points.setdefault(seen.step, {"step": seen.step, **end})  # after the last step there is no rollout
                there["held_out"] = float(seen.sampled.rate_I.mean())
            self._curves[name] = version, list(points.values())
        return self._curves[name][1]

    def _look(self) -> dict[str, tuple[Signature, StoreEntry]]:
        found = {}
        for folder, inside, files in os.walk(self.root):
            inside[:] = sorted(name for name in inside if not name.startswith(".") and name != store.EPISODES)
            if kind := store.kind_of(files):
                directory = Path(folder)
                name = str(directory.relative_to(self.root))
                signature = (str(kind), *(_file_signature(directory / file) for file in WATCHED if file in files))
                before = self._found.get(name)
                found[name] = before if before and before[0] == signature else (signature, self._examine(name, directory, kind))
        return found

    def _examine(self, name: str, directory: Path, kind: DirectoryKind) -> StoreEntry:
        if kind is DirectoryKind.EVALUATION and not (directory / MANIFEST).exists():
            try:
                journal = self._journal(name, directory)
            except (UserError, OSError) as error:
                reason = str(error) if isinstance(error, UserError) else f"{directory}: {(error.strerror or str(error)).lower()}"
                return StoreEntry(directory, kind, State.BROKEN, problem=reason)
            return StoreEntry(directory, kind, State.UNFINISHED, {"samples": journal.read_on(), **journal.spent} if journal else {})
        return store.examine(directory, kind)

    def _journal(self, name: str, directory: Path) -> GrowingEpisodes | None:
        path = directory / JOURNAL
        if not path.exists():
            self._journals.pop(name, None)
            return None
        journal = self._journals.setdefault(name, GrowingEpisodes(path))
        journal.read_on()
        return journal


def _file_signature(path: Path) -> tuple[str, int, int] | None:
    version = Version.of(path)
    return version and (path.name, version.modified, version.size)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        found = parse_yaml(read_bytes(path, LARGEST_YAML))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def name_of(entry: StoreEntry, recipe: Mapping[str, Any]) -> str:
    """What a run or evaluation is, in a few words; empty where nothing tells."""
    found = entry.manifest
    if entry.kind is DirectoryKind.EVALUATION:
        return f"{found['policy']} on {found['split']}" if "policy" in found else ""
    if entry.kind is DirectoryKind.RUN:
        trainer = section(recipe, "trainer")
        return " ".join(str(part) for part in (algorithm_of(trainer), trainer.get("trained_set")) if part is not None)
    return ""
