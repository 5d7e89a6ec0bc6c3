"""A directory of runs as a database: what is in it, and DuckDB over the samples. docs/run-store.md is the format.

Nothing is fatal to a reader: a directory whose files cannot be read is an entry that says so.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..common.errors import UserError, first_problem
from ..common.reading import open_regular, read_bytes
from ..envs.config import model_of
from ..evals.journal import JOURNAL, progress
from ..evals.protocol import section
from ..evals.records import LARGEST_MANIFEST, LIMITS, MANIFEST, Decoding, Evaluation, read_manifest
from ..evals.samples import SAMPLES, read_columns
from ..evals.suites import SUITES, Suites
from ..trainers.manifest import CONFIG as RECIPE
from ..trainers.manifest import EPISODES, METRICS, PATCH
from ..trainers.manifest import MANIFEST as RUN
from ..trainers.manifest import read_manifest as read_run_manifest

if TYPE_CHECKING:
    import duckdb

STUDY, REPORT, SUBMISSION = "study.yaml", "report.json", "submission.json"


class DirectoryKind(StrEnum):
    """What a directory is."""

    EVALUATION = "evaluation"
    """One policy on one split."""
    RUN = "run"
    """A training run."""
    STUDY = "study"
    """A recipe's base, runs and evaluations."""
    GROUP = "group"
    """Evaluations of one policy on several suites."""


class State(StrEnum):
    """How far it is."""

    COMPLETE = "complete"
    """Its manifest is there, and agrees with its files."""
    UNFINISHED = "unfinished"
    """Begun: it goes on, or was stopped."""
    BROKEN = "broken"
    """A file of it cannot be read, or contradicts another."""


@dataclass(frozen=True)
class StoreEntry:
    """One run, evaluation, study or group."""

    directory: Path
    kind: DirectoryKind
    state: State
    manifest: Mapping[str, Any] = field(default_factory=dict)
    """As JSON; of an unfinished evaluation what its journal tells; empty where there is none."""
    problem: str = ""
    """Why it is broken, in one line."""


def scan(root: Path) -> list[StoreEntry]:
    """All that lies in a directory of runs, at any depth, in the order of its paths. Links are not followed.

    Raises UserError where `root` is no directory that can be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: {'a file, not a directory' if root.exists() else 'no such directory'}; name a directory of runs")
    return [examine(folder, kind) for folder, files in folders(root) if (kind := kind_of(files))]


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """A directory and those in it, at any depth, each with the names of its files; not hidden ones, nor the episodes of a training, nor
    an evaluation's replies cut at lower limits, which are no samples of their own."""
    for folder, inside, files in os.walk(root):
        left_out = {EPISODES, LIMITS} if MANIFEST in files else {EPISODES}
        inside[:] = sorted(name for name in inside if not name.startswith(".") and name not in left_out)
        yield Path(folder), files


def kind_of(files: Sequence[str]) -> DirectoryKind | None:
    """What a directory with these files is; None: nothing of ours."""
    names = set(files)
    if STUDY in names:
        return DirectoryKind.STUDY
    if names & {RECIPE, RUN}:
        return DirectoryKind.RUN
    if names & {MANIFEST, JOURNAL, SAMPLES}:
        return DirectoryKind.EVALUATION
    return DirectoryKind.GROUP if SUITES in names else None


def examine(directory: Path, kind: DirectoryKind) -> StoreEntry:
    """An entry for a directory of this kind."""
    look = {DirectoryKind.EVALUATION: _evaluation, DirectoryKind.RUN: _run, DirectoryKind.STUDY: _study, DirectoryKind.GROUP: _group}[kind]
    try:
        return look(directory)
    except (UserError, OSError, ValueError) as error:
        return StoreEntry(directory, kind, State.BROKEN, problem=" ".join(str(error).split()))


def open_entry(directory: Path) -> StoreEntry:
    """The entry of one directory. Raises UserError where it is none."""
    if not directory.is_dir():
        found = "a file, not a directory" if directory.exists() else "no such directory"
        raise UserError(f"{directory}: {found}; `onelayer runs list` shows what there is")
    kind = kind_of([path.name for path in directory.iterdir()])
    if kind is None:
        raise UserError(f"{directory}: no run, evaluation or study; `onelayer runs list {directory}` shows what is below it")
    return examine(directory, kind)


def _evaluation(directory: Path) -> StoreEntry:
    if not (directory / MANIFEST).exists():
        return StoreEntry(directory, DirectoryKind.EVALUATION, State.UNFINISHED, progress(directory / JOURNAL))
    manifest = read_manifest(directory)
    rows = Counter(read_columns(directory / SAMPLES, ["decoding"], manifest.samples_sha256)["decoding"])
    for decoding in Decoding:
        expected = manifest.items * manifest.scores(decoding).samples
        if (there := rows[decoding.value]) != expected:
            raise UserError(f"{directory / SAMPLES}: {there} {decoding} records, the manifest says {expected}; run this evaluation again")
    return StoreEntry(directory, DirectoryKind.EVALUATION, State.COMPLETE, manifest.model_dump(mode="json"))


def _run(directory: Path) -> StoreEntry:
    manifest = read_run_manifest(directory)
    if manifest is None:
        return StoreEntry(directory, DirectoryKind.RUN, State.UNFINISHED, {"steps_done": _lines(directory / METRICS)})
    if not (directory / PATCH).is_file():
        raise UserError(f"{directory}: complete by its {RUN}, but without {PATCH}")
    return StoreEntry(directory, DirectoryKind.RUN, State.COMPLETE, manifest.model_dump(mode="json"))


def _study(directory: Path) -> StoreEntry:
    state = State.COMPLETE if (directory / REPORT).exists() else State.UNFINISHED
    return StoreEntry(directory, DirectoryKind.STUDY, state)


def _group(directory: Path) -> StoreEntry:
    try:
        found = Suites.model_validate_json(read_bytes(directory / SUITES, LARGEST_MANIFEST))
    except ValidationError as error:
        raise UserError(f"{directory / SUITES}: {first_problem(error)}; run the same `onelayer eval` again") from error
    return StoreEntry(directory, DirectoryKind.GROUP, State.COMPLETE, found.model_dump(mode="json"))


def _lines(path: Path) -> int:
    """Whole lines of a file; none of one that is not there."""
    if not path.exists():
        return 0
    with open_regular(path) as file:
        return sum(line.endswith(b"\n") for line in file)


def trained_on(recipe: Mapping[str, Any]) -> str:
    """The suite that a run trains on, as its splits name it, from its configuration."""
    env = section(recipe, "env")
    return model_of({"id": env.get("id")}).trained_on(env)


def submission_of(directory: Path) -> Path | None:
    """The unpacked submission that a directory lies in; None: it was made here."""
    above = Path(os.path.abspath(directory)).parents
    return next((folder for folder in above if (folder / SUBMISSION).is_file()), None)


def evaluations(entries: Sequence[StoreEntry]) -> Iterator[tuple[Path, Evaluation]]:
    """The complete evaluations among them, with their directories."""
    for entry in entries:
        if entry.kind is DirectoryKind.EVALUATION and entry.state is State.COMPLETE:
            yield entry.directory, Evaluation.model_validate(entry.manifest)


def connect(root: Path, entries: Sequence[StoreEntry] | None = None) -> duckdb.DuckDBPyConnection:
    """DuckDB with the tables `evaluations` and `runs` (manifests of what is complete) and the view `samples` (their parquet files, with
    `directory`).

    entries: of `scan`, where that has been done. Nested parts of a manifest are JSON.
    """
    import duckdb

    entries = scan(root) if entries is None else entries
    connection = duckdb.connect()
    complete = [entry for entry in entries if entry.state is State.COMPLETE]
    for kind, name, columns in ((DirectoryKind.EVALUATION, "evaluations", EVALUATION_COLUMNS), (DirectoryKind.RUN, "runs", RUN_COLUMNS)):
        connection.execute(f"create table {name} (directory varchar, {', '.join(f'{key} {type}' for key, type in columns.items())})")
        rows = [[str(entry.directory), *_values(entry.manifest, columns)] for entry in complete if entry.kind is kind]
        if rows:
            connection.executemany(f"insert into {name} values (?{', ?' * len(columns)})", rows)
    files = [str(entry.directory / SAMPLES) for entry in complete if entry.kind is DirectoryKind.EVALUATION]
    if files:
        # A name is no pattern, and a directory called `verdict=correct` no column.
        listed = ", ".join("'" + glob.escape(file).replace("'", "''") + "'" for file in files)
        connection.execute(
            f"create view samples as select parse_dirpath(filename) as directory, * exclude (filename) "
            f"from read_parquet([{listed}], filename = true, hive_partitioning = false)"
        )
    return connection


EVALUATION_COLUMNS = {
    "policy": "varchar",
    "source": "varchar",
    "model": "varchar",
    "base": "varchar",
    "patches": "varchar[]",
    "trained": "json",
    "domain": "varchar",
    "split": "varchar",
    "digest": "varchar",
    "items": "integer",
    "temperature": "double",
    "max_tokens": "integer",
    "seed": "bigint",
    "protocol": "varchar",
    "finished": "varchar",
    "cost": "json",
    "sampled": "json",
    "greedy": "json",
    "config": "json",
}
RUN_COLUMNS = {
    "base": "varchar",
    "trained_set": "varchar",
    "trained_parameters": "bigint",
    "total_parameters": "bigint",
    "split": "varchar",
    "patch_sha256": "varchar",
    "finished": "varchar",
    "cost": "json",
    "config": "json",
}


def _values(manifest: Mapping[str, Any], columns: Mapping[str, str]) -> list[Any]:
    return [json.dumps(manifest.get(name)) if type == "json" else manifest.get(name) for name, type in columns.items()]
