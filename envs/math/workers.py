"""The worker processes that compare formulas: started when first needed, lent to one thread at a time, replaced when they die.

latex2sympy and sympy can take any time and memory, and nothing in Python stops a long integer power. So the comparison runs in
a program of its own (program.py), a fresh interpreter and not a fork of the caller: it is safe beside threads, CUDA and inside
daemonic processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

from .program import WALL_SECONDS, read, write
from .shapes import Shape

START_SECONDS = 120.0  # until a new program has imported its libraries, on a machine under load
MAX_WORKERS = max(1, min(8, os.cpu_count() or 1))


class WorkerError(RuntimeError):
    """No worker can be started; the message says why."""


class _Worker:
    """One program and its pipes; used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the caller's business, and the whole group can be killed
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.ready = False

    def ask(self, request: dict) -> str:
        """One check. Raises TimeoutError when no reply comes, EOFError or OSError when the program is gone."""
        if not self.ready:
            started = read(self.stdout, START_SECONDS)
            if started is None or "error" in started:
                raise WorkerError((started or {}).get("error", "the grader's worker process does not start"))
            self.ready = True
        write(self.stdin, request)
        reply = read(self.stdout, 2 * WALL_SECONDS)
        if reply is None:
            raise EOFError
        return reply["verdict"]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


class _Pool:
    """The workers of this process: started when first needed, lent to one thread at a time."""

    def __init__(self) -> None:
        self.slots = threading.BoundedSemaphore(MAX_WORKERS)
        self.idle: list[_Worker] = []  # append and pop are atomic

    def ask(self, request: dict) -> str:
        with self.slots:
            for _ in range(2):  # a program that was killed from outside (out of memory, say) is replaced once
                try:
                    worker = self.idle.pop()
                except IndexError:
                    worker = _Worker()
                try:
                    verdict = worker.ask(request)
                except TimeoutError:
                    worker.kill()
                    return "timeout"
                except (EOFError, OSError):
                    worker.kill()
                    continue
                except BaseException:  # KeyboardInterrupt between request and reply: the next reply would be someone else's
                    worker.kill()
                    raise
                self.idle.append(worker)
                return verdict
            return "timeout"


_pool = _Pool()


def check(gold: Shape, answer: Shape | None, absolute: float = 0.0, relative: float = 0.0) -> str:
    """Compare the shapes of a gold and an answer, or with None see whether the gold can be read.

    `absolute` and `relative` are tolerances of numbers. Returns correct, wrong, unparsed, bad gold or timeout. Safe from any
    thread; waits for a free worker. The caller refuses first what is not `caps.admissible`. Raises WorkerError where no worker
    can be started.
    """
    return _pool.ask({"gold": gold, "answer": answer, "absolute": absolute, "relative": relative})


def stop() -> None:
    """End the idle workers of this process; later checks start new ones."""
    while _pool.idle:
        _pool.idle.pop().kill()


def _forget() -> None:
    """In a forked process: the parent's pipes are not ours to use."""
    global _pool
    for worker in _pool.idle:
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe:
                pipe.close()
        worker.process.returncode = 0  # not our child: nothing to wait for
    _pool = _Pool()


os.register_at_fork(after_in_child=_forget)
