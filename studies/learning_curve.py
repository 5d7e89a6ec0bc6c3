"""Learning curves: what a policy did in each rollout of a run, and what it had learnt from until then."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from ..trainers.metrics import StepMetrics


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


def learning_curve(steps: Sequence[StepMetrics], episodes: int) -> LearningCurve:
    """The learning curve of a run's steps. episodes: of one step, where its metrics do not say."""
    points: list[Point] = []
    spent = dict.fromkeys(("episodes", "tokens", "seconds"), 0.0)
    for step in steps:
        points.append(Point(step=step.step, reward=step.reward, success=step.success, **spent))
        played = episodes - (step.dropped or 0) if step.episodes is None else step.episodes
        seconds = (step.rollout_seconds or 0) + (step.update_seconds or 0) + (step.sync_seconds or 0)
        more = (played, step.tokens or 0, seconds)
        spent = {key: round(value + extra, 3) for (key, value), extra in zip(spent.items(), more, strict=True)}
    return LearningCurve(points=points, **spent)
