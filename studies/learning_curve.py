"""Learning curves: what a policy did in each rollout of a run, and what it had learnt from until then."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError, first_problem
from ..common.reading import LARGEST_LINES, read_bytes


class Point(BaseModel):
    """What a policy did in one rollout, and what it had learnt from until then: before the first update nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0, description="steps done before")
    episodes: float = Field(ge=0, description="episodes of these steps, without those that failing environments lost")
    tokens: float = Field(ge=0, description="sampled tokens of these episodes")
    seconds: float = Field(ge=0, description="wall-clock seconds of the rollouts and updates of these steps")
    reward: float | None = Field(description="mean reward of the rollout")
    success: float | None = Field(description="share of solved episodes of the rollout")


class LearningCurve(BaseModel):
    """The rollouts of a run, and what all its steps took."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: list[Point] = Field(description="one for each step done")
    episodes: float = 0
    tokens: float = 0
    seconds: float = 0


class _Line(BaseModel):
    """What a line of a run's metrics tells about progress."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    reward: float | None
    success: float | None = None
    tokens: float | None = 0
    rollout_seconds: float
    update_seconds: float
    sync_seconds: float = 0
    episodes: float | None = None
    dropped: float | None = 0


def read_curve(path: Path, episodes: int) -> LearningCurve:
    """The learning curve in a run's metrics file. episodes: of one step, where the lines do not say.

    A line that is being written is left out. Raises UserError with file and line for one that is broken.
    """
    try:
        lines = read_bytes(path, LARGEST_LINES).split(b"\n")[:-1]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); bring it back, or leave this run out") from error
    points: list[Point] = []
    spent = dict.fromkeys(("episodes", "tokens", "seconds"), 0.0)
    for number, text in enumerate(lines, start=1):
        try:
            line = _Line.model_validate_json(text)
            points.append(Point(step=line.step, reward=line.reward, success=line.success, **spent))
        except ValidationError as error:
            raise UserError(f"{path}:{number}: broken metrics ({first_problem(error)}); mend the line, or leave this run out") from error
        played = episodes - (line.dropped or 0) if line.episodes is None else line.episodes
        more = (played, line.tokens or 0, line.rollout_seconds + line.update_seconds + line.sync_seconds)
        spent = {key: round(value + extra, 3) for (key, value), extra in zip(spent.items(), more, strict=True)}
    return LearningCurve(points=points, **spent)
