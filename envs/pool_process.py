"""A worker process of the pool, as its caller sees it: commands go in, replies come out, and it can be ended.

What goes on inside is in pool_worker.py, and what a pool does with it in pool.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from .pool_worker import Data

START_SECONDS = 600.0  # until a process has imported the environment's libraries and made the first one
CLOSE_SECONDS = 2.0  # that environments may take to close
LONGEST_REPLY = 256 << 20  # bytes: the caller holds a reply in its memory several times over
MARK = "ONELAYER_WORKER"  # in the environment of a worker and of every process that descends from it
NO_WAIT = os.WEXITED | os.WNOHANG | os.WNOWAIT  # tell how it ended, and leave it to be collected later
ROUNDS = 10  # of ending descendants, which may start others meanwhile


@dataclass(frozen=True)
class Settings:
    """What a process is to do, and its limits."""

    make: bytes
    """Pickle of the function that makes an environment."""
    step_seconds: float
    memory_bytes: int


class Gone(Exception):
    """A process that gives no more replies; the message says why."""


class Process:
    """A process that hosts environments, and the pipes to it; used by the thread that started it.

    Every command carries a number that nobody can guess, and its reply has to name it. What an environment writes to the pipe of
    the replies is therefore never taken for one: the process is then given up, as it is where it dies.
    """

    def __init__(self, settings: Settings):
        """Start it; `prepare` comes next."""
        program = f"import sys; sys.path[:] = {[os.path.abspath(path) for path in sys.path]!r}; "
        self._seconds, self._mark = settings.step_seconds, secrets.token_hex(16)
        self._process = subprocess.Popen(
            [sys.executable, "-c", program + f"from {__package__}.pool_worker import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the caller's business, and the whole group can be killed
            env=os.environ | {MARK: self._mark},
        )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._replies = select.poll()
        self._replies.register(self._output, select.POLLIN)
        self._unread = bytearray()
        self._due: deque[str] = deque()  # the numbers of the commands that are to be answered, in order
        self._ending_it = threading.Lock()
        self._first = {"do": "make", "make": settings.make.hex(), "memory_bytes": settings.memory_bytes, "caller": os.getpid()}

    def prepare(self) -> None:
        """Have it make its first environment. Raises Gone where it does not come up, UserError where none can be made."""
        self.send([self._first])
        reply = self.receive(START_SECONDS)
        if "ready" not in reply:
            raise UserError(reply.get("user_error") or f"the environment cannot be made: {reply['failed']}")

    def send(self, commands: Sequence[Mapping[str, Any]]) -> None:
        """Hand over commands, to be carried out in order. Where nobody takes them, `receive` finds out."""
        numbers = [None if command["do"] == "free" else secrets.token_hex(16) for command in commands]
        self._due.extend(number for number in numbers if number)
        message = [{**command, "number": number} for command, number in zip(commands, numbers, strict=True)]
        data = memoryview(json.dumps(message).encode() + b"\n")
        deadline = time.monotonic() + self._seconds
        poll = select.poll()
        poll.register(self._input, select.POLLOUT)
        with contextlib.suppress(BrokenPipeError):
            while data and poll.poll(1000 * max(0.0, deadline - time.monotonic())):
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._input, data) :]

    def receive(self, seconds: float | None = None) -> Data:
        """The reply to the first command that has none yet. Raises Gone where it does not come within `seconds` (default: of one step)."""
        seconds = seconds or self._seconds
        while True:
            line = self._line(time.monotonic() + seconds, seconds)
            try:
                reply = json.loads(line)
            except (ValueError, RecursionError):
                reply = None
            if not isinstance(reply, dict) or reply.pop("number", None) != self._due[0]:
                raise Gone("what the process sent is no reply")  # the environment has found the pipe
            if "tick" not in reply:
                self._due.popleft()
                return reply

    def alive(self) -> bool:
        """Whether it can be asked. Not where it has sent what nobody asked for."""
        return not self._exited() and not self._unread and not self._replies.poll(0)

    def running(self) -> bool:
        return not self._exited()

    def close(self) -> None:
        """Let environments close, then end the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process and all that descend from it."""
        self.interrupt()
        self._wait()
        _end_marked(f"{MARK}={self._mark}".encode())
        with self._ending_it:
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def interrupt(self) -> None:
        """End the process and its group; may be called by any thread, the one that waits for a reply gets Gone."""
        with self._ending_it, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:  # not collected yet, so the group's number is still its own
                os.killpg(self._process.pid, signal.SIGKILL)

    def _line(self, deadline: float, seconds: float) -> bytes:
        """The next line. Raises Gone where it is not there in whole by the deadline."""
        searched, late = 0, False
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if late:  # looked at once more since the deadline: the caller may be what was slow
                raise Gone(f"no answer within {seconds:g} s")
            if searched > LONGEST_REPLY:
                raise Gone(f"its reply is longer than {LONGEST_REPLY >> 20} MiB")
            left = deadline - time.monotonic()
            late = left <= 0
            ended = self._exited()  # before the poll: what it sent until then is read
            if self._replies.poll(0 if ended else 1000 * min(1.0, max(0.0, left))):
                if not (received := os.read(self._output, 1 << 20)):
                    raise Gone(self._ending())
                self._unread += received
            elif ended:  # though a child of it keeps the pipe open
                raise Gone(self._ending())
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return line

    def _exited(self) -> bool:
        """Whether it has come to its end. It is not collected: while it is not, no other process and no other group can have its number."""
        return self._process.returncode is not None or os.waitid(os.P_PID, self._process.pid, NO_WAIT) is not None

    def _wait(self, seconds: float = float("inf")) -> bool:
        """Whether it comes to its end within `seconds`."""
        deadline = time.monotonic() + seconds
        while not (ended := self._exited()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return ended

    def _ending(self) -> str:
        if not self._wait(5):
            return "the process closed its pipe"
        found = os.waitid(os.P_PID, self._process.pid, NO_WAIT)
        assert found
        if found.si_code == os.CLD_EXITED:
            return f"the process ended itself with exit code {found.si_status}"
        return f"the process died of {signal.Signals(found.si_status).name}"


def _end_marked(mark: bytes) -> None:
    """End the processes with `mark` in their environment: descendants that have left the group, as daemons do."""
    for _ in range(ROUNDS):
        found = False
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    process = os.pidfd_open(int(folder.name))
                    try:
                        if mark in (folder / "environ").read_bytes().split(b"\0"):  # still: the number may have changed hands
                            signal.pidfd_send_signal(process, signal.SIGKILL)
                            found = True
                    finally:
                        os.close(process)
        if not found:
            return
