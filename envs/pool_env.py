"""An environment of the pool as its caller sees it: what is asked of it, what comes of it, and whose fault a failure is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..common.errors import UserError
from .pool_worker import Data, fold

ACTION_ERROR = "action_error"
"""The verdict of a step that an action made fail."""
HARMLESS = ("", "hello")  # two, since the first may be what failed, or the only thing an environment cannot bear


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


class Worker(Protocol):
    """What carries out requests."""

    episodes: set[int]
    """Numbers of the episodes under way."""

    def submit(self, request: Request) -> None: ...


class Placing(Protocol):
    """The pool, as far as an environment of it needs to know."""

    def place(self, env: PoolEnv) -> None:
        """Give it a worker and the number of a new episode."""
        ...

    def try_again(self, request: Request) -> None:
        """Have a step that failed tried again in a process apart."""
        ...


class PoolEnv:
    """An environment of the pool: plays one episode at a time, and one call at a time."""

    worker: Worker

    def __init__(self, pool: Placing):
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
        request = Request(self, do, self.number, action)
        self.worker.submit(request)
        return request.future


@dataclass(eq=False)
class Request:
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

        def succeeds(action: str) -> bool | None:  # None where the state cannot be reached again
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
