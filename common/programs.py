"""Programs that work for this process: fresh interpreters, spoken to through pipes, started when first needed, kept for the next caller.

A fresh interpreter and not a fork of the caller is safe beside threads, CUDA and inside daemonic processes. A program ends when its
standard input is closed, whatever becomes of this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar


class Program:
    """An interpreter and its pipes; used by one thread at a time."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
        """arguments: of the interpreter. env: all of its environment (null: this process's)."""
        self.process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=env,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is the caller's business, and the whole group can be killed
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()

    def kill(self) -> None:
        """End it and its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def forget(self) -> None:
        """In a forked process: it is the parent's child, and its pipes are not ours to use."""
        self._close()
        self.process.returncode = 0  # nothing to wait for

    def _close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class Turns:
    """Lets so many threads pass at a time; in a forked process all are free again."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, *_: object) -> None:
        self._semaphore.release()

    def _renew(self) -> None:
        self._semaphore = threading.BoundedSemaphore(self.count)


Kind = TypeVar("Kind", bound=Program)


class Idle(list[Kind], Generic[Kind]):
    """Programs that nobody uses now. Appending and taking are atomic."""

    def __init__(self, start: Callable[[], Kind]) -> None:
        super().__init__()
        self._start = start
        os.register_at_fork(after_in_child=self._forget)

    def take(self) -> Kind:
        """One that lives: of those there, or a new one."""
        while True:
            try:
                program = self.pop()
            except IndexError:
                return self._start()
            if program.process.poll() is None:
                return program
            program.kill()  # ended from outside while it was idle

    def stop(self) -> None:
        """End them all; later callers get new ones."""
        while self:
            self.pop().kill()

    def _forget(self) -> None:
        while self:
            self.pop().forget()
