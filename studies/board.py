"""A leaderboard run: models with their patches on suites, from one file. Each policy on each suite is a task of its own.

Directory: POLICY/SUITE/ is an evaluation, and POLICY/suites.json tells of a policy's suites where there are several. What is complete is
not done again, and what was begun goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..agents import patch
from ..agents.agent import make_agent
from ..agents.patch import Patch, applied
from ..agents.policy import Base, load_base
from ..common.errors import UserError
from ..common.progress import say
from ..envs import load
from ..envs.pool import open_pool
from ..evals.evaluator import evaluate
from ..evals.journal import JOURNAL
from ..evals.model_policy import model_policy
from ..evals.records import MANIFEST, Evaluation, Trained, read_manifest
from ..evals.suites import Selection, directory_name, write_suites
from ..trainers import manifest as run
from ..trainers.config import Config
from ..trainers.manifest import recipe_of
from .leaderboard.marks import sha256


class BoardModel(BaseModel):
    """A base, which is always measured, and its patches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="tiny, a directory or a hub name")
    name: str | None = Field(default=None, min_length=1, description="of its directories (null: the last part of `model`)")
    patches: list[str | list[str]] = Field(
        default=[],
        description="runs or patch files, each a policy of its own; a list within the list is one policy with all of these patches",
    )
    overrides: list[str] = Field(default=[], description="SECTION.KEY=VALUE of this model")


class BoardSuite(BaseModel):
    """What `--suite` takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str = Field(description="as --suite takes it: a suite, several with commas, or the name of a file in configs/suites")
    overrides: list[str] = Field(default=[], description="SECTION.KEY=VALUE of this suite")


class Board(BaseModel):
    """The file of a leaderboard run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: list[BoardModel] = Field(min_length=1)
    suites: list[BoardSuite] = Field(min_length=1)
    overrides: list[str] = Field(default=[], description="SECTION.KEY=VALUE of all")


@dataclass(frozen=True)
class BoardTask:
    """One policy on one suite."""

    policy: str
    suite: str
    split: str
    config: str
    """The resolved configuration, as JSON."""
    patches: tuple[str, ...]
    """Files."""
    directory: str
    """Of the evaluation."""

    def __str__(self) -> str:
        return f"{self.policy} on {self.suite}"


class TaskState(StrEnum):
    """How far a task is."""

    DONE = "done"
    BEGUN = "begun"
    TO_DO = "to do"


def state_of(task: BoardTask) -> TaskState:
    """Done: the evaluation is complete, of these very patches and under this very protocol."""
    place = Path(task.directory)
    if not (place / MANIFEST).exists():
        return TaskState.BEGUN if (place / JOURNAL).exists() else TaskState.TO_DO
    try:
        there, wanted = read_manifest(place), Config.model_validate_json(task.config).evaluated
        recorded = Config.model_validate(there.config)
        agent = wanted.agent if wanted.agent.max_tokens else wanted.agent.model_copy(update={"max_tokens": there.max_tokens})
        same = (recorded.model, recorded.env, recorded.agent, recorded.eval) == (wanted.model, wanted.env, agent, wanted.eval)
        return TaskState.DONE if same and there.patches == [sha256(Path(file)) for file in task.patches] else TaskState.BEGUN
    except (UserError, ValidationError, OSError):
        return TaskState.BEGUN  # what is wrong is told when it is performed


def perform(task: BoardTask) -> None:
    """Do what is missing of a task. Raises UserError for what stops it."""
    config = Config.model_validate_json(task.config).evaluated
    base, split = _base(config.model.model_dump_json()), load(config.env, task.split)
    read = [read_patch(Path(file)) for file in task.patches]
    patches, trained = [one for one, _ in read], [training for _, training in read]
    policy = model_policy(base, config.model.path, patches, trained)
    with applied(base, patches), open_pool(config.env, task.split, config.pool) as pool:
        agent = make_agent(base, config.agent, config.env)
        config = config.model_copy(update={"agent": agent.config})
        recipe = recipe_of(config, config.env, config.eval)
        evaluate(agent, pool, split, config.eval, Path(task.directory), policy=policy, recipe=recipe)


@lru_cache(maxsize=1)
def _base(model: str) -> Base:
    """What this process has loaded, for all tasks of one model in turn: each leaves the base as it was."""
    return load_base(Config.model_validate_json(f'{{"model": {model}}}').model)


def one_after_another(tasks: Sequence[BoardTask]) -> dict[BoardTask, str]:
    """Do tasks in this process; returns those that could not be done, and why."""
    failures: dict[BoardTask, str] = {}
    for number, task in enumerate(tasks, 1):
        say(f"{number} of {len(tasks)}: {task}")
        try:
            perform(task)
        except UserError as error:
            failures[task] = str(error)
            say(f"{task}: failed: {error}")
    return failures


def write_groups(tasks: Sequence[BoardTask], groups: Mapping[str, list[str]], directory: Path) -> dict[BoardTask, Evaluation]:
    """The evaluations that are there; each policy that has all its suites gets its suites.json, where these are several."""
    found = {task: read_manifest(Path(task.directory)) for task in tasks if state_of(task) is TaskState.DONE}
    for policy in dict.fromkeys(task.policy for task in tasks):
        own = [task for task in tasks if task.policy == policy]
        if (len(own) > 1 or groups) and all(task in found for task in own):
            selection = Selection([task.suite for task in own], dict(groups))
            write_suites(directory / policy, {task.suite: found[task] for task in own}, selection)
    return found


def patch_file(path: str) -> Path:
    """The patch of a run, or the file itself."""
    return Path(path) / run.PATCH if Path(path).is_dir() else Path(path)


def policy_name(model: BoardModel, patches: Sequence[str] = ()) -> str:
    """Of a policy's directory."""
    names = [directory_name(model.name or Path(model.model).name)]
    return "+".join(names + [directory_name(path.removesuffix(f"/{run.PATCH}")) for path in patches])


def read_patch(path: Path) -> tuple[Patch, Trained | None]:
    """A patch, and what the manifest beside it tells of its training; None where there is none, or one of another patch."""
    path = patch_file(str(path))
    found = patch.read(path)
    try:
        manifest = run.read_manifest(path.parent)
    except UserError:
        manifest = None
    return found, run.training_of(manifest, found.sha256) if manifest and manifest.has_made(found.sha256) else None
