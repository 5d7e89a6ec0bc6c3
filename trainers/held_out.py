"""Held-out curves: the policy in training plays a fixed panel of the validation split every `eval.every` steps.

A panel's items, starting states and sampling seeds are the same at every step and in every run, so points are paired. held_out.jsonl has
a line for each point, with the verdict on each reply. What a point costs stands in its line, and is no part of the run's cost. What a
run learns does not depend on the panel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, FailFast, Field, field_validator, model_validator

from ..agents import patch
from ..agents.agent import Agent, at_limit
from ..agents.episodes import Play, assert_prompts_fit, play
from ..agents.flops import multiplied, tokens_forwarded
from ..agents.policy import Base
from ..agents.verdicts import CORRECT
from ..common.cost import Cost
from ..envs import check_disjoint, load
from ..envs.items import Split
from ..envs.pool import Pool, open_pool
from ..evals.config import EvalConfig
from ..evals.decoding import sampling_of
from ..evals.evaluator import env_seed, first_items, sample_seed
from ..evals.failures import Failures
from ..evals.records import Decoding
from ..evals.statistics import FloatArray
from .config import Config
from .manifest import HELD_OUT
from .metrics import OfStep, read_lines
from .run import Run


class Replies(BaseModel):
    """The replies to a panel under one decoding."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    correct: Annotated[list[Annotated[list[bool], Field(min_length=1), FailFast()]], FailFast()] = Field(
        min_length=2, description="items by samples; a sample that a failing environment lost counts as wrong"
    )
    mean_tokens: float = Field(ge=0, allow_inf_nan=False, description="tokens of an episode")
    truncated: float = Field(ge=0, le=1, description="share of episodes with a reply that reached the most tokens of one")

    @field_validator("correct")
    @classmethod
    def _as_many_of_each(cls, correct: list[list[bool]]) -> list[list[bool]]:
        if len(set(map(len, correct))) > 1:
            raise ValueError("some items have more samples than others")
        return correct

    @property
    def rate_I(self) -> FloatArray:
        """Share of right samples of each item."""
        return np.array([np.mean(samples) for samples in self.correct], dtype=np.float64)


class HeldOut(OfStep):
    """What a policy did on the panel after `step` steps: a point of its curve."""

    panel: str = Field(description="SHA-256 of the panel's items")
    sampled: Replies
    greedy: Replies
    cost: Cost = Field(description="what playing the panel took")

    @model_validator(mode="after")
    def _of_the_same_items(self) -> Self:
        if len(self.sampled.correct) != len(self.greedy.correct):
            raise ValueError("sampled and greedy are of different numbers of items")
        return self

    def replies(self, decoding: Decoding) -> Replies:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy

    @property
    def pass_rate(self) -> float:
        """Share of right sampled replies."""
        return float(self.sampled.rate_I.mean())


def panel_of(config: Config) -> Split:
    """The first items of the validation split. Raises UserError where there are too few, or where they are trained on."""
    panel = first_items(load(config.env, "validation"), config.eval.panel_items, "eval.panel_items")
    check_disjoint(load(config.env, "train"), panel)
    return panel


@contextmanager
def panel_player(
    config: Config, base: Base, agent: Agent, run: Run, result: Callable[[], patch.Patch], first: HeldOut | None = None
) -> Iterator[Callable[[int], None]]:
    """What is told each number of steps done, and plays the panel where that is due: never without `eval.every`.

    result: the patch of the policy as it is now; that of the best point is kept with `eval.keep_best`. first: the base's point, where
    another run of the same study has played it.
    """
    every, path = config.eval.every, run.directory / HELD_OUT
    if every is None:
        yield lambda step: None
        return
    panel, parameters = panel_of(config), multiplied(base.model)
    if config.eval.max_tokens is not None:
        agent = at_limit(agent, config.eval.max_tokens, config.env)
    kept = run.ranks.from_first(lambda: [(line, point) for line, point in read_lines(path, HeldOut) if point.step <= run.done])
    played = {point.step: point.pass_rate for _, point in kept}
    run.keep_best(played)
    with open_pool(config.env, "validation", config.pool) as pool, run.growing(HELD_OUT, sum(len(line) for line, _ in kept)) as lines:
        assert_prompts_fit(agent, pool, panel)

        def measure(step: int) -> None:
            if step in played or (step % every and step != config.trainer.steps):
                return
            if first and first.step == step and first.panel == panel.digest:
                lines.write(first.model_copy(update={"cost": Cost()}).model_dump_json().encode() + b"\n")
                return
            run.note(f"playing {len(panel.items)} held-out items")
            before = run.meter.cost()
            sampled, greedy = (_answered(agent, pool, panel, config.eval, decoding, run, parameters) for decoding in Decoding)
            cost = run.meter.cost() - before
            run.meter.left_out += cost
            together = reduce(Cost.beside, run.ranks.gather(cost))
            point = HeldOut(step=step, panel=panel.digest, sampled=sampled, greedy=greedy, cost=together)
            weights = result() if config.eval.keep_best else None  # which all ranks may have to make together
            if run.best and weights:  # before its line: a point that is there has its patch
                run.best.add(step, point.pass_rate, lambda place: patch.write(place, weights))
            lines.write(point.model_dump_json().encode() + b"\n")

        yield measure


def _answered(agent: Agent, pool: Pool, panel: Split, config: EvalConfig, decoding: Decoding, run: Run, parameters: int) -> Replies:
    samples = config.panel_n if decoding is Decoding.SAMPLED else 1
    plays = [
        Play(item.id, group, sample_seed(config.seed, item.id, sample), env_seed(config.seed, item.id))
        for group, item in enumerate(panel.items)
        for sample in range(samples)
    ]
    failures, right, tokens, cut = Failures(run.directory, len(plays), 0), [False] * len(plays), 0, 0
    sampling = sampling_of(config, decoding, agent.config.reply_length)
    for episode in run.ranks.dealt(plays, lambda dealt: play(agent, pool, dealt, sampling)):
        failures.watch(episode)
        right[episode.index] = episode.verdict == CORRECT
        tokens, cut = tokens + (episode.tokens or 0), cut + bool(episode.truncated)
        run.meter.flops += 2.0 * parameters * tokens_forwarded([episode])
    run.meter.tokens += tokens
    failures.tell()
    correct = [right[at : at + samples] for at in range(0, len(plays), samples)]
    return Replies(correct=correct, mean_tokens=tokens / len(plays), truncated=cut / len(plays))
