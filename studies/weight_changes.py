"""How far the runs of a study have moved the weights: a file in each run's directory, written once when the base is in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..agents.policy import Base
from ..agents.weight_change import WeightChange, weight_changes
from ..common.errors import UserError, first_problem
from ..common.files import write_atomically
from ..common.reading import read_bytes
from ..evals.records import LARGEST_MANIFEST
from ..trainers.manifest import PATCH, complete_manifest
from ..trainers.run import read_patch

FILE = "weight-changes.json"


class WeightChanges(BaseModel):
    """Of one run (weight-changes.json)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch_sha256: str = Field(description="SHA-256 of the run's patch")
    parts: list[WeightChange] = Field(description="decoder layers that the patch changes, then what is outside of them")


def keep_weight_changes(run: Path, base: Base) -> None:
    """Write those of a complete run, unless that was done before or its patch has been removed. base: with its own weights."""
    if (run / PATCH).exists() and not (run / FILE).exists():
        found = WeightChanges(patch_sha256=complete_manifest(run).patch_sha256, parts=weight_changes(base, read_patch(run)))
        write_atomically(run / FILE, found.model_dump_json(indent=2) + "\n")


def kept_weight_changes(run: Path) -> list[WeightChange]:
    """Those of a complete run; none where they were not written. Raises UserError for a file that is damaged or of another patch."""
    path = run / FILE
    if not path.exists():
        return []
    try:
        found = WeightChanges.model_validate_json(read_bytes(path, LARGEST_MANIFEST))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; remove it, and run the same `onelayer study` again") from error
    if found.patch_sha256 != complete_manifest(run).patch_sha256:
        raise UserError(f"{path}: of another patch than the run's; remove it, and run the same `onelayer study` again")
    return found.parts


def mean_changes(by_run: Sequence[Sequence[WeightChange]]) -> list[WeightChange]:
    """The means over runs of one trained set; none where one of them has none."""
    if not all(by_run):
        return []
    return [
        parts[0].model_copy(
            update={"l2": float(np.mean([one.l2 for one in parts])), "changed": float(np.mean([one.changed for one in parts]))}
        )
        for parts in zip(*by_run, strict=True)
    ]
