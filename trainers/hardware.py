"""What devices hold and do, beside what a run takes: how many it needs, and how long a step is by what bench/gpu.py has measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError, first_problem
from ..common.reading import read_json_object
from .estimate import Estimate, Memory

GIB = 2**30
USABLE_GIB = {"h200": 131.0, "h100": 74.0, "a100-80": 74.0, "4090": 21.5}
"""Memory of one device that a run can use: what PyTorch reports as its total (139.7, 79.1, 79.2, 23.6 GiB), less 1 GiB for CUDA's context
and kernels, and of the rest 5% that the allocator loses to fragments; rounded down."""
MOST_DEVICES = 1024
LARGEST_CALIBRATION = 1 << 20  # bytes


class Measured(BaseModel):
    """One phase of a step, as bench/gpu.py has measured it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    parameters: int = Field(ge=1)
    trained_set: str
    phase: Literal["rollout", "update"]
    engine: str
    operations: float = Field(gt=0, description="as an estimate counts them")
    seconds: float = Field(gt=0)
    peak_gib: float | None = Field(default=None, description="most memory that was allocated; null: not measured")

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


class Calibration(BaseModel):
    """What bench/gpu.py writes: how fast the phases of a step are on one device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    hardware: str = Field(description="h200, h100, a100-80, 4090, or another name that bench/gpu.py was given")
    device: str = Field(description="as PyTorch names it")
    date: str = Field(description="YYYY-MM-DD")
    versions: dict[str, str]
    measured: list[Measured] = Field(min_length=1)
    further: dict[str, float | bool | str | None] = Field(
        default={}, description="what was measured besides, in words; no estimate uses it"
    )

    def seconds(self, found: Estimate, engine: str) -> dict[str, float] | None:
        """Of each phase of a step, at the rate of the measured phase that is most like it; null where one was not measured.

        Like it is first what trains all parameters or a part as it does, then the same engine, then a model of about the size.
        """
        operations = {"rollout": found.rollout_flops, "update": found.flops - found.rollout_flops}
        nearest = {}
        for phase in operations:
            if not (known := [one for one in self.measured if one.phase == phase]):
                return None
            nearest[phase] = min(
                known,
                key=lambda one: (
                    (one.trained_set == "full") != (found.trained_set == "full") and one.phase == "update",
                    one.engine != engine,
                    abs(math.log(one.parameters / found.parameters)),
                ),
            )
        return {phase: count / nearest[phase].rate for phase, count in operations.items()}


def read_calibration(path: Path, hardware: str) -> Calibration:
    """Raises UserError for a file that is none, or is of another device."""
    try:
        found = Calibration.model_validate(read_json_object(path, LARGEST_CALIBRATION))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; a calibration is written by bench/gpu.py") from error
    if found.hardware != hardware:
        raise UserError(f"{path}: is of {found.hardware} ({found.device}), and not of {hardware}; run bench/gpu.py there")
    return found


def peak_of_one(found: Estimate, devices: int) -> int:
    """Bytes that each of several devices would hold at most, as far as known, if weights, masters, gradients and moments of a run of all
    parameters were divided over them. Training on several devices does not divide them yet; of a layer there is nothing to divide."""

    def of(phase: Memory) -> int:
        if found.trained_set != "full" or devices == 1:
            return phase.total
        divided = phase.weights + phase.trained
        return phase.total - divided + -(-divided // devices) + found.gathered

    return max((of(phase) for phase in (found.rollout, found.update) if phase), default=0)


def devices_for(found: Estimate, usable: float) -> int | None:
    """The fewest devices of `usable` GiB on which a step would have enough memory (`peak_of_one`); null: more would not help, or it is not
    known."""
    if found.peak is None:
        return None
    most = MOST_DEVICES if found.trained_set == "full" else 1
    return next((devices for devices in range(1, most + 1) if peak_of_one(found, devices) <= usable * GIB), None)
