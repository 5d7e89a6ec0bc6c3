"""A submission: evaluations with the patches and the manifests of the runs that they come from, in one archive.

The archive is a plain tar without compression, written so that the same files are the same bytes, and read block by block: regular files
under a few fixed names and nothing else, so that there is no path to escape by, no link to follow and nothing that unfolds.
docs/submissions.md describes it.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...common.errors import UserError, first_problem
from ...common.reading import open_regular, read_bytes
from ...common.text import printable
from ...evals.records import MANIFEST, Evaluation, read_manifest
from ...evals.samples import SAMPLES
from ..leaderboard.marks import VERIFIED, sha256
from ..leaderboard.measured import chose_a_rate
from ..store import PATCH, RUN, SUBMISSION, folders

NAME = re.compile(
    rf"{re.escape(SUBMISSION)}|evaluation-[0-9]{{1,4}}/({re.escape(MANIFEST)}|{re.escape(SAMPLES)})|run-[0-9]{{1,4}}/(run\.json|{re.escape(PATCH)})"
)
BLOCK = tarfile.BLOCKSIZE
LARGEST = 8**11 - 1  # bytes of one file, as many as a tar header of the plain kind can tell
LARGEST_JSON = 8 << 20
"""Bytes of the manifests of an archive together: read, they take some thirty times as many."""
CHUNK = 1 << 20


class Filed(BaseModel):
    """One file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    size: int = Field(ge=0, description="bytes")


class Submission(BaseModel):
    """submission.json: everything else in the archive."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    onelayer: str = Field(description="version that packed it")
    files: dict[str, Filed] = Field(description="by name in the archive")


@dataclass(frozen=True)
class Claim:
    """An evaluation and what it is said to be of."""

    directory: Path
    manifest: Evaluation
    patches: list[Path]
    """Its patches in the order of the manifest; the manifest of the run that one comes from lies beside it."""


def gather(directories: Sequence[Path]) -> list[Claim]:
    """The complete evaluations in these directories, each with its patches; records are not looked at.

    A patch is looked for in the directories and in the run that an evaluation lies in. Raises UserError where there is no evaluation, a
    manifest is broken, or a patch is missing.
    """
    found = {Path(os.path.abspath(place)): place for directory in directories for place in _evaluations(directory)}
    if not found:
        raise UserError(f"{', '.join(map(str, directories))}: no complete evaluation here; run `onelayer eval` first")
    inside = (path for directory in directories for path in sorted(directory.rglob(PATCH)))
    beside = (directory.parent / PATCH for directory in found)
    paths = dict.fromkeys(Path(os.path.abspath(path)) for path in (*inside, *beside) if path.is_file())
    hashes = {path: sha256(path) for path in paths}
    return [_claim(directory, hashes, where.parent / PATCH) for where, directory in found.items()]


def _evaluations(root: Path) -> Iterator[Path]:
    """Directories of complete evaluations but for those that chose a study's learning rate. Links are not followed; nothing is read."""
    return (folder for folder, files in folders(root) if MANIFEST in files and not chose_a_rate(folder))


def _claim(directory: Path, hashes: Mapping[Path, str], own: Path) -> Claim:
    """hashes: of the patches at hand. own: the patch of the run that the evaluation lies in, where it lies in one."""
    manifest = read_manifest(directory)
    patches = {sha: path for path, sha in reversed([*hashes.items()])} | ({hashes[own]: own} if own in hashes else {})
    if missing := [one for one in manifest.patches if one not in patches]:
        raise UserError(
            printable(f"{directory}: the patch {missing[0][:12]} of {manifest.policy} is not here; name the directory of its run, too")
        )
    return Claim(directory, manifest, [patches[one] for one in manifest.patches])


def pack(claims: Sequence[Claim], output: Path) -> Submission:
    """Write the archive, whole or not at all. The same claims, in any order, are the same bytes.

    Raises UserError where a file cannot be read or written, or is larger than an archive may hold.
    """
    claims = sorted(claims, key=lambda claim: (claim.manifest.policy, claim.manifest.split, sha256(claim.directory / MANIFEST)))
    runs = {sha: path for claim in claims for sha, path in zip(claim.manifest.patches, claim.patches, strict=True)}
    sources: dict[str, Path] = {}
    for number, claim in enumerate(claims):
        sources |= {f"evaluation-{number}/{name}": claim.directory / name for name in (MANIFEST, SAMPLES)}
    for number, path in enumerate(runs[sha] for sha in sorted(runs)):
        sources |= {f"run-{number}/{name}": file for name in (PATCH, RUN) if (file := path.parent / name).is_file()}
    if odd := [name for name in sources if not NAME.fullmatch(name)]:
        raise UserError(f"{len(claims)} evaluations are more than one submission takes ({odd[0]}); pack them in several")
    files = {name: Filed(sha256=sha256(path), size=path.stat().st_size) for name, path in sources.items()}
    if large := [name for name, file in files.items() if file.size > LARGEST]:
        raise UserError(f"{sources[large[0]]}: larger than 8 GiB; a submission cannot hold it")
    for number, claim in enumerate(claims):
        if files[f"evaluation-{number}/{SAMPLES}"].sha256 != claim.manifest.samples_sha256:
            raise UserError(f"{claim.directory / SAMPLES}: not the records that {MANIFEST} names; run this evaluation again")
    submission = Submission(onelayer=version("onelayer"), files=files)
    manifests = len(submission.model_dump_json(indent=1)) + sum(file.size for name, file in files.items() if name.endswith(".json"))
    if manifests >= LARGEST_JSON:
        raise UserError(
            f"{len(claims)} evaluations have {manifests} bytes of manifests, more than one submission takes; pack them in several"
        )
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            _write(file, submission, sources)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error}); choose another place or free this one") from error
    finally:
        temporary.unlink(missing_ok=True)
    return submission


def _write(file: BinaryIO, submission: Submission, sources: dict[str, Path]) -> None:
    data = (submission.model_dump_json(indent=1) + "\n").encode()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(_header(SUBMISSION, len(data)), io.BytesIO(data))
        for name, path in sources.items():
            with path.open("rb") as source:
                archive.addfile(_header(name, submission.files[name].size), source)


def _header(name: str, size: int) -> tarfile.TarInfo:
    """Nothing in it tells when, by whom or where the file was made."""
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def unpack(archive: Path, directory: Path) -> None:
    """Write the files of an archive into a directory, which is made. Raises UserError for what is no submission."""
    try:
        with open_regular(archive) as file:
            for name, size in _members(file, archive):
                path = directory / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as out:
                    while size:
                        chunk = file.read(min(CHUNK, size))
                        if not chunk:
                            raise UserError(f"{archive}: ends within {name}; it was not copied whole")
                        size -= out.write(chunk)
    except OSError as error:
        raise UserError(f"{error.filename or archive}: {error.strerror or error}; name a file that `onelayer submit` wrote") from error


def _members(file: BinaryIO, archive: Path) -> Iterator[tuple[str, int]]:
    """Name and size of each file; `file` stands at its first byte. Extensions of the format (long names, links, sparse files) are refused:
    a submission has none."""
    total, seen, at, manifests = os.fstat(file.fileno()).st_size, set[str](), 0, 0
    while True:
        file.seek(at)
        block = file.read(BLOCK)
        if not block.strip(b"\0"):
            break
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise UserError(f"{archive}: no submission ({error}); name a file that `onelayer submit` wrote") from error
        name, size = printable(header.name), header.size
        if header.type != tarfile.REGTYPE or not NAME.fullmatch(header.name):
            what = f"{name!r}" if header.type == tarfile.REGTYPE else f"{name!r}, which is no regular file,"
            own = "; marks are given here and cannot be brought along" if name.endswith(VERIFIED) else ""
            raise UserError(f"{archive}: {what} has no place in a submission{own}")
        if name in seen:
            raise UserError(f"{archive}: holds {name} twice")
        if not 0 <= size <= total - at - BLOCK:
            raise UserError(f"{archive}: {name} would be {size} bytes, more than the whole archive; it was not copied whole")
        manifests += size if name.endswith(".json") else 0
        if manifests > LARGEST_JSON:
            raise UserError(f"{archive}: with {name} its manifests are {manifests} bytes, more than the {LARGEST_JSON} that are read")
        seen.add(name)
        yield name, size
        at += BLOCK + -(-size // BLOCK) * BLOCK
    if SUBMISSION not in seen:
        raise UserError(f"{archive}: no submission, it has no {SUBMISSION}; name a file that `onelayer submit` wrote")


def read_submission(directory: Path) -> Submission:
    """submission.json of an unpacked archive. Raises UserError where it is none."""
    try:
        return Submission.model_validate_json(read_bytes(directory / SUBMISSION, LARGEST_JSON))
    except (OSError, ValidationError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else error.strerror
        raise UserError(printable(f"{SUBMISSION}: cannot be read ({problem}); pack the submission again")) from error
