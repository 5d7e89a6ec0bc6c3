"""The worker processes that compare formulas: started when first needed, lent to one thread at a time, replaced when they die.

latex2sympy and sympy can take any time and memory, and nothing in Python stops a long integer power. So the comparison runs in
a program of its own (program.py).
"""

from __future__ import annotations

import os

from ...common.programs import Idle, Program, Turns
from .program import WALL_SECONDS, read, write
from .shapes import Shape

START_SECONDS = 120.0  # until a new program has imported its libraries, on a machine under load
MAX_WORKERS = max(1, min(8, os.cpu_count() or 1))


class WorkerError(RuntimeError):
    """No worker can be started; the message says why."""


class _Worker(Program):
    """A program that compares; used by one thread at a time."""

    def __init__(self) -> None:
        super().__init__(["-m", f"{__package__}.program"])
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


_turns, _idle = Turns(MAX_WORKERS), Idle(_Worker)


def check(gold: Shape, answer: Shape | None, absolute: float = 0.0, relative: float = 0.0) -> str:
    """Compare the shapes of a gold and an answer, or with None see whether the gold can be read.

    `absolute` and `relative` are tolerances of numbers. Returns correct, wrong, unparsed, bad gold or timeout. Safe from any
    thread; waits for a free worker. The caller refuses first what is not `caps.admissible`. Raises WorkerError where no worker
    can be started.
    """
    request = {"gold": gold, "answer": answer, "absolute": absolute, "relative": relative}
    with _turns:
        for _ in range(2):  # a program that was killed from outside (out of memory, say) is replaced once
            worker = _idle.take()
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
            _idle.append(worker)
            return verdict
    return "timeout"


def stop() -> None:
    """End the idle workers of this process; later checks start new ones."""
    _idle.stop()
