"""What `--dry-run` shows: the first prompt, what would be trained on which items, and what that takes at most."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..agents.shapes import is_at_hand
from ..common import progress
from ..common.console import Console, Table
from ..common.errors import UserError
from ..studies.study import prepare_study
from ..trainers.config import Config, dump
from ..trainers.estimate import Estimate, estimate
from ..trainers.manifest import METRICS
from ..trainers.metrics import read_metrics
from ..trainers.train import prepare, train
from .sketch import Sketch, of_outline, of_prepared

GIB, MIB = 2**30, 2**20
MEASURED_STEPS = 2


class Seconds(BaseModel):
    """Of a step on this machine: the last of a few."""

    rollout: float
    update: float


class PlannedRuns(BaseModel):
    """The training runs of one set."""

    model_config = ConfigDict(extra="forbid")

    rates: list[float]
    seeds: list[int] = Field(description="the first with every rate, the others with the rate that is best on the validation split")
    estimate: Estimate

    @property
    def count(self) -> int:
        return len(self.rates) + len(self.seeds) - 1


class Plan(BaseModel):
    """A run or a study that has not begun."""

    model_config = ConfigDict(extra="forbid")

    name: str
    model: str
    steps: int
    first_item: str | None = Field(description="null: the items are not at hand")
    first_prompt: str | None = Field(description="as the model is given it; without its chat template where the tokenizer is not at hand")
    prompt_tokens: int
    items: dict[str, str] = Field(description="the items of each use, where they are at hand")
    missing: list[str] = Field(description="what is not at hand, and what stands in its place; empty where nothing is missing")
    runs: list[PlannedRuns]
    seconds: Seconds | None = Field(description="null: not measured")
    config: dict[str, JsonValue] = Field(description="the recipe, every key resolved")

    @property
    def disk(self) -> int:
        """Bytes that stay, and a checkpoint, which is there while a run is."""
        return sum(run.count * run.estimate.patch for run in self.runs) + max(run.estimate.checkpoint for run in self.runs)


def plan_training(config: Config, measure: bool) -> Plan:
    """The plan of `onelayer train`. Raises UserError for all that would stop the run before its first step.

    Of a model that would have to be fetched it is made from the model's shape, and says what else is not at hand.
    """
    here = _is_loaded(config, measure)
    found = of_prepared(prepare(config)) if here else of_outline(config, [config.trainer.trained_set])
    return _plan(found, measure, {found.sets[0]: ([config.trainer.lr], [config.trainer.seed])})


def plan_study(config: Config, measure: bool) -> Plan:
    """The plan of `onelayer study`, as `plan_training`."""
    here = _is_loaded(config, measure)
    found = of_prepared(prepare_study(config)) if here else of_outline(config, ["full", *config.study.trained_sets])
    return _plan(found, measure, {name: (config.study.rates(name), config.study.seeds) for name in found.sets})


def _is_loaded(config: Config, measure: bool) -> bool:
    here = is_at_hand(config.model)
    if measure and not here:
        raise UserError(f"--measure trains two steps, and {config.model.path} is not in the hub's cache of this machine; leave it out")
    return here


def _plan(found: Sketch, measure: bool, runs: dict[str, tuple[list[float], list[int]]]) -> Plan:
    planned = []
    with progress.progress("estimates", len(runs)) as told:
        for trained_set, (rates, seeds) in runs.items():
            planned.append(PlannedRuns(rates=rates, seeds=seeds, estimate=estimate_of(found, trained_set)))
            told.advance()
    return Plan(
        name=found.config.name,
        model=found.config.model.path,
        steps=found.config.trainer.steps,
        first_item=found.prompt.item,
        first_prompt=found.prompt.text,
        prompt_tokens=found.prompt.tokens,
        items=found.items,
        missing=found.missing,
        runs=planned,
        seconds=_measure(found.config, next(iter(runs))) if measure else None,
        config=found.config.model_dump(mode="json"),
    )


def estimate_of(found: Sketch, trained_set: str) -> Estimate:
    """What a run of one of the recipe's sets takes."""
    trainer = found.config.trainer.model_copy(update={"trained_set": trained_set})
    return estimate(found.config.model_copy(update={"trainer": trainer}), found.shape, found.prompt.tokens, found.turns)


def _measure(config: Config, trained_set: str) -> Seconds:
    """Two steps of a run that is thrown away; the first is not counted."""
    trainer = config.trainer.model_copy(update={"trained_set": trained_set, "steps": MEASURED_STEPS, "keep_episodes": False})
    evaluation = config.eval.model_copy(update={"every": None, "keep_best": False})
    config = config.model_copy(update={"trainer": trainer, "eval": evaluation})
    with tempfile.TemporaryDirectory() as directory:
        train(config, Path(directory, "run"))
        *_, last = read_metrics(Path(directory, "run", METRICS))
    assert last.rollout_seconds is not None and last.update_seconds is not None
    return Seconds(rollout=last.rollout_seconds, update=last.update_seconds)


def show(plan: Plan, full: bool) -> None:
    """Print a plan; full: and the resolved recipe."""
    console = Console()
    print(f"{plan.name}: {plan.model}, {plan.runs[0].estimate.parameters:,} parameters\n")
    if plan.missing:
        print("\n".join(plan.missing), end="\n\n")
    if plan.first_prompt is not None:
        print(f"The first prompt, of item {plan.first_item}, {plan.prompt_tokens} tokens:")
        print("\n".join(f"    {line}" for line in plan.first_prompt.splitlines()), "\n", sep="")
    if plan.items:
        print("\n".join(f"{use} items: {what}" for use, what in plan.items.items()), "\n", sep="")
    console.print(_runs(plan), "")
    console.print(memory_table([run.estimate for run in plan.runs]), "")
    steps = sum(run.count for run in plan.runs) * plan.steps
    flops = sum(run.count * run.estimate.flops for run in plan.runs) * plan.steps
    of_step = plan.runs[0].estimate
    print(f"Main memory besides: about {of_step.tokenizer / MIB:,.0f} MiB for the tokenizer")
    print(f"A step: at most {of_step.episodes:,} episodes and {of_step.tokens:,} tokens, prompts and replies")
    print(f"All {steps:,} steps: at most {steps * of_step.tokens:,} tokens and {flops:.2g} operations; evaluations come on top")
    print(f"Disk: {plan.disk / MIB:,.1f} MiB for patches and a checkpoint; episodes and samples come on top")
    if plan.seconds is None:
        print("Time: not known; --measure times two steps")
    else:
        step = plan.seconds.rollout + plan.seconds.update
        parts = f"rollout {plan.seconds.rollout:.1f} s, update {plan.seconds.update:.1f} s"
        whole = progress.duration(steps * step)
        print(f"Time: a step of {of_step.trained_set} took {step:.1f} s here ({parts}); {steps:,} like it take {whole}")
    print(f"\n{dump(Config.model_validate(plan.config))}" if full else "--full prints every key of the recipe")


def _runs(plan: Plan) -> Table:
    table = Table(title="Runs", title_justify="left", box=None)
    for name in ("trained set", "parameters", "share", "learning rates", "seeds", "runs", "operations a step"):
        table.add_column(name, justify="left" if name == "trained set" else "right", no_wrap=True)
    for run in plan.runs:
        found = run.estimate
        rates, seeds = ", ".join(f"{lr:g}" for lr in run.rates), ", ".join(map(str, run.seeds))
        share = f"{found.trained_parameters / found.parameters:.1%}"
        table.add_row(found.trained_set, f"{found.trained_parameters:,}", share, rates, seeds, str(run.count), f"{found.flops:.2g}")
    return table


def memory_table(runs: Sequence[Estimate]) -> Table:
    """What each phase of a step of some runs holds, by part."""
    table = Table(title="Memory at most, MiB, above the program's own", title_justify="left", box=None)
    for name in ("trained set", "phase", "weights", "trained", "activations", "head", "keys and values", "vLLM's copy", "sum"):
        table.add_column(name, justify="left" if name in ("trained set", "phase") else "right", no_wrap=True)
    for run in runs:
        for phase, memory in (("rollout", run.rollout), ("update", run.update)):
            sizes = [f"{size / MIB:,.0f}" for size in [*memory.model_dump().values(), memory.total]] if memory else ["not known"]
            table.add_row(run.trained_set, phase, *sizes)
    return table
