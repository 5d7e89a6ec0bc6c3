"""The times of a running check, read from outside: CPU time, and time spent idle.

Idle is a time in which no thread of the check ran, waited for a core or for the disk. The kernel tells: a thread's schedstat
holds how long it waited for a core, its state whether it is waiting for one now. So a loaded machine costs a candidate nothing.
"""

from __future__ import annotations

import contextlib
import os
import time

BLIND = 5  # where the kernel does not tell, all time on the clock is idle, and only this part of it is counted


class Meter:
    """Times of the child `pid`; `proc` is a descriptor of a mounted /proc, of any namespace that shows the child, or None.

    Its clock stands still while the caller keeps the child waiting, and at no other time.
    """

    def __init__(self, pid: int, proc: int | None) -> None:
        self.pid, self.proc = pid, proc
        self.clock = (~pid << 3) | 2  # the process's own CPU clock, see clock_getcpuclockid(3)
        self.cpu = self.cpu_then = self.idle = 0.0
        self.delay_then = 0.0
        self.tasks: int | None = None  # the directory of its threads in /proc
        self.skipped = 0.0
        self.then = self.now()

    def now(self) -> float:
        """Seconds on the clock that are the candidate's own."""
        return time.monotonic() - self.skipped

    def skip(self, since: float) -> None:
        """Leave out what passed since then (`time.monotonic`): the caller's doing."""
        self.skipped += time.monotonic() - since

    def read_cpu(self) -> float:
        """CPU seconds of all its threads, also those that ended."""
        with contextlib.suppress(OSError):  # it has ended: the last value stands
            self.cpu = time.clock_gettime(self.clock)
        return self.cpu

    def look(self) -> None:
        """Add what was idle since the last look."""
        now, cpu = self.now(), self.read_cpu()
        asleep, delay = self._threads()
        if asleep:
            self.idle += max(0.0, now - self.then - (cpu - self.cpu_then) - max(0.0, delay - self.delay_then))
        self.then, self.cpu_then, self.delay_then = now, cpu, delay

    def _threads(self) -> tuple[bool, float]:
        """Whether all threads sleep, and the seconds for which the one that waited longest has waited for a core."""
        try:
            if self.tasks is None:
                self.tasks = self._find()
            asleep, delay = True, 0.0
            for thread in os.listdir(self.tasks):
                asleep &= _text(self.tasks, f"{thread}/stat").rpartition(")")[2].split()[0] not in "RD"
                delay = max(delay, int(_text(self.tasks, f"{thread}/schedstat").split()[1]) / 1e9)
            return asleep, delay
        except (OSError, LookupError, ValueError):
            return True, self.delay_then + (self.now() - self.then) * (1 - 1 / BLIND)

    def _find(self) -> int:
        """The child's threads in `proc`, where it may have another number than here."""
        if self.proc is None:
            raise LookupError
        handle = os.pidfd_open(self.pid)
        try:
            fields = dict(line.split(":", 1) for line in _text(self.proc, f"self/fdinfo/{handle}").splitlines())
        finally:
            os.close(handle)
        return os.open(f"{fields['Pid'].strip()}/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.proc)

    def close(self) -> None:
        if self.tasks is not None:
            os.close(self.tasks)


def _text(folder: int, name: str) -> str:
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        return os.read(file, 4096).decode("utf-8", "replace")
    finally:
        os.close(file)
