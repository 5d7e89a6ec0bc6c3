"""The tasks of a study in many processes, on this machine or on a Ray cluster, which shares the study's directory.

Each task is a Ray task with its threads and GPUs: it does what is missing in its own directory, with the base that its worker has
loaded. A worker or a node that dies costs a run the time since its last checkpoint: Ray begins the task again, elsewhere if need be, and
it goes on where it was. How many threads a task has decides the order of its sums, so results depend on it, and on nothing else of the
placement.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..common.errors import Interrupted, UserError
from ..trainers.config import Config
from ..trainers.train import Prepared, prepare
from .tasks import ATTEMPTS, BASE, Task, perform, stages

RESTARTS = 5
"""How often Ray begins a task again whose worker or node died; that is no attempt."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where tasks run."""

    parallel: int | None = None
    """Tasks at the same time on this machine; null: as many as the cluster has room for."""
    address: str | None = None
    """Of a Ray cluster; null: this machine."""
    threads: int | None = None
    """Of a task; null: this machine's cores, dealt over the tasks, and on a cluster 1."""
    gpus: float = 0
    """Of a task."""


@dataclass
class _Trained:
    """A set whose tasks are under way."""

    rest: Iterator[list[Task]]
    open: int = 0


def runner(placement: Placement, watch: Callable[[], None] = lambda: None) -> Callable[[Prepared, Path], dict[Task, str]]:
    """What does a study's tasks by Ray. watch: called about every second. Raises UserError where there is no Ray, or no such cluster."""
    ray = _start(placement)

    def run(prepared: Prepared, directory: Path) -> dict[Task, str]:
        try:
            return _run(ray, placement, prepared, directory, watch)
        finally:
            ray.shutdown()

    return run


def _run(ray: Any, placement: Placement, prepared: Prepared, directory: Path, watch: Callable[[], None]) -> dict[Task, str]:
    """Raises UserError where the base cannot be evaluated: there is nothing to compare then."""
    config, failures, attempts = prepared.config, {}, {}
    names = [BASE, *(trained.spec for trained in prepared.sets)]
    sets = {name: _Trained(stages(name, config, directory)) for name in names}
    work = ray.remote(_perform).options(num_cpus=_threads(placement), num_gpus=placement.gpus, max_retries=RESTARTS)
    running: dict[Any, Task] = {}

    def submit(task: Task) -> None:
        attempts[task] = attempts.get(task, 0) + 1
        running[work.remote(config.model_dump_json(), task, str(directory), os.getcwd())] = task

    def go_on(name: str) -> None:
        tasks = next(sets[name].rest, [])
        sets[name].open = len(tasks)
        for task in tasks:
            submit(task)

    for name in names:
        go_on(name)
    while running:
        done, _ = ray.wait(list(running), timeout=1.0)
        for reference in done:
            task = running.pop(reference)
            trouble = _outcome(ray, reference)
            if trouble and attempts[task] < ATTEMPTS:
                _log.warning("%s: attempt %d of %d failed: %s", task, attempts[task], ATTEMPTS, trouble)
                submit(task)
                continue
            if trouble and task.trained_set == BASE:
                raise UserError(trouble)
            if trouble:
                failures[task] = trouble
            sets[task.trained_set].open -= 1
            if not sets[task.trained_set].open:
                go_on(task.trained_set)
        watch()
    return failures


def _outcome(ray: Any, reference: Any) -> str | None:
    """Why a task failed, in one line; None where it did not."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        last = [line for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {last[-1].strip() if isinstance(error, ray.exceptions.RayTaskError) else last[0].strip()}"


def _perform(config: str, task: Task, directory: str, working: str) -> str | None:
    """In a worker: do the task. Returns why it could not be done, where a user can correct that."""
    os.chdir(working)  # paths in a recipe count from there
    try:
        perform(task, _prepared(config), Path(directory))
    except UserError as error:
        return str(error)
    except Interrupted as stop:
        return str(stop)
    return None


@lru_cache(maxsize=1)
def _prepared(config: str) -> Prepared:
    """What a worker has loaded, for all its tasks: each leaves the base as it was."""
    recipe = Config.model_validate_json(config)
    return prepare(recipe, ["full", *recipe.study.trained_sets])


def _threads(placement: Placement) -> int:
    if placement.threads:
        return placement.threads
    return 1 if placement.address else max(1, len(os.sched_getaffinity(0)) // (placement.parallel or 1))


def _start(placement: Placement) -> Any:
    """Ray, connected to the cluster, or with a cluster of this machine that ends with this process."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else whatever else computes here would go before a study
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("a study in parallel needs Ray: pip install 'onelayer[ray]'") from error
    if placement.address:
        _check_answers(placement.address)
    threads = _threads(placement)
    passed = {name: value for name in ("ONELAYER_DATA", "PYTHONPATH", "HF_HOME", "HF_HUB_OFFLINE") if (value := os.environ.get(name))}
    environment = {"env_vars": passed | {"OMP_NUM_THREADS": str(threads)}}
    here: dict[str, Any] = {"num_cpus": threads * (placement.parallel or 1), "include_dashboard": False}
    try:
        ray.init(
            address=placement.address or "local",
            runtime_env=environment,
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if placement.address else here),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"Ray did not start: {str(error).splitlines()[0]}") from error
    return ray


def _check_answers(address: str) -> None:
    """Raises UserError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there ({error}); give HOST:PORT of its head node, or auto") from error
