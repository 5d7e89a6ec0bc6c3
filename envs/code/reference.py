"""What the solutions of published tasks return, and how long they take: found out once in the sandbox and kept on disk.

A file each under XDG_CACHE_HOME/onelayer/code, named by the digest of the solution and its tests. Its first 32 bytes are the SHA-256
of the rest, so a damaged file is made again; the rest is what marshal makes of the outputs and seconds, compressed.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import sys
import threading
import zlib
from collections import OrderedDict, defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import write_atomically
from ..sandbox import Limits, Outcome, calls
from .compare import tolerance
from .problems import Calls, Problem

PATIENT = Limits(cpu_seconds=60, total_cpu_seconds=600, output_bytes=64 << 20)
KEPT = 32 << 20  # bytes of packed outputs that stay in memory


@dataclass(frozen=True)
class Reference:
    """What is right for each input, and the CPU seconds that the solution took."""

    outputs: tuple[Any, ...]
    atol: float
    slowest: float
    """CPU seconds of the slowest call."""
    total: float
    largest: int
    """Bytes of the largest output, as marshal writes it."""


_references: OrderedDict[str, tuple[Reference, int]] = OrderedDict()
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_guard = threading.Lock()


def reference(problem: Problem) -> Reference:
    """The right outputs for the base and plus inputs of a task with Calls. Safe from any thread.

    Raises UserError where the solution itself fails, or where there is no sandbox.
    """
    tests = problem.tests
    assert isinstance(tests, Calls)
    if tests.expected is not None:
        return Reference(tests.expected, tolerance(tests.atol, tests.expected), 0.0, 0.0, 0)
    with _guard:
        if kept := _references.get(problem.digest):
            _references.move_to_end(problem.digest)
            return kept[0]
        lock = _locks[problem.digest]
    with lock:
        packed = _read(_path(problem)) or _make(problem, tests)
        outputs, seconds, largest = marshal.loads(packed)
    found = Reference(tuple(outputs), tolerance(tests.atol, outputs), max(seconds), sum(seconds), largest)
    if len(packed) <= KEPT // 4:
        with _guard:
            _references[problem.digest] = (found, len(packed))
            while sum(size for _, size in _references.values()) > KEPT:
                _references.popitem(last=False)
    return found


def _make(problem: Problem, tests: Calls) -> bytes:
    """Run the solution on every input; what it returned, packed, which is kept on disk too."""
    inputs = tests.base + tests.plus
    outputs, seconds = [], []
    with closing(calls(problem.solution, problem.entry_point, inputs, PATIENT)) as replies:
        for reply in replies:
            something = tests.not_none and reply.outcome is Outcome.UNREADABLE
            if reply.outcome is not Outcome.RETURNED and not something:
                break
            outputs.append(something or reply.value is not None if tests.not_none else reply.value)
            seconds.append(reply.cpu_seconds)
    if len(outputs) < len(inputs):
        raise UserError(
            f"{problem.id}: its own solution fails on input {len(outputs) + 1} of {len(inputs)} ({reply.outcome}: {reply.error}); "
            "correct it or leave the task out"
        )
    packed = marshal.dumps((outputs, seconds, max(len(marshal.dumps(output)) for output in outputs)))
    compressed = zlib.compress(packed, 1)
    with suppress(UserError):  # a cache that cannot be written only costs time
        write_atomically(_path(problem), hashlib.sha256(compressed).digest() + compressed)
    return packed


def _read(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return zlib.decompress(content[32:]) if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _path(problem: Problem) -> Path:
    """marshal's format and what Python computes may change between its versions."""
    key = hashlib.sha256(f"{problem.digest} {sys.version_info[:2]} {marshal.version}".encode()).hexdigest()
    return cache() / f"{key[:32]}.marshal"


def cache() -> Path:
    """The directory for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "onelayer", "code")
