"""Symbolic comparison in worker processes that the kernel kills when a check exceeds its limits.

math-verify bounds its own work with SIGALRM, which works on a main thread only and can not stop a long integer power; and
sympy can take any time and memory. So the comparison runs elsewhere: this file, started as a plain program, imports
math-verify, forks a child and leaves standard input and output to it. Before each check the child arms timers whose signals
have their default action, death; the program then answers "timeout" in its stead and forks the next child, which is warm.

Requests and replies are JSON, each after its length in four bytes. The program is a fresh interpreter and not a fork of the
caller, so it is safe beside threads, CUDA and inside daemonic processes; it ends when its standard input is closed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time

CPU_SECONDS = 1.0  # of one check
WALL_SECONDS = 10.0  # of one check: for what waits instead of computing, and for a machine under load
START_SECONDS = 120.0  # until a new program has imported its libraries, on a machine under load
MEMORY_BYTES = 2 << 30  # address space of a child
MAX_WORKERS = max(1, min(8, os.cpu_count() or 1))

WARM_UP = (  # what the program compares before its first child: their imports and caches are then there for all children
    (r"\frac{1}{2}+x", "x+0.5"),
    (r"(1,\sqrt{2})", r"(1,2\pi)"),
    (r"[0,\infty)", "0<x<5"),
    (r"(-\infty,3)\cup[4,5)", r"0 \le x \le 5"),
    (r"\{1,2\}", "1,3"),
    ("1,-2", r"x=1 \text{ or } x=-3"),
    ("x^2+3x+7", r"(x+1)^{5} (x+2)^{4} \cdot \frac{x^{2}-1}{\sqrt{x+1}}"),
    ("y=2x+9", "x-y=1"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{1}{2} \end{pmatrix}"),
    (r"\cos(\frac{\pi}{5})+3i", r"\sin(2)"),
)

# ------------------------------------------------------------------------------------------------------------ in the program


def serve() -> None:
    """Answer requests until standard input is closed."""
    import logging
    import mmap

    try:
        import math_verify  # noqa: F401
    except ImportError:
        _write(1, {"error": "math-verify is not installed: pip install math-verify"})
        return
    logging.disable(logging.CRITICAL)
    for gold, answer in WARM_UP:
        compare(gold, answer)
    busy = mmap.mmap(-1, 1)  # shared with the child: 1 while a reply is owed
    _write(1, {"ready": True})
    while True:
        child = os.fork()
        if child == 0:
            try:
                _work(busy)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            return
        if busy[0]:
            busy[0] = 0
            _write(1, {"verdict": "timeout"})


def _work(busy) -> None:
    """The child: check after check, each under limits that end the process."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while (request := _read(0)) is not None:
        busy[0] = 1
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        try:
            reply = compare(request["gold"], request["answer"])
        except MemoryError:
            reply = "timeout"
        except Exception:  # sympy raises all kinds on input that is no mathematics, RecursionError among them
            reply = "unparsed"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        busy[0] = 0
        _write(1, {"verdict": reply})


def compare(gold: str, answer: str | None) -> str:
    """correct, wrong or unparsed (the answer); bad gold. Without an answer: whether the gold can be read, correct if so."""
    import math_verify

    if not (wanted := _parse(gold)):
        return "bad gold"
    if answer is None:
        return "correct"
    if not (given := _parse(answer)):
        return "unparsed"
    if all(_differ(one, other) for one in wanted for other in given):
        return "wrong"
    # In this order: verify is not symmetric. Decimals stand for themselves, so they are rounded far beyond what anyone writes.
    same = math_verify.verify(wanted, given, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=0)
    return "correct" if same else "wrong"


def _differ(gold, answer) -> bool:
    """Whether two formulas certainly differ. Cheap where the proof that they do is not: they are evaluated at one point."""
    from sympy import Expr, FiniteSet, Interval, Rational, Tuple, Union

    if isinstance(answer, Expr) and isinstance(gold, (Interval, Tuple, Union)):
        return True
    if isinstance(gold, Expr) and isinstance(answer, (Interval, Tuple, Union)):
        return True
    if isinstance(gold, Expr) and isinstance(answer, FiniteSet):
        return len(answer) != 1
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return False
    unknowns = sorted(gold.free_symbols | answer.free_symbols, key=str)
    point: dict = {unknown: Rational(7919 + 1009 * n, 5303) for n, unknown in enumerate(unknowns)}
    try:
        one, other = gold.evalf(20, subs=point), answer.evalf(20, subs=point)
        return bool(abs(one - other) > 1e-9 * (1 + abs(one)))
    except (TypeError, ValueError, OverflowError):  # no number comes out
        return False


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> list:
    """What math-verify reads in a formula; empty where it reads nothing. Units are gone already, and it would take letters for some."""
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    normalisation = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False)
    config = math_verify.LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalisation)
    return math_verify.parse(f"\\boxed{{{text}}}", (config,), fallback_mode="no_fallback", parsing_timeout=0)


# ------------------------------------------------------------------------------------------------------------- in the caller


class WorkerError(RuntimeError):
    """No worker can be started; the message says why."""


class _Worker:
    """One program and its pipes; used by one thread at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is the caller's business, and the whole group can be killed
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.ready = False

    def ask(self, request: dict[str, str | None]) -> str:
        """One check. Raises TimeoutError when no reply comes, EOFError or OSError when the program is gone."""
        if not self.ready:
            started = _read(self.stdout, START_SECONDS)
            if started is None or "error" in started:
                raise WorkerError((started or {}).get("error", "the grader's worker process does not start"))
            self.ready = True
        _write(self.stdin, request)
        reply = _read(self.stdout, 2 * WALL_SECONDS)
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

    def ask(self, gold: str, answer: str | None) -> str:
        with self.slots:
            for _ in range(2):  # a program that was killed from outside (out of memory, say) is replaced once
                try:
                    worker = self.idle.pop()
                except IndexError:
                    worker = _Worker()
                try:
                    verdict = worker.ask({"gold": gold, "answer": answer})
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


def check(gold: str, answer: str | None) -> str:
    """Compare a gold with an answer, or with None see whether the gold can be read.

    Returns correct, wrong, unparsed, bad gold or timeout. Safe from any thread; waits for a free worker. The caller refuses
    first what is not `answers.admissible`. Raises WorkerError where no worker can be started.
    """
    return _pool.ask(gold, answer)


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

# ------------------------------------------------------------------------------------------------------------------ messages


def _write(fd: int, message: dict) -> None:
    raw = json.dumps(message).encode()
    data = struct.pack(">I", len(raw)) + raw
    while data:
        data = data[os.write(fd, data) :]


def _read(fd: int, seconds: float | None = None) -> dict | None:
    """The next message; None at the end of the stream. TimeoutError when it is not there in time."""
    deadline = None if seconds is None else time.monotonic() + seconds
    head = _exactly(fd, 4, deadline)
    body = _exactly(fd, struct.unpack(">I", head)[0], deadline) if head else None
    return json.loads(body) if body else None


def _exactly(fd: int, count: int, deadline: float | None) -> bytes | None:
    data = b""
    while len(data) < count:
        if deadline is not None:
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
        part = os.read(fd, count - len(data))
        if not part:
            return None
        data += part
    return data


if __name__ == "__main__":
    serve()
