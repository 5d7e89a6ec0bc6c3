"""The worker programs of this process: started when first needed, lent to one check at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from ...common.errors import UserError
from ...common.programs import Idle, Program, Turns
from .inside.watch import HEAD
from .results import Isolation

LAYERS = ("namespaces", "landlock", "seccomp")
START_SECONDS = 120.0  # until a new program is ready, on a machine under load
UNSAFE = "ONELAYER_UNSAFE_SANDBOX"  # set to 1, it allows machines without isolation; the processes of a pool inherit it
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from inside import server
del sys.path[0]
server.main(frozenset(sys.argv[2].split()), sys.argv[3:])
"""
# Of the candidates too. A fixed hash seed makes the order of sets the same in every check.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "LD_BIND_NOW": "1",  # linked once, in the worker, and not again in every child
}


def _packages() -> list[str]:
    """Where packages are installed; the program starts without looking for them, and runs none of their start-up code."""
    return list(dict.fromkeys(path for name in ("purelib", "platlib") if os.path.isdir(path := sysconfig.get_path(name))))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MAX_CHECKS = max(1, min(8, _cores()))


class Worker(Program):
    """One program and its pipes; used by one thread at a time. Everything raises EOFError or OSError when the program is gone."""

    def __init__(self, layers: tuple[str, ...] = LAYERS) -> None:
        here = str(Path(__file__).parent.resolve())
        super().__init__(["-S", "-c", PROGRAM, here, " ".join(layers), *_packages()], ENVIRONMENT, "/")
        self.unread = bytearray()
        self.poll = select.poll()
        self.poll.register(self.stdout, select.POLLIN)
        self.isolation: Isolation | None = None
        self.busy = False  # between the start of a check and the message of its end

    def start(self) -> Isolation:
        """Wait until the program is ready; what it found."""
        if self.isolation is None:
            _, hello = self.receive(START_SECONDS)
            found = json.loads(hello)
            layers = tuple(layer for layer in LAYERS if layer in found["layers"])
            contained = "seccomp" in layers and len(layers) > 1
            self.isolation = Isolation(layers, found["reasons"], contained)
        return self.isolation

    def send(self, kind: bytes, *parts: bytes) -> None:
        """A message; further parts follow it as they are."""
        view = memoryview(b"".join((HEAD.pack(kind, len(parts[0]) if parts else 0), *parts)))
        while view:
            view = view[os.write(self.stdin, view) :]

    def receive(self, seconds: float) -> tuple[bytes, bytes]:
        """The next message. Raises TimeoutError when it is not there in time."""
        deadline = time.monotonic() + seconds
        kind, size = HEAD.unpack(self._exactly(HEAD.size, deadline))
        return kind, self._exactly(size, deadline)

    def _exactly(self, count: int, deadline: float) -> bytes:
        while len(self.unread) < count:
            if not self.poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(self.stdout, 1 << 20)
            if not part:
                raise EOFError("the sandbox's worker process has ended")
            self.unread += part
        found = bytes(self.unread[:count])
        del self.unread[:count]
        return found


class SandboxPool:
    """Workers of one kind for each role. Tests and candidates never share one: what is left in its memory stays with its kind."""

    def __init__(self, layers: tuple[str, ...] = LAYERS) -> None:
        self.layers = layers
        self.turns = Turns(MAX_CHECKS)
        """A check's turn: at most MAX_CHECKS at a time."""
        self.idle = {role: Idle(self._start) for role in ("candidate", "judge")}
        self.isolation: Isolation | None = None

    @contextlib.contextmanager
    def lend(self, role: str) -> Iterator[Worker]:
        """A worker that is ready. One that is busy when the block ends is killed: the next message would be someone else's."""
        worker = self.idle[role].take()
        try:
            yield worker
        finally:
            if worker.busy:
                worker.kill()
            else:
                self.idle[role].append(worker)

    def _start(self) -> Worker:
        if not sys.platform.startswith("linux"):
            raise UserError(
                f"the sandbox runs candidates' code on Linux only, not on {sys.platform}; run on Linux, in a virtual machine say"
            )
        worker = Worker(self.layers)
        try:
            isolation = worker.start()
            allowed = isolation.contained or not self.layers or os.environ.get(UNSAFE) == "1"
            if not allowed:
                missing = "; ".join(f"{layer}: {why}" for layer, why in isolation.missing.items())
                raise UserError(
                    f"this machine offers no isolation for candidates' code ({missing}); allow user namespaces "
                    "(sysctl kernel.unprivileged_userns_clone=1, or a container with --security-opt seccomp=unconfined), "
                    "use a kernel from 5.13 on with Landlock, or accept the danger with --unsafe-sandbox"
                )
        except (EOFError, OSError) as error:
            worker.kill()
            raise UserError(f"the sandbox's worker process does not start ({sys.executable}): {error}") from None
        except BaseException:
            worker.kill()
            raise
        self.isolation = isolation
        return worker

    def stop(self) -> None:
        for workers in self.idle.values():
            workers.stop()


pool = SandboxPool()


def isolation() -> Isolation:
    """What holds candidates on this machine. Starts a worker to find out. Raises UserError where nothing does and that is not allowed."""
    if pool.isolation is None:
        with pool.turns, pool.lend("candidate"):
            pass
    assert pool.isolation
    return pool.isolation


def describe() -> str | None:
    """A line for `onelayer doctor`: the isolation in use and what is missing; None where there is none that holds."""
    try:
        found = isolation()
    except UserError:
        return None
    missing = "; ".join(f"no {layer}: {why}" for layer, why in found.missing.items())
    return f"{found}{f' ({missing})' if missing else ''}{'' if found.contained else ', UNSAFE: code is not contained'}"


def stop() -> None:
    """End the idle workers of this process; later checks start new ones."""
    pool.stop()
