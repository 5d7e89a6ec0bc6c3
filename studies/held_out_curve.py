"""Held-out curves of a study's arms: what each solves of the panel as training goes on, and its contribution until then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..common.errors import UserError
from ..evals.records import Decoding
from ..evals.statistics import Difference, Rate
from ..trainers.held_out import HeldOut
from ..trainers.metrics import StepMetrics
from .contribution import Contribution
from .learning_curve import learning_curve
from .pairing import SeedRates, contribution_of, minus


class Curve(BaseModel):
    """The training of one arm with one seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(description="training seed")
    steps: list[StepMetrics]
    held_out: list[HeldOut] = Field(default=[], description="points of the held-out curve; none without eval.every")

    def spent(self, step: int) -> tuple[float, float, float]:
        """Episodes, tokens and seconds of the steps before."""
        curve = learning_curve(self.steps[:step], 0)
        return curve.episodes, curve.tokens, curve.seconds


class PanelFigures(BaseModel):
    """An arm on the panel under one decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pass_rate: Rate = Field(description="pass@1 on the panel, over the training seeds")
    gain: Difference | None = Field(
        default=None, description="this minus the arm before its first step, paired; null there, and where that was not played"
    )
    contribution: Contribution | None = Field(
        default=None, description="C(k) on the panel: this gain over that of full after as many steps; null for full and before the first"
    )
    mean_tokens: float = Field(description="tokens of an episode, mean over the training seeds")
    truncated: float = Field(description="share of episodes with a reply that reached agent.max_tokens")


class CurvePoint(BaseModel):
    """An arm after so many steps, and what these took: means over the training seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=0, description="steps done before")
    episodes: float = Field(ge=0, description="episodes learnt from until then")
    tokens: float = Field(ge=0, description="tokens sampled for them")
    seconds: float = Field(ge=0, description="wall-clock seconds of their rollouts and updates")
    sampled: PanelFigures
    greedy: PanelFigures

    def measured(self, decoding: Decoding) -> PanelFigures:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


def held_out_curves(arms: Mapping[str, Sequence[Curve]]) -> dict[str, list[CurvePoint]]:
    """The curve of each trained arm; points are the steps that all its seeds have.

    Raises UserError where two runs have played different panels.
    """
    if len({(point.panel, len(point.sampled.correct)) for runs in arms.values() for run in runs for point in run.held_out}) > 1:
        raise UserError("the runs of this study have held-out curves on different panels; train again those that differ")
    by_arm = {name: [{point.step: point for point in run.held_out} for run in runs] for name, runs in arms.items()}
    shared = {name: sorted(set[int].intersection(*map(set, seeds))) for name, seeds in by_arm.items()}

    def rates(name: str, step: int, decoding: Decoding, trained: bool = True) -> SeedRates:
        found = zip(arms[name], by_arm[name], strict=True)
        return SeedRates({run.seed: [points[step].replies(decoding).rate_I] for run, points in found}, trained)

    def figures(name: str, step: int, decoding: Decoding) -> PanelFigures:
        gain = share = None
        replies = [points[step].replies(decoding) for points in by_arm[name]]
        if step and 0 in shared[name]:
            gain = minus(rates(name, step, decoding), rates(name, 0, decoding, trained=False)).difference
        if step and name != "full" and {0, step} <= set(shared.get("full", ())):
            base = rates("full", 0, decoding, trained=False)
            share = contribution_of(base, rates("full", step, decoding), rates(name, step, decoding))
        return PanelFigures(
            pass_rate=rates(name, step, decoding).pass_rate,
            gain=gain,
            contribution=share,
            mean_tokens=float(np.mean([one.mean_tokens for one in replies])),
            truncated=float(np.mean([one.truncated for one in replies])),
        )

    def point(name: str, step: int) -> CurvePoint:
        episodes, tokens, seconds = np.mean([run.spent(step) for run in arms[name]], axis=0)
        sampled, greedy = (figures(name, step, decoding) for decoding in Decoding)
        return CurvePoint(step=step, episodes=episodes, tokens=tokens, seconds=seconds, sampled=sampled, greedy=greedy)

    return {name: [point(name, step) for step in steps] for name, steps in shared.items()}
