"""A pool steps hundreds of environments over worker processes, and outlives what environments do to their processes.

`reset` and `step` return at once with a future, so that an engine can decode while environments work. What a user can correct
(UserError) and what the infrastructure has lost (`InfrastructureError`) come out of the future as exceptions.

An environment that raises is thrown away. One that crashes its process, gives no answer within `step_seconds`, or takes the
process beyond `memory_gib` is ended with the process; the other episodes of that process are innocent. They are brought back in
a new one by the actions they had taken, when they go on, and are lost only where that leads to other observations.

What fails in a step may be the doing of the action, and a policy must not escape its zero by breaking things. So the step is
tried again in a fresh environment, from the same item, seed and actions: once with a harmless action, once with the action
itself. Where only the latter fails, the action did it: the episode ends there, its last reward is 0, the verdict
`action_error` and the reason in `info`. Anything else is an infrastructure error.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

import gymnasium as gym

from ..common.errors import UserError
from . import make
from .config import EnvConfig, PoolConfig
from .pool_env import InfrastructureError, PoolEnv, Request
from .pool_process import CLOSE_SECONDS, START_SECONDS, Gone, Process, Settings
from .pool_worker import Data, Host

START_ATTEMPTS = 3
TRIERS = 2  # steps that failed and are tried again, at once
CLOSED = "the pool was closed"

_log = logging.getLogger(__name__)


class Pool:
    """Environments that run beside the caller; a context manager, since their processes must end.

    The same calls give the same results with any number of workers.
    """

    def __init__(self, make: Callable[[], gym.Env], workers: int = 0, step_seconds: float = 120.0, memory_gib: float = 4.0):
        """make: makes an environment; with workers it must be picklable: a class, a function of a module, or a partial of one.

        workers: processes; 0 steps environments in this one, when they are asked to: only exceptions are caught then.
        step_seconds: wall time of one reset or step. memory_gib: resident memory of one worker.
        """
        self.settings = Settings(b"" if workers == 0 else pickle.dumps(make), step_seconds, int(memory_gib * 2**30))
        self._numbers = itertools.count()
        self.turns: int | None = None
        """The most steps of an episode; None: not known."""
        self._workers = [_Worker(self) for _ in range(workers)] or [_Here(make)]
        self.trials: SimpleQueue[Request | None] = SimpleQueue()
        self._triers: list[_Trier] = []
        self._lock, self._closed = threading.Lock(), False

    def env(self) -> PoolEnv:
        """An environment, to be reset before it is stepped."""
        return PoolEnv(self)

    def close(self) -> None:
        """End all workers; who still waits for a turn gets an InfrastructureError."""
        with self._lock:
            self._closed = True
        for worker in (*self._workers, *self._triers):
            worker.stop()
        for worker in (*self._workers, *self._triers):
            worker.join()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def place(self, env: PoolEnv) -> None:
        """Give the environment's next episode a number and the worker with the fewest episodes."""
        env.number, env.worker = next(self._numbers), min(self._workers, key=lambda worker: len(worker.episodes))
        env.worker.episodes.add(env.number)

    def try_again(self, request: Request) -> None:
        """Find out, in a process apart, whether the action is to blame for a step that failed."""
        if isinstance(request.env.worker, _Here):
            return request.env.worker.judge(request)
        self.trials.put(request)
        with self._lock:
            if len(self._triers) < TRIERS and not self._closed:
                self._triers.append(_Trier(self))


def open_pool(env: EnvConfig, split: str, settings: PoolConfig) -> Pool:
    """A pool of the environment that a recipe names, on one of its splits."""
    workers = settings.workers
    if workers is None:
        workers = 0 if env.IN_PROCESS else len(os.sched_getaffinity(0))
    pool = Pool(functools.partial(make, env, split), workers, settings.step_seconds, settings.memory_gib)
    pool.turns = getattr(env, "turns", None)
    return pool


class _Here:
    """The worker that is this process: a request is answered before `submit` returns."""

    def __init__(self, make: Callable[[], gym.Env]):
        self._make, self._host = make, Host(make)
        self.episodes: set[int] = set()

    def submit(self, request: Request) -> None:
        reply = self._host.do(request.command(request.do))
        if request.do != "free":
            request.settle(request.do, reply)

    def judge(self, request: Request) -> None:
        apart = Host(self._make)
        try:
            request.judge(apart.do)
        finally:
            apart.close()

    def stop(self) -> None:
        self._host.close()

    def join(self) -> None:
        pass


class _Thread:
    """A thread that keeps one process running."""

    def __init__(self, pool: Pool):
        self._settings, self._stopped = pool.settings, False
        self._process: Process | None = None
        self._thread = threading.Thread(target=self._run, name="environments", daemon=True)

    def stop(self) -> None:
        """Ask it to end; `join` waits for that."""
        self._stopped = True

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)
            if self._thread.is_alive() and (process := self._process):
                process.interrupt()
            self._thread.join()

    def _start(self) -> Process:
        """A new process. Raises UserError where none comes up."""
        for attempt in range(1, START_ATTEMPTS + 1):
            if self._stopped:
                raise InfrastructureError(CLOSED)
            self._process = process = Process(self._settings)
            try:
                process.prepare()
                break
            except Gone as gone:
                hangs = process.running()
                self._end()
                if hangs or attempt == START_ATTEMPTS:
                    raise UserError(f"the environment cannot be made in a process of its own: {gone}") from gone
        return process

    def _end(self) -> None:
        if self._process:
            self._process.kill()
        self._process = None

    def _run(self) -> None:
        raise NotImplementedError


class _Worker(_Thread):
    """Hands batches of commands to its process, and replaces it."""

    def __init__(self, pool: Pool):
        super().__init__(pool)
        self.episodes: set[int] = set()
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._count = 0  # of processes so far

    def submit(self, request: Request) -> None:
        if self._stopped:
            return request.fail(InfrastructureError(CLOSED))
        if self._thread.ident is None:
            self._thread.start()
        self._requests.put(request)

    def stop(self) -> None:
        super().stop()
        self._requests.put(None)

    def _run(self) -> None:
        waiting: list[Request] = []
        problem: Exception = InfrastructureError(CLOSED)
        try:
            while not self._stopped:
                waiting = self._answer(waiting) if waiting else self._next()
        except Exception as error:
            problem = error
        if self._process:
            self._process.close()
        for request in waiting:
            request.fail(problem)
        while not (self._stopped and self._requests.empty()):
            if request := self._requests.get():
                request.fail(problem)

    def _next(self) -> list[Request]:
        """All that was asked since the last batch."""
        found = [self._requests.get()]
        while not self._requests.empty():
            found.append(self._requests.get())
        return [request for request in found if request]

    def _answer(self, requests: list[Request]) -> list[Request]:
        """Answer requests in their order; returns those that are left where the process came to its end."""
        if self._process and not self._process.alive():
            self._end()  # it died, or something wrote to its pipe, between two batches: in nobody's step
        if (process := self._process) is None:
            process, self._count = self._start(), self._count + 1
        due: deque[tuple[Request, str]] = deque()
        for request in requests:
            if request.do == "step" and request.env.process != self._count:
                due.append((request, "restore"))
            due.append((request, request.do))
        process.send([request.command(do) for request, do in due])
        end, reply = None, {}
        while due and not end:
            request, do = due.popleft()
            if do == "free":
                continue
            try:
                reply = process.receive()
                if "recycle" in reply:
                    end = f"it took {reply['recycle'] / 2**30:.1f} GiB of memory"
            except Gone as gone:
                end, reply = str(gone), {"failed": str(gone), "recycle": 0}
            if self._stopped:
                raise InfrastructureError(CLOSED)
            request.env.process = self._count
            if not request.future.done():  # it is where the episode could not be restored
                request.settle(do, reply)
        if end:
            self._end()
            level = logging.INFO if "failed" in reply else logging.WARNING  # who has failed is told by the episode
            _log.log(level, "a worker of environments is replaced: %s; %d episodes are brought back", end, len(self.episodes))
        return [request for request, do in due if do == request.do != "free" and not request.future.done()]


class _Trier(_Thread):
    """Tries steps again that have failed, in a process apart."""

    def __init__(self, pool: Pool):
        super().__init__(pool)
        self._trials, self._deadline = pool.trials, 0.0
        self._thread.start()

    def stop(self) -> None:
        super().stop()
        self._trials.put(None)

    def _run(self) -> None:
        while not self._stopped:
            if (request := self._trials.get()) is None:
                continue
            self._deadline = time.monotonic() + START_SECONDS + 4 * self._settings.step_seconds
            try:
                request.judge(self._ask)
            except Exception as error:
                request.fail(error)
        self._end()

    def _ask(self, command: Data) -> Data:
        """Carry out one command; an end of the process is a failure of the command."""
        if time.monotonic() > self._deadline:
            return {"failed": "no time is left"}
        if command.get("new_process"):
            self._end()
        process = self._process or self._start()
        try:
            process.send([command])
            reply = process.receive()
        except Gone as gone:
            reply = {"failed": str(gone), "recycle": 0}
        if "recycle" in reply:
            self._end()
        return reply
