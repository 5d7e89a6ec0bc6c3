"""What a training run tells of its steps: lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..common.errors import UserError, first_problem
from ..common.reading import parse_json, read_bytes

LARGEST_FILE, LARGEST_LINE = 256 << 20, 16 << 20  # bytes: a step has about a thousand
MOST_STEPS = 1 << 18
"""Lines of a file: read, each takes two kilobytes."""
LAST_STEP = 10**9
PART = "part/"
"""Before the names of an environment's own figures in the metrics file."""


class OfStep(BaseModel):
    """A line of such a file; other keys are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int = Field(ge=0, le=LAST_STEP, description="steps done before: that of a rollout and update, from 0")


class StepMetrics(OfStep):
    """One training step as the metrics file has it."""

    reward: float | None = Field(allow_inf_nan=False, description="mean reward of the rollout, sampled before the update")
    success: float | None = Field(default=None, ge=0, le=1, description="share of solved episodes")
    kl: float | None = Field(default=None, description="mean k3 estimate of the KL to the base; null where it was not computed")
    entropy: float | None = Field(default=None, description="mean entropy of the sampling distribution, nats per token")
    grad_norm: float | None = Field(default=None, description="gradient norm before clipping")
    response_length: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="tokens of a response, mean")
    rollout_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="wall-clock seconds of the rollout")
    update_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="wall-clock seconds of the update")
    sync_seconds: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="wall-clock seconds of handing the weights to the engine"
    )
    tokens: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="tokens sampled")
    episodes: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="episodes played, without those that failing environments lost"
    )
    dropped: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="episodes left out, since environments failed")
    groups_kept: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="groups with an advantage")
    truncated: float | None = Field(default=None, ge=0, le=1, description="share of replies that reached agent.max_tokens")
    parts: dict[str, float] = Field(
        default={}, description="means of the environment's own figures; a key part/NAME each in the file", exclude=True
    )

    @model_validator(mode="before")
    @classmethod
    def _with_parts(cls, line: Any) -> Any:
        if not isinstance(line, dict):
            return line
        found = {key.removeprefix(PART): value for key, value in line.items() if key.startswith(PART) and value is not None}
        return {"parts": found} | line


Line = TypeVar("Line", bound=OfStep)


def read_metrics(path: Path, most: int | None = None) -> list[StepMetrics]:
    """The first `most` steps of a run (null: all). Raises as `read_lines` does."""
    return [step for _, step in islice(read_lines(path, StepMetrics), most)]


def read_lines(path: Path, kind: type[Line]) -> Iterator[tuple[bytes, Line]]:
    """Each line of JSON of a file that grows, with its line break and as a model; none where there is no such file.

    What stands after the last line break is not there: it is being written. Raises UserError with file and line for one that is broken,
    too long, or of a step that does not come after the one before.
    """
    data, before = read_bytes(path, LARGEST_FILE) if path.exists() else b"", -1
    if (count := data.count(b"\n")) > MOST_STEPS:
        raise UserError(f"{path}: {count} lines, more than the {MOST_STEPS} that are read; leave this run out")
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            if len(line) > LARGEST_LINE:
                raise ValueError(f"{len(line)} bytes, more than the {LARGEST_LINE} that are read")
            found = kind.model_validate(parse_json(line))
            if found.step <= before:
                raise ValueError(f"step {found.step} after step {before}")
            before = found.step
            yield line + b"\n", found
        except ValueError as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{path}:{number}: not the metrics of a step ({reason}); bring the file back, or leave this run out") from error
