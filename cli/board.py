"""`onelayer eval --file`: a leaderboard run in one file."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer
from rich.text import Text

from ..common.console import Console, Table
from ..common.errors import Interrupted, UserError
from ..common.files import make_writable
from ..common.text import printable
from ..evals import suites
from ..evals.records import Evaluation
from ..studies.board import Board, BoardModel, BoardTask, TaskState, one_after_another, patch_file, policy_name, state_of, write_groups
from ..studies.parallel import Placement, board_runner
from .arguments import print_json
from .config import Key, compose_suite, read_file

One = TypeVar("One")
EXAMPLE = "models: [{model: tiny, patches: [runs/layer3]}], suites: [{suite: arithmetic}] and overrides: [eval.n=4]"


def evaluate_board(
    path: Path,
    overrides: Sequence[str],
    directory: Path,
    placement: Placement | None,
    dry_run: bool,
    as_json: bool,
    command: Sequence[object],
) -> None:
    """Do what is missing of a leaderboard run. Raises UserError for a file that cannot be used; exits with 1 where a task failed."""
    tasks, groups = read_board(path, overrides, directory)
    before = {task: state_of(task) for task in tasks}
    if dry_run:
        _show(before, {}, {}, as_json, directory)
        return
    make_writable(directory)
    due = [task for task, state in before.items() if state is not TaskState.DONE]
    try:
        failures = (board_runner(placement) if placement and due else one_after_another)(due)
    except KeyboardInterrupt:
        raise Interrupted(signal.SIGINT, f"what was played is kept in {directory}", command) from None
    found = write_groups(tasks, groups, directory)
    failures |= {task: "incomplete" for task in due if task not in found and task not in failures}
    _show(before, found, failures, as_json, directory)
    if failures:
        raise typer.Exit(1)


def read_board(path: Path, overrides: Sequence[str], directory: Path) -> tuple[list[BoardTask], dict[str, list[str]]]:
    """Every task of the file, and the groups of suites in it. Raises UserError with file and line for what cannot be used."""
    board, places = read_file(path, "a leaderboard run", Board, EXAMPLE)
    tasks: list[BoardTask] = []
    groups: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for m, model in enumerate(board.models):
        for policy, patches in _policies(model, ("models", m), places):
            if policy in names:
                raise UserError(f"{places['models', m]}: a second policy called {policy}, after {names[policy]}; give one of them a name")
            names[policy] = places["models", m]
            for s, one in enumerate(board.suites):
                place = places["suites", s]
                selection = _at(place, lambda one=one: suites.select(one.suite))
                groups |= selection.groups
                keys = [
                    *selection.overrides,
                    *board.overrides,
                    *one.overrides,
                    *model.overrides,
                    f"model.path={json.dumps(model.model)}",
                    *overrides,
                ]
                for suite in selection.suites:
                    if suite.startswith(suites.LM_EVAL):
                        raise UserError(f"{place}: {suite} is no suite of a leaderboard run; run it with onelayer eval --suite {suite}")
                    config, split = _at(place, lambda suite=suite, keys=keys: compose_suite(suite, keys))
                    where = directory / policy / suites.directory_name(suite)
                    if any(task.directory == str(where) for task in tasks):
                        raise UserError(f"{place}: {suite} is named twice; name each suite once")
                    tasks.append(BoardTask(policy, suite, split, config.model_dump_json(), patches, str(where)))
    return tasks, groups


def _policies(model: BoardModel, key: Key, places: dict[Key, str]) -> list[tuple[str, tuple[str, ...]]]:
    """The base and each of its patches: names, and files of patches."""
    found: list[tuple[str, tuple[str, ...]]] = [(policy_name(model), ())]
    for number, one in enumerate(model.patches):
        paths = [one] if isinstance(one, str) else one
        for path in paths:
            if not patch_file(path).is_file():
                place = places[*key, "patches", number]
                raise UserError(f"{place}: no patch {patch_file(path)}; a path counts from the working directory, {Path.cwd()}")
        found.append((policy_name(model, paths), tuple(str(patch_file(path)) for path in paths)))
    return found


def _at(place: str, compute: Callable[[], One]) -> One:
    """What is computed of a part of the file. What is wrong with it gets its place."""
    try:
        return compute()
    except UserError as error:
        raise UserError(f"{place}: {error}") from error


def _show(
    before: dict[BoardTask, TaskState], found: dict[BoardTask, Evaluation], failures: dict[BoardTask, str], as_json: bool, directory: Path
) -> None:
    """Every task with what came of it, or for a dry run with what there is."""
    states = {task: "failed" if task in failures else TaskState.DONE if task in found else state for task, state in before.items()}
    if as_json:
        rows = [
            {"policy": task.policy, "suite": task.suite, "directory": task.directory, "state": state, "failed": failures.get(task)}
            for task, state in states.items()
        ]
        print_json({"directory": directory, "tasks": rows, "evaluations": {task.directory: one for task, one in found.items()}})
        return
    table = Table("policy", "suite", "state", "pass@1", "greedy", "directory", box=None)
    for task, state in states.items():
        seen = found.get(task)
        rates = [f"{scores.pass_rate.mean:.3f}" for scores in (seen.sampled, seen.greedy)] if seen else ["", ""]
        table.add_row(*(Text(printable(cell)) for cell in (task.policy, task.suite, state, *rates, task.directory)))
    Console().print(table)
    counts = Counter(states.values())
    print(f"{len(states)} evaluations: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    for task, reason in failures.items():
        print(f"onelayer: {printable(f'{task}: could not be done: {reason}')}", file=sys.stderr)
    if found:
        print(f"leaderboard: {shlex.join(['onelayer', 'leaderboard', str(directory), '--output', str(directory / 'site')])}")
