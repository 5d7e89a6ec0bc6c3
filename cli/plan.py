"""What `--dry-run` shows: the first prompt, what would be trained on which items, and what that takes at most."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..agents.agent import agent_on
from ..agents.engine import in_model
from ..common import progress
from ..common.console import Console, Table
from ..common.errors import UserError
from ..envs import load, most_turns
from ..envs.pool import open_pool
from ..envs.pool_env import InfrastructureError
from ..studies.study import prepare_study
from ..trainers.config import Config, dump
from ..trainers.estimate import Estimate, estimate
from ..trainers.manifest import METRICS
from ..trainers.metrics import read_metrics
from ..trainers.train import Prepared, evaluation_suite, prepare, train

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
    first_item: str
    first_prompt: str = Field(description="as the model is given it")
    prompt_tokens: int
    items: dict[str, str] = Field(description="the items of each use")
    runs: list[PlannedRuns]
    seconds: Seconds | None = Field(description="null: not measured")
    config: dict[str, JsonValue] = Field(description="the recipe, every key resolved")

    @property
    def disk(self) -> int:
        """Bytes that stay, and a checkpoint, which is there while a run is."""
        return sum(run.count * run.estimate.patch for run in self.runs) + max(run.estimate.checkpoint for run in self.runs)


def plan_training(config: Config, measure: bool) -> Plan:
    """The plan of `onelayer train`. Raises UserError for all that would stop the run before its first step."""
    found = prepare(config)
    return _plan(found, measure, {found.sets[0].spec: ([config.trainer.lr], [config.trainer.seed])})


def plan_study(config: Config, measure: bool) -> Plan:
    """The plan of `onelayer study`. Raises UserError for all that would stop it before its first run."""
    found = prepare_study(config)
    return _plan(found, measure, {one.spec: (config.study.rates(one.spec), config.study.seeds) for one in found.sets})


def _plan(found: Prepared, measure: bool, runs: dict[str, tuple[list[float], list[int]]]) -> Plan:
    config, base = found.config, found.base
    item, ids, turns = _first_prompt(found)
    env, name = evaluation_suite(config)
    evaluation, most = load(env, name), config.eval.items
    planned = []
    with progress.progress("estimates", len(runs)) as told:
        for trained_set, (rates, seeds) in runs.items():
            of_set = config.model_copy(update={"trainer": config.trainer.model_copy(update={"trained_set": trained_set})})
            planned.append(PlannedRuns(rates=rates, seeds=seeds, estimate=estimate(of_set, base.model.config, len(ids), turns)))
            told.advance()
    return Plan(
        name=config.name,
        model=config.model.path,
        steps=config.trainer.steps,
        first_item=item,
        first_prompt=str(base.tokenizer.decode(ids)),
        prompt_tokens=len(ids),
        items={
            "Training": f"{found.split.name}, {found.split.size_text}, sha256 {found.split.digest}",
            "Evaluation": f"{evaluation.name}, {f'the first {most} of ' if most else ''}{evaluation.size_text}, sha256 {evaluation.digest}",
        },
        runs=planned,
        seconds=_measure(found, next(iter(runs))) if measure else None,
        config=config.model_dump(mode="json"),
    )


def _first_prompt(found: Prepared) -> tuple[str, list[int], int]:
    """The first item of the training split, the tokens of the prompt that it begins with, and the most turns of an episode.

    Raises UserError where the item cannot be begun.
    """
    config, base, item = found.config, found.base, found.split.items[0].id
    agent = agent_on(in_model(base, config.agent), base.tokenizer, config.agent, config.env)
    with open_pool(config.env, "train", config.pool) as pool:
        env = pool.env()
        try:
            turn = env.reset(item, 0).result()
        except InfrastructureError as error:
            raise UserError(f"{found.split.name}: item {item} cannot be begun: {error}") from error
        finally:
            env.close()
    ids = agent.begin(item, 0).hear(turn.observation, turn.info)
    if ids is None:
        raise UserError(f"{found.split.name}: the prompt of item {item} is longer than {agent.prompt_limit}")
    return item, ids, most_turns(config.env)


def _measure(found: Prepared, trained_set: str) -> Seconds:
    """Two steps of a run that is thrown away; the first is not counted."""
    trainer = found.config.trainer.model_copy(update={"trained_set": trained_set, "steps": MEASURED_STEPS, "keep_episodes": False})
    evaluation = found.config.eval.model_copy(update={"every": None, "keep_best": False})
    config = found.config.model_copy(update={"trainer": trainer, "eval": evaluation})
    with tempfile.TemporaryDirectory() as directory:
        train(config, Path(directory, "run"))
        *_, last = read_metrics(Path(directory, "run", METRICS))
    assert last.rollout_seconds is not None and last.update_seconds is not None
    return Seconds(rollout=last.rollout_seconds, update=last.update_seconds)


def show(plan: Plan, full: bool) -> None:
    """Print a plan; full: and the resolved recipe."""
    console = Console()
    print(f"{plan.name}: {plan.model}, {plan.runs[0].estimate.parameters:,} parameters\n")
    print(f"The first prompt, of item {plan.first_item}, {plan.prompt_tokens} tokens:")
    print("\n".join(f"    {line}" for line in plan.first_prompt.splitlines()), "\n", sep="")
    print("\n".join(f"{use} items: {what}" for use, what in plan.items.items()), "\n", sep="")
    console.print(_runs(plan), "")
    console.print(_memory(plan), "")
    steps = sum(run.count for run in plan.runs) * plan.steps
    flops = sum(run.count * run.estimate.flops for run in plan.runs) * plan.steps
    of_step = plan.runs[0].estimate
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


def _memory(plan: Plan) -> Table:
    table = Table(title="Memory at most, MiB, above the program's own", title_justify="left", box=None)
    for name in ("trained set", "phase", "weights", "trained", "activations", "head", "keys and values", "sum"):
        table.add_column(name, justify="left" if name in ("trained set", "phase") else "right", no_wrap=True)
    for run in plan.runs:
        for phase, memory in (("rollout", run.estimate.rollout), ("update", run.estimate.update)):
            sizes = [f"{size / MIB:,.0f}" for size in [*memory.model_dump().values(), memory.total]] if memory else ["not known"]
            table.add_row(run.estimate.trained_set, phase, *sizes)
    return table
