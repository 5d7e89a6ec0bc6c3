"""A pool steps hundreds of environments over worker processes, and outlives what environments do to their processes.

`reset` and `step` return at once with a future, so that an engine can decode while environments work. What a user can mend
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
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import gymnasium as gym

from ..common.errors import UserError
from . import make
from .config import EnvConfig, MathConfig, PoolConfig
from .pool_process import CLOSE_SECONDS, START_SECONDS, Gone, Process, Settings
from .pool_worker import Data, Host, fold

START_ATTEMPTS = 3
ACTION_ERROR = "action_error"
"""The verdict of a step that an action made fail."""
TRIERS = 2  # steps that failed and are tried again, at once
HARMLESS = ("", "hello")  # two, since the first may be what failed, or the only thing an environment can not bear

CLOSED = "the pool was closed"

_log = logging.getLogger(__name__)


class InfrastructureError(RuntimeError):
    """An episode was lost, and not by its actions; the message is one line with the reason, the item and the step."""


@dataclass(frozen=True)
class Turn:
    """What came of a reset or a step."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    """Plain data: what JSON does not know is there as its `repr`."""

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated


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
        self._workers = [_Worker(self) for _ in range(workers)] or [_Here(make)]
        self.trials: SimpleQueue[_Request | None] = SimpleQueue()
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

    def try_again(self, request: _Request) -> None:
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
        workers = 0 if isinstance(env, MathConfig) else len(os.sched_getaffinity(0))
    return Pool(functools.partial(make, env, split), workers, settings.step_seconds, settings.memory_gib)


class PoolEnv:
    """An environment of the pool: plays one episode at a time, and one call at a time."""

    worker: _Worker | _Here

    def __init__(self, pool: Pool):
        self.pool, self.number = pool, -1
        self.item, self.seed, self.actions, self.seen = "", 0, [], ""
        self.process = -1  # which of its worker's processes, counted from 1, holds it

    def reset(self, item: str, seed: int) -> Future[Turn]:
        """Begin an episode on `item`."""
        self.close()
        self.item, self.seed, self.actions, self.seen = item, seed, [], ""
        self.pool.place(self)
        return self._ask("reset")

    def step(self, action: str) -> Future[Turn]:
        """Go on with `action`."""
        return self._ask("step", action)

    def close(self) -> None:
        """Give up the episode where it is not over."""
        if self.number >= 0 and self.number in self.worker.episodes:
            self.worker.episodes.discard(self.number)
            self._ask("free")

    def _ask(self, do: str, action: str = "") -> Future[Turn]:
        request = _Request(self, do, self.number, action)
        self.worker.submit(request)
        return request.future


@dataclass(eq=False)
class _Request:
    """What a caller has asked of an environment."""

    env: PoolEnv
    do: str
    number: int
    """Of the episode."""
    action: str = ""
    future: Future[Turn] = field(default_factory=Future)
    reason: str = ""
    """Why the step failed, where it is tried again."""
    grave: bool = False
    """It ended the process, or memory was short."""

    def command(self, do: str, **more: object) -> Data:
        env, command = self.env, {"do": do, "episode": self.number}
        if do in ("reset", "restore"):
            command |= {"item": env.item, "seed": env.seed}
        if do == "restore":
            command |= {"actions": env.actions, "seen": env.seen}
        if do == "step":
            command |= {"action": self.action}
        return command | more

    def settle(self, do: str, reply: Data) -> None:
        """Fulfil the future with the reply to the command `do`; a step that failed is tried again first."""
        env = self.env
        if "user_error" in reply:
            self._end(UserError(reply["user_error"]))
        elif "failed" in reply and do == "step":
            self.reason = self._describe(reply["failed"])
            self.grave = "recycle" in reply or "MemoryError" in self.reason
            env.pool.try_again(self)
        elif "failed" in reply:
            self._end(InfrastructureError(self._describe(("lost with its worker: " if do == "restore" else "") + reply["failed"])))
        elif do != "restore":
            turn = Turn(*(reply[name] for name in ("observation", "reward", "terminated", "truncated", "info")))
            env.seen = fold(env.seen, reply)
            if do == "step":
                env.actions.append(self.action)
            if turn.over:
                env.worker.episodes.discard(self.number)
            self.future.set_result(turn)

    def judge(self, ask: Callable[[Data], Data]) -> None:
        """Fulfil the future of a step that failed, after trying it again: `ask` carries out commands in a host apart.

        The action is to blame where from the same state a harmless one succeeds and it fails again. Where the failure was more than
        an exception, each is tried in a process of its own: what one has left in memory must not be held against the other.
        """

        def succeeds(action: str) -> bool | None:  # None where the state can not be reached again
            if "failed" in ask(self.command("restore", fresh=True, new_process=self.grave)):
                return None
            return "failed" not in ask(self.command("step", action=action))

        if any(succeeds(action) for action in HARMLESS if action != self.action) and succeeds(self.action) is False:
            info = {"item": self.env.item, "verdict": ACTION_ERROR, "error": self.reason}
            self.env.worker.episodes.discard(self.number)
            self.future.set_result(Turn("", 0.0, True, False, info))
        else:
            self._end(InfrastructureError(self.reason))

    def fail(self, error: Exception) -> None:
        """Nobody can carry it out."""
        if self.do != "free" and not self.future.done():
            self._end(error)

    def _end(self, error: Exception) -> None:
        self.env.worker.episodes.discard(self.number)
        self.future.set_exception(error)

    def _describe(self, reason: str) -> str:
        return f"{reason}, item {self.env.item}, {f'step {len(self.env.actions) + 1}' if self.do == 'step' else 'reset'}"


class _Here:
    """The worker that is this process: a request is answered before `submit` returns."""

    def __init__(self, make: Callable[[], gym.Env]):
        self._make, self._host = make, Host(make)
        self.episodes: set[int] = set()

    def submit(self, request: _Request) -> None:
        reply = self._host.do(request.command(request.do))
        if request.do != "free":
            request.settle(request.do, reply)

    def judge(self, request: _Request) -> None:
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
                    raise UserError(f"the environment can not be made in a process of its own: {gone}") from gone
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
        self._requests: SimpleQueue[_Request | None] = SimpleQueue()
        self._count = 0  # of processes so far

    def submit(self, request: _Request) -> None:
        if self._stopped:
            return request.fail(InfrastructureError(CLOSED))
        if self._thread.ident is None:
            self._thread.start()
        self._requests.put(request)

    def stop(self) -> None:
        super().stop()
        self._requests.put(None)

    def _run(self) -> None:
        waiting: list[_Request] = []
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

    def _next(self) -> list[_Request]:
        """All that was asked since the last batch."""
        found = [self._requests.get()]
        while not self._requests.empty():
            found.append(self._requests.get())
        return [request for request in found if request]

    def _answer(self, requests: list[_Request]) -> list[_Request]:
        """Answer requests in their order; returns those that are left where the process came to its end."""
        if self._process and not self._process.alive():
            self._end()  # it died, or something wrote to its pipe, between two batches: in nobody's step
        if (process := self._process) is None:
            process, self._count = self._start(), self._count + 1
        due: deque[tuple[_Request, str]] = deque()
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
