"""The host of environments: carries out commands of the pool, in the caller's process or, through `serve`, in one of its own.

Commands and replies are plain data. A command names the episode by a number that is never used again:

    reset    item, seed                          a new episode
    restore  item, seed, actions, seen           an episode that was begun elsewhere, checked to come to the same state
    step     action
    free                                         the episode will not go on; nobody waits for the reply

Beside these every command has a `number`, and a reply that lacks it is none: an environment shares the process with what answers
for it, and may write to the same pipe.

A reply is a turn (observation, reward, terminated, truncated, info), `failed` with the reason, or `user_error` with the message
of a UserError. Environments are used again for later episodes, one that failed is thrown away.

The process is a fresh interpreter and not a fork of the caller, so it is safe beside threads, CUDA and inside daemonic
processes. It is told once, in a pickle, how environments are made; what comes back is JSON only, so the caller need not trust
what an environment puts into `info`. It ends when its standard input is closed or the thread that started it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, TextIO

import gymnasium as gym
import numpy as np

from ..common.errors import UserError

Data = dict[str, Any]
PRINTED = 500  # characters of what an environment prints that are shown


class Host:
    """Environments by the number of the episode that each one plays."""

    def __init__(self, make: Callable[[], gym.Env], tick: Callable[[], None] = lambda: None):
        """tick: called between the parts of a long command, each of which may take as long as a step."""
        self._make, self._tick = make, tick
        self._idle: list[gym.Env] = []
        self._playing: dict[int, gym.Env] = {}

    def do(self, command: Mapping[str, Any]) -> Data:
        """Carry out one command. Whatever the environment raises becomes a reply; KeyboardInterrupt alone gets through."""
        episode = command["episode"]
        try:
            return self._do(episode, command)
        except UserError as error:
            reply = {"user_error": str(error)}
        except (Exception, SystemExit) as error:
            reply = {"failed": describe(error)}
        broken = self._playing.pop(episode, None)
        with contextlib.suppress(Exception, SystemExit):
            if broken is not None:
                broken.close()
        return reply

    def warm_up(self) -> None:
        """Make the first environment. Raises whatever its constructor raises."""
        self._idle.append(self._make())

    def close(self) -> None:
        """Close every environment."""
        for env in (*self._idle, *self._playing.values()):
            with contextlib.suppress(Exception, SystemExit):
                env.close()
        self._idle, self._playing = [], {}

    def _do(self, episode: int, command: Mapping[str, Any]) -> Data:
        match command["do"]:
            case "reset":
                return self._reset(episode, command)
            case "step":
                return self._step(episode, command["action"])
            case "restore":
                return self._restore(episode, command)
        if (env := self._playing.pop(episode, None)) is not None:
            self._idle.append(env)
        return {}

    def _reset(self, episode: int, command: Mapping[str, Any]) -> Data:
        if command.get("fresh"):
            self.close()
        if not self._idle:
            self.warm_up()
            self._tick()
        env = self._playing[episode] = self._idle.pop()
        observation, info = env.reset(seed=command["seed"], options={"item": command["item"]})
        return turn(observation, 0.0, False, False, info)

    def _step(self, episode: int, action: str) -> Data:
        env = self._playing[episode]
        reply = turn(*env.step(action))
        if reply["terminated"] or reply["truncated"]:
            self._idle.append(self._playing.pop(episode))
        return reply

    def _restore(self, episode: int, command: Mapping[str, Any]) -> Data:
        seen = fold("", self._reset(episode, command))
        for action in command["actions"]:
            self._tick()
            seen = fold(seen, self._step(episode, action))
        if seen != command["seen"]:
            raise RuntimeError("the same item, seed and actions led to other observations than before")
        return {}


def turn(observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Data:
    """What came of an action, as plain data. Raises TypeError or ValueError for what cannot be an observation or a reward."""
    if not isinstance(observation, str):
        raise TypeError(f"the observation is {type(observation).__name__}, not text")
    if not math.isfinite(reward := float(reward)):
        raise ValueError(f"the reward is {reward}")
    ended = {"terminated": bool(terminated), "truncated": bool(truncated)}
    return {"observation": str.__str__(observation), "reward": reward, **ended, "info": as_json(dict(info))}


def as_json(value: Any) -> Any:
    """JSON's kinds of values; what is none of them, as its `repr`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration's member, the text alone
    if type(value) in (int, float):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    return repr(value)


def fold(seen: str, reply: Mapping[str, Any]) -> str:
    """Digest of an episode so far: what an agent has seen of it and been paid."""
    shown = [seen, *(reply[key] for key in ("observation", "reward", "terminated", "truncated"))]
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()


def describe(error: BaseException) -> str:
    """Type, message and place of an exception, in one line."""
    try:
        message = " ".join(str(error).split())[:300]
    except Exception:
        message = "(no message: its __str__ fails)"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({PurePath(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"


# ------------------------------------------------------------------------------------------------------ in its own process


def serve() -> None:
    """Answer batches of commands, one line of JSON each, until standard input is closed.

    A line of the first batch tells how to make environments. A reply with `recycle` is the process's last one: it has taken
    more memory than it may. Where one command alone took half of that, it has `failed`.
    """
    commands, replies = _own_streams()
    with os.fdopen(commands, encoding="utf-8") as lines:
        [first] = json.loads(next(lines))
        number = first["number"]  # of the command that is carried out
        die_with(first["caller"])
        limit = _limit_memory(first["memory_bytes"])

        def answer(reply: Data) -> None:
            _write(replies, reply, number)

        try:
            host = Host(pickle.loads(bytes.fromhex(first["make"])), tick=lambda: answer({"tick": True}))
            host.warm_up()
        except UserError as error:
            return answer({"user_error": str(error)})
        except (Exception, SystemExit) as error:
            return answer({"failed": describe(error)})
        answer({"ready": True})
        used = _memory()
        for line in lines:
            for command in json.loads(line):
                number = command["number"]
                before, reply = used, host.do(command)
                used = _memory()
                full = used > limit and command["do"] in ("reset", "step")  # a restored episode is to get its step first
                if full:
                    reply |= {"recycle": used}
                    if used - before > limit / 2 and "failed" not in reply:
                        reply |= {"failed": f"it took {(used - before) / 2**30:.1f} GiB of memory (pool.memory_gib={limit / 2**30:g})"}
                if command["do"] != "free":
                    answer(reply)
                if full:
                    return  # without closing them: the caller does not wait
        host.close()


class Beginning(io.TextIOBase):
    """Standard output of which only the beginning is shown: a grader may print at every step."""

    def __init__(self, out: TextIO, left: int = PRINTED):
        self._out, self._left = out, left

    def write(self, text: str, /) -> int:
        self._out.write(text[: self._left])
        if 0 < self._left <= len(text):
            self._out.write("\n[the environment prints more, which is not shown]\n")
        self._left = max(0, self._left - len(text))
        return len(text)

    def flush(self) -> None:
        self._out.flush()

    def fileno(self) -> int:
        return self._out.fileno()


def _own_streams() -> tuple[int, int]:
    """Standard input and output under other numbers; environments get an empty one and standard error."""
    kept = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 64) for number in (0, 1)]
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.stdout = Beginning(sys.stdout)
    return kept[0], kept[1]


def die_with(caller: int) -> None:
    """Be killed by the kernel when the caller is gone, even in a step that hangs (Linux: prctl PR_SET_PDEATHSIG)."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != caller:  # it went before we asked
        raise SystemExit


def _limit_memory(limit: int) -> int:
    """Twice the limit is what the kernel grants: one step must not take the machine."""
    import resource

    for kind, most in ((resource.RLIMIT_DATA, 2 * limit), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
    return limit


def _memory() -> int:
    """Resident bytes of this process; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _write(stream: int, reply: Data, number: str) -> None:
    try:
        data = json.dumps(reply | {"number": number})
    except (ValueError, TypeError, RecursionError) as error:
        data = json.dumps({"failed": describe(error), "number": number})
    left = memoryview(data.encode() + b"\n")
    while left:
        left = left[os.write(stream, left) :]
