"""A worker process of the pool, as its caller sees it: commands go in, replies come out, and it can be ended.

What goes on inside is in pool_worker.py, and what a pool does with it in pool.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass

from .errors import UserError
from .pool_worker import Data

START_SECONDS = 600.0  # until a process has imported the environment's libraries and made the first one
CLOSE_SECONDS = 2.0  # that environments may take to close


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
    """A process that hosts environments, and the pipes to it; used by the thread that started it."""

    def __init__(self, settings: Settings):
        """Start it; `prepare` comes next."""
        program = f"import sys; sys.path[:] = {[os.path.abspath(path) for path in sys.path]!r}; "
        self._seconds = settings.step_seconds
        self._process = subprocess.Popen(
            [sys.executable, "-c", program + f"from {__package__}.pool_worker import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the caller's business, and the whole group can be killed
        )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._input, False)
        self._received, self._lines = b"", deque[bytes]()
        self._first = {"make": settings.make.hex(), "memory_bytes": settings.memory_bytes, "caller": os.getpid()}

    def prepare(self) -> None:
        """Have it make its first environment. Raises Gone where it does not come up, UserError where none can be made."""
        self.send(self._first)
        reply = self.receive(START_SECONDS)
        if "ready" not in reply:
            raise UserError(reply.get("user_error") or f"the environment can not be made: {reply['failed']}")

    def send(self, message: object) -> None:
        """Hand over a list of commands, to be carried out in order. Where nobody takes it, `receive` finds out."""
        data = memoryview(json.dumps(message).encode() + b"\n")
        poll = select.poll()
        poll.register(self._input, select.POLLOUT)
        with contextlib.suppress(BrokenPipeError):
            while data and poll.poll(1000 * self._seconds):
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._input, data) :]

    def receive(self, seconds: float | None = None) -> Data:
        """The next reply. Raises Gone where it does not come within `seconds` (default: of one step)."""
        seconds = seconds or self._seconds
        deadline = time.monotonic() + seconds
        while True:
            if not self._lines:
                self._read(deadline, seconds)
            try:
                reply = json.loads(self._lines.popleft())
            except ValueError:  # the environment has found the pipe
                raise Gone("what the process sent is no reply") from None
            if "tick" not in reply:
                return reply
            deadline = time.monotonic() + seconds

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """Let environments close, then end the process."""
        assert self._process.stdin
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process and all of its group."""
        self.interrupt()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    def interrupt(self) -> None:
        """End the process; may be called by any thread, the one that waits for a reply gets Gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self, deadline: float, seconds: float) -> None:
        """Wait for at least one whole line."""
        poll = select.poll()
        poll.register(self._output, select.POLLIN)
        while not self._lines:
            if not poll.poll(1000 * min(1.0, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise Gone(f"no answer within {seconds:g} s")
                if self._process.poll() is None:
                    continue
                if not poll.poll(0):  # it is dead, though a child of it keeps the pipe open
                    raise Gone(self._ending())
            received = os.read(self._output, 1 << 20)
            if not received:
                raise Gone(self._ending())
            *whole, self._received = (self._received + received).split(b"\n")
            self._lines.extend(whole)

    def _ending(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the process closed its pipe"
        return f"the process died of {signal.Signals(-code).name}" if code < 0 else f"the process ended itself with exit code {code}"
