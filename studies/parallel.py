"""The tasks of a study, or of a leaderboard run, in many processes, on this machine or on a Ray cluster, which shares the
directory.

Each task is a Ray task with its threads and GPUs: it does what is missing in its own directory, with the base that its worker has
loaded. A worker or a node that dies costs a run the time since its last checkpoint: Ray begins the task again, elsewhere if need be, and
it goes on where it was. How many threads a task has decides the order of its sums, so results depend on it, and on nothing else of the
placement.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from ..common.errors import Interrupted, UserError
from ..trainers.config import Config
from ..trainers.train import Prepared, prepare
from .board import BoardTask
from .board import perform as perform_board
from .tasks import ATTEMPTS, BASE, Task, perform, stages

One = TypeVar("One", bound=Hashable)
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
    memory: float = 0
    """GiB of a task; zero: no node counts it."""


@dataclass
class _Queue:
    """Tasks that follow each other in stages."""

    rest: Iterator[Sequence[Any]]
    open: int = 0


def runner(placement: Placement, watch: Callable[[], None] = lambda: None) -> Callable[[Prepared, Path], dict[Task, str]]:
    """What does a study's tasks by Ray. watch: called about every second. Raises UserError where there is no Ray, or no such cluster."""
    ray = _start(placement)

    def run(prepared: Prepared, directory: Path) -> dict[Task, str]:
        """Raises UserError where the base cannot be evaluated: there is nothing to compare then."""
        config = prepared.config
        queues = [stages(name, config, directory) for name in (BASE, *(trained.spec for trained in prepared.sets))]
        do = partial(_of_study, config.model_dump_json(), str(directory))
        return _in_parallel(ray, placement, queues, do, watch, lambda task: task.trained_set == BASE)

    return run


def board_runner(placement: Placement) -> Callable[[Sequence[BoardTask]], dict[BoardTask, str]]:
    """What does the tasks of a leaderboard run by Ray. Raises as `runner`."""
    ray = _start(placement)
    return lambda tasks: _in_parallel(ray, placement, [iter([tasks])], perform_board)


def _in_parallel(
    ray: Any,
    placement: Placement,
    stages_of: Sequence[Iterator[Sequence[One]]],
    do: Callable[[One], None],
    watch: Callable[[], None] = lambda: None,
    is_needed: Callable[[One], bool] = lambda task: False,
) -> dict[One, str]:
    """Do tasks, and end Ray. Returns those that could not be done, and why.

    stages_of: queues of stages; tasks of one stage are done at the same time, and the next stage of its queue is asked for when all have
    been. is_needed: nothing goes on where this task fails, which raises UserError.
    """
    failures, attempts = dict[One, str](), Counter[One]()
    needs = _needs(placement)
    work = ray.remote(_perform).options(num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=needs["memory"], max_retries=RESTARTS)
    running: dict[Any, tuple[One, _Queue]] = {}

    def submit(task: One, queue: _Queue) -> None:
        attempts[task] += 1
        running[work.remote(do, task, os.getcwd())] = task, queue

    def go_on(queue: _Queue) -> None:
        tasks = next(queue.rest, [])
        queue.open = len(tasks)
        for task in tasks:
            submit(task, queue)

    with _until_done(ray):
        for rest in stages_of:
            go_on(_Queue(rest))
        while running:
            done, _ = ray.wait(list(running), timeout=1.0)
            for reference in done:
                task, queue = running.pop(reference)
                trouble = _outcome(ray, reference)
                if trouble and attempts[task] < ATTEMPTS:
                    _log.warning("%s: attempt %d of %d failed: %s", task, attempts[task], ATTEMPTS, trouble)
                    submit(task, queue)
                    continue
                if trouble and is_needed(task):
                    raise UserError(trouble)
                if trouble:
                    failures[task] = trouble
                queue.open -= 1
                if not queue.open:
                    go_on(queue)
            watch()
    return failures


@contextmanager
def _until_done(ray: Any) -> Iterator[None]:
    """End Ray afterwards, and keep standard output, which is for the result of the command, free of what Ray prints there of its nodes."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            yield
        finally:
            ray.shutdown()  # its threads print until then


def _outcome(ray: Any, reference: Any) -> str | None:
    """Why a task failed, in one line; None where it did not."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if isinstance(error, ray.exceptions.OutOfMemoryError):
            return f"out of memory: {lines[0]}; give --memory what a run takes, or a smaller --parallel"
        return f"{type(error).__name__}: {lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]}"


def _perform(do: Callable[[One], None], task: One, working: str) -> str | None:
    """In a worker: do the task. Returns why it could not be done, where a user can correct that."""
    os.chdir(working)  # paths in a recipe count from there
    try:
        do(task)
    except UserError as error:
        return str(error)
    except Interrupted as stop:
        return str(stop)
    return None


def _of_study(config: str, directory: str, task: Task) -> None:
    perform(task, _prepared(config), Path(directory))


@lru_cache(maxsize=1)
def _prepared(config: str) -> Prepared:
    """What a worker has loaded, for all its tasks: each leaves the base as it was."""
    recipe = Config.model_validate_json(config)
    return prepare(recipe, ["full", *recipe.study.trained_sets])


def _needs(placement: Placement) -> dict[str, float]:
    """Of a task, as Ray names its resources."""
    return {"CPU": _threads(placement), "GPU": placement.gpus, "memory": int(placement.memory * 2**30)}


def _threads(placement: Placement) -> int:
    if placement.threads:
        return placement.threads
    return 1 if placement.address else max(1, len(os.sched_getaffinity(0)) // (placement.parallel or 1))


def _start(placement: Placement) -> Any:
    """Ray, connected to the cluster, or with a cluster of this machine that ends with this process."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else whatever else computes here would go before a study
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_task_oom_retries", "1")  # else a task that no node has the memory for is begun again for ever
    try:
        import ray
    except ImportError as error:
        raise UserError("running in parallel needs Ray: pip install 'onelayer[ray]'") from error
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
    _check_fits(ray, placement)
    return ray


def _check_fits(ray: Any, placement: Placement) -> None:
    """Raises UserError where no node could take a task: Ray itself would wait for such a node, for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for option, name, unit in (("--threads", "CPU", 1), ("--gpus", "GPU", 1), ("--memory", "memory", 2**30)):
        most, needed = max(node.get(name, 0) for node in nodes) / unit, _needs(placement)[name] / unit
        if needed > most:
            ray.shutdown()
            raise UserError(f"{option} {needed:g}: no node has so much for a task; the largest has {most:.4g}")


def _check_answers(address: str) -> None:
    """Raises UserError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UserError(f"--ray {address}: no Ray cluster answers there ({error}); give HOST:PORT of its head node, or auto") from error
