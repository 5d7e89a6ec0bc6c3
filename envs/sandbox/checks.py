"""Checks: code goes in, what came of it comes out as data."""

from __future__ import annotations

import contextlib
import dataclasses
import marshal
import signal
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from . import pool as pools
from .inside import codec
from .inside.watch import CPU, ENDED, PATIENCE
from .pool import SandboxPool, Worker
from .results import Limits, Outcome, Reply

DEFAULT = Limits()
CONTINUE = (Outcome.RETURNED, Outcome.RAISED, Outcome.UNREADABLE)  # after these the next call can be made
SLACK_SECONDS = 60.0  # more than the worker's own patience


def calls(
    source: str, entry_point: str, inputs: Iterable[tuple], limits: Limits = DEFAULT, *, pool: SandboxPool | None = None
) -> Generator[Reply, None, None]:
    """Define `source` once in a process of its own and call its `entry_point` with each of the inputs.

    Yields a reply per input, in order; the last one may be TIMEOUT, MEMORY, CRASHED or OUTPUT, after which there is none. If the
    source itself fails, its one reply is all. Inputs are tuples of positional arguments, of the types that inside/codec.py
    names. The candidate sees nothing but the inputs, so what is expected cannot be found by it; compare values by type.
    Closing the iterator ends the check. Raises UserError where the machine offers no isolation, codec.Unreadable for inputs
    that are no data.
    """
    given = list(inputs)
    request = codec.encode({"source": source, "entry_point": entry_point, "inputs": given})
    pool = pool or pools.pool
    with pool.turns, _check(pool, "candidate", "calls", request, limits, max(1, len(given))) as check:
        for _ in range(max(1, len(given))):
            reply = check.reply()
            yield reply
            if reply.outcome not in CONTINUE:
                return


def script(source: str, stdin: str, limits: Limits = DEFAULT, *, pool: SandboxPool | None = None) -> Reply:
    """Run `source` as a program with `stdin` on its standard input; what it prints is in the reply.

    RETURNED means exit status 0. Raises UserError where the machine offers no isolation.
    """
    request = codec.encode({"source": source, "stdin": stdin})
    pool = pool or pools.pool
    limits = dataclasses.replace(limits, total_cpu_seconds=min(limits.cpu_seconds, limits.total_cpu_seconds))
    with pool.turns, _check(pool, "candidate", "script", request, limits, 1) as check:
        told, reply = None, check.next()
        while not check.ended:
            told, reply = reply, check.next()
        stdout = check.printed.decode("utf-8", "replace")
    assert isinstance(reply, Reply)
    if not check.ended["reason"]:  # it ended by itself
        if check.ended["status"] == 0:
            reply = dataclasses.replace(reply, outcome=Outcome.RETURNED, error="")
        elif isinstance(told, Reply) and told.outcome in (Outcome.RAISED, Outcome.MEMORY):
            reply = told
    return dataclasses.replace(reply, value=None, stdout=stdout)


def judged(source: str, tests: str, names: Sequence[str], limits: Limits = DEFAULT, *, pool: SandboxPool | None = None) -> Reply:
    """Run assert-style `tests` against the functions `names` that `source` defines.

    The tests run in a second process, where each name is a stub that calls the candidate's function in its own process:
    arguments and values travel as data, so neither the tests nor what they expect meets the candidate. RETURNED means that all
    passed. Raises UserError where the machine offers no isolation.
    """
    source_request = codec.encode({"source": source})
    tests_request = codec.encode({"tests": tests, "names": list(names)})
    patient = dataclasses.replace(limits, cpu_seconds=limits.total_cpu_seconds)
    pool = pool or pools.pool
    with pool.turns, _check(pool, "candidate", "serve", source_request, limits, -1) as candidate:
        defined = candidate.reply()
        if defined.outcome is not Outcome.RETURNED:
            return defined
        spent = defined.cpu_seconds
        with _check(pool, "judge", "judge", tests_request, patient, -1) as judge:
            while True:
                message = judge.next()
                if isinstance(message, Reply):
                    return dataclasses.replace(message, value=None, cpu_seconds=message.cpu_seconds + spent)
                candidate.call(judge.told)
                reply = candidate.reply()
                spent += reply.cpu_seconds
                if reply.outcome not in CONTINUE:
                    return dataclasses.replace(reply, cpu_seconds=spent)
                judge.call(candidate.told)


@contextlib.contextmanager
def _check(pool: SandboxPool, role: str, mode: str, request: bytes, limits: Limits, count: int) -> Iterator[_Check]:
    with pool.lend(role) as worker:
        check = _Check(worker, mode, request, limits, count)
        try:
            yield check
        except GeneratorExit:  # the iterator was closed; after any other exception the worker is killed
            check.end()
            raise
        check.end()


class _Check:
    """A running check, seen from the caller. If its worker dies, that is the candidate's failure; the pool replaces the worker."""

    def __init__(self, worker: Worker, mode: str, request: bytes, limits: Limits, count: int) -> None:
        self.worker, self.patience = worker, PATIENCE * limits.cpu_seconds + SLACK_SECONDS
        self.missing = count  # replies to come, negative where nobody knows
        self.printed = bytearray()
        self.told = b""  # the last reply as it came
        self.reading, self.total = 0.0, limits.total_cpu_seconds  # seconds that replies took to read; they are the candidate's too
        self.ended: dict[str, Any] = {}  # how, when it has
        head = {
            "mode": mode,
            "size": len(request),
            "count": count,
            "cpu": limits.cpu_seconds,
            "total": limits.total_cpu_seconds,
            "memory": limits.memory_bytes,
            "output": max(4096, limits.output_bytes),
            "file": limits.file_bytes,
            "threads": limits.processes,
        }
        worker.busy = True
        with contextlib.suppress(OSError):  # gone: the first reply will say so
            worker.send(b"N", marshal.dumps(head), request)

    def reply(self) -> Reply:
        """The next reply; when the check has ended, what it ended with."""
        message = self.next()
        return message if isinstance(message, Reply) else Reply(Outcome.CRASHED, error="wrote what is no reply")

    def next(self) -> Reply | list:
        """The next reply, or the call that a test asks for: [name, arguments, keywords]."""
        while True:
            try:
                kind, content = self.worker.receive(self.patience)
            except (EOFError, OSError):  # TimeoutError is an OSError
                self.ended = {"reason": "lost", "status": 0, "cpu": 0.0}
                return _ending(self.ended)
            if kind == b"R":
                self.missing -= 1
                self.told = content[CPU.size :]
                started = time.thread_time()
                message = _read(self.told, *CPU.unpack_from(content))
                self.reading += time.thread_time() - started
                return message if self.reading <= self.total else Reply(Outcome.TIMEOUT, error="wrote what takes too long to read")
            if kind == b"O":
                self.printed += content
            if kind == b"E":
                self.worker.busy = False
                status, cpu = ENDED.unpack_from(content)
                self.ended = {"reason": content[ENDED.size :].decode(), "status": status, "cpu": cpu}
                return _ending(self.ended)

    def call(self, message: bytes) -> None:
        """Ask a candidate for a call, or answer a test that did: with what the other has told."""
        with contextlib.suppress(OSError):
            self.worker.send(b"C", message)

    def end(self) -> None:
        """Leave the worker ready for the next check. A worker that is still busy afterwards is killed by the pool."""
        with contextlib.suppress(OSError, EOFError):
            if self.worker.busy and self.missing:
                self.worker.send(b"A")
            while self.worker.busy:
                kind, _ = self.worker.receive(SLACK_SECONDS)
                self.worker.busy = kind != b"E"


def _read(content: bytes, cpu_seconds: float) -> Reply | list:
    """What a candidate or a test wrote, if it is what they write."""
    try:
        message = codec.decode(content)
        if type(message) is list and message[:1] == ["call"] and len(message) == 4:
            return message[1:]
        outcome, value, stdout, error, kind = message
        if not all(type(text) is str for text in (outcome, stdout, error, kind)):
            raise codec.Garbage("no texts")
        return Reply(Outcome(outcome), value, _text(stdout), _line(error), cpu_seconds, _line(kind))
    except (ValueError, TypeError):
        return Reply(Outcome.CRASHED, error="wrote what is no reply", cpu_seconds=cpu_seconds)


def _text(written: str) -> str:
    """As it can be stored: halves of surrogate pairs are escaped."""
    return written if written.isascii() else written.encode("utf-8", "backslashreplace").decode()


def _line(written: str) -> str:
    """One line of bounded length."""
    return _text(" ".join(written[: codec.MAX_ERROR].split()))


def _ending(ended: dict[str, Any]) -> Reply:
    """What a check came to that ended without a reply."""
    status, cpu_seconds = ended["status"], ended["cpu"]
    if ended["reason"] == "timeout":
        return Reply(Outcome.TIMEOUT, error=f"stopped after {cpu_seconds:.1f} s of CPU time", cpu_seconds=cpu_seconds)
    if ended["reason"] == "output":
        return Reply(Outcome.OUTPUT, error="printed too much", cpu_seconds=cpu_seconds)
    if ended["reason"] == "lost":
        return Reply(Outcome.CRASHED, error="the worker process of the sandbox was killed")
    if ended["reason"]:
        return Reply(Outcome.CRASHED, error="wrote what is no reply", cpu_seconds=cpu_seconds)
    if status == 0:
        return Reply(Outcome.CRASHED, error="exited without a reply", cpu_seconds=cpu_seconds)
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    return Reply(Outcome.CRASHED, error=how, cpu_seconds=cpu_seconds)
