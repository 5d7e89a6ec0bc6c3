"""What verification leaves beside an evaluation, and how far an evaluation counts as verified.

`onelayer verify` writes verified.json. It holds the hashes of the files it vouches for, so that it means nothing beside others; a
submission cannot bring one along.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ...common.reading import open_regular, read_bytes
from ...evals.records import LARGEST_MANIFEST, MANIFEST
from ...evals.samples import SAMPLES

VERIFIED = "verified.json"


class Mark(StrEnum):
    """How far an entry was verified, the strongest first."""

    REGENERATED = "regenerated"
    """Checked, and items drawn at random were sampled again with the same tokens."""
    CHECKED = "checked"
    """Every hash and count is right, and every response was graded again with the same verdict."""
    UNVERIFIED = "unverified"
    """Nobody who made this site has verified it."""
    PUBLISHED = "published"
    """Figures of a paper: not measured here."""


class Verified(BaseModel):
    """verified.json"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    mark: Literal[Mark.REGENERATED, Mark.CHECKED]
    evaluation_sha256: str = Field(description="of evaluation.json")
    samples_sha256: str = Field(description="of samples.parquet")
    graded: int = Field(ge=0, description="samples that were graded again")
    lost: int = Field(ge=0, description="samples that had been lost to failing environments and cannot be graded")
    regenerated: int = Field(ge=0, description="samples that were made again")
    onelayer: str = Field(description="version that verified")
    finished: str = Field(description="UTC time, ISO 8601")


def mark_of(directory: Path) -> Mark:
    """The mark of an evaluation's directory: unverified where its verified.json is missing, broken, or vouches for other files."""
    path = directory / VERIFIED
    if not path.is_file():
        return Mark.UNVERIFIED
    try:
        found = Verified.model_validate_json(read_bytes(path, LARGEST_MANIFEST))
        same = (found.evaluation_sha256, found.samples_sha256) == (sha256(directory / MANIFEST), sha256(directory / SAMPLES))
    except (OSError, ValueError):
        return Mark.UNVERIFIED
    if not same:
        return Mark.UNVERIFIED
    return Mark.CHECKED if found.lost else Mark(found.mark)  # earlier releases believed what was told as lost


def sha256(path: Path) -> str:
    """Of a regular file, read in pieces."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
