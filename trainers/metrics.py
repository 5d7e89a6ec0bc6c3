"""What a training run tells of its steps: lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError, first_problem
from ..common.reading import LARGEST_LINES, parse_json, read_bytes


class StepMetrics(BaseModel):
    """One training step as the metrics file has it; other keys are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int = Field(ge=0, description="rollout-and-update round, from 0")
    reward: float | None = Field(description="mean reward of the rollout, sampled before the update")
    success: float | None = Field(default=None, description="share of solved episodes")
    kl: float | None = Field(default=None, description="mean k3 estimate of the KL to the base; null where it was not computed")
    entropy: float | None = Field(default=None, description="mean entropy of the sampling distribution, nats per token")
    grad_norm: float | None = Field(default=None, description="gradient norm before clipping")
    response_length: float | None = Field(default=None, description="tokens of a response, mean")
    rollout_seconds: float | None = Field(default=None, description="wall-clock seconds of the rollout")
    update_seconds: float | None = Field(default=None, description="wall-clock seconds of the update")
    sync_seconds: float | None = Field(default=None, description="wall-clock seconds of handing the weights to the engine")
    tokens: float | None = Field(default=None, description="tokens sampled")
    episodes: float | None = Field(default=None, description="episodes played, without those that failing environments lost")
    dropped: float | None = Field(default=None, description="episodes left out, since environments failed")
    groups_kept: float | None = Field(default=None, description="groups with an advantage")
    truncated: float | None = Field(default=None, description="share of replies that reached agent.max_tokens")


Line = TypeVar("Line", bound=BaseModel)


def read_metrics(path: Path, most: int | None = None) -> list[StepMetrics]:
    """The first `most` steps of a run (null: all). Raises as `read_lines` does."""
    return [step for _, step in islice(read_lines(path, StepMetrics), most)]


def read_lines(path: Path, kind: type[Line]) -> Iterator[tuple[bytes, Line]]:
    """Each line of JSON of a file that grows, with its line break and as a model; none where there is no such file.

    What stands after the last line break is not there: it is being written. Raises UserError with file and line for one that is broken.
    """
    lines = read_bytes(path, LARGEST_LINES).split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            yield line + b"\n", kind.model_validate(parse_json(line))
        except ValueError as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{path}:{number}: not the metrics of a step ({reason}); bring the file back, or leave this run out") from error
