"""A submission of a base and a trained layer, and changes to its files with all hashes computed anew."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onelayer.evals.evaluator import summarise
from onelayer.evals.records import MANIFEST, Decoding
from onelayer.evals.samples import SAMPLES, Sample, read_samples, write_samples
from onelayer.studies.leaderboard.marks import Mark
from onelayer.studies.store import SUBMISSION
from onelayer.studies.submissions.archive import read_submission
from onelayer.studies.submissions.verification import Tools, check_files, verify

ITEMS, EACH = 8, 2
LAYER, RUN = "evaluation-1", "run-0"  # of the archive: the base is evaluation-0


def seal(directory: Path) -> None:
    """List the hashes of the files as they are now, as anyone can."""
    submission = read_submission(directory)
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file() and path.name != SUBMISSION}
    filed = {name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size} for name, path in paths.items()}
    (directory / SUBMISSION).write_text(json.dumps(submission.model_dump() | {"files": filed}))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest."""
    found = json.loads(path.read_bytes())
    change(found)
    path.write_text(json.dumps(found))


def rewrite(directory: Path, change: Callable[[list[Sample]], list[Sample]], figures: bool = True) -> None:
    """Change the records, and everything that follows from them as far as it still does."""
    samples = change(read_samples(directory / SAMPLES))
    new: dict[str, Any] = {"samples_sha256": hashlib.sha256(write_samples(directory / SAMPLES, samples)).hexdigest()}
    if figures:
        for decoding in Decoding:
            new[decoding.value] = summarise([one for one in samples if one.decoding == decoding]).model_dump(mode="json")
    edit(directory / MANIFEST, lambda found: found.update(new))


def as_right(samples: list[Sample]) -> list[Sample]:
    return [one.model_copy(update={"verdict": "correct", "reward": 1.0}) for one in samples]


def replaced(samples: list[Sample], at: int, **fields: object) -> list[Sample]:
    return [one.model_copy(update=fields) if number == at else one for number, one in enumerate(samples)]


def lost(which: Callable[[Sample], bool], name: str = LAYER) -> Doctor:
    """Some samples are told as lost to a failing environment."""
    gone = {"verdict": "error", "reward": 0.0, "error": "OSError: disk full"}
    return lambda d: rewrite(d / name, lambda rows: [row.model_copy(update=gone) if which(row) else row for row in rows])


def told(**changes: object) -> Doctor:
    """The evaluation tells something else; `a__b` is key b in a."""

    def change(found: dict[str, Any]) -> None:
        for name, value in changes.items():
            *above, last = name.split("__")
            place = found
            for key in above:
                place = place[key]
            place[last] = value

    return lambda d: edit(d / LAYER / MANIFEST, change)


Doctor = Callable[[Path], object]


def check(directory: Path, tools: Tools, regenerate: int = 0) -> list[Mark]:
    return [verify(claim, tools, regenerate, seed=3).mark for claim in check_files(directory, read_submission(directory))]


def tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as archive:
        for header, data in members:
            archive.addfile(header, io.BytesIO(data))


def member(name: str, data: bytes = b"{}", type: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size, header.type, header.linkname = len(data) if type == tarfile.REGTYPE else 0, type, link
    return header, data
