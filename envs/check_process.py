"""The checks of an environment in a process of their own: whatever it does to its process, something is said of it."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection, wait

from ..common.text import counted
from .check import CHECKS, SECONDS, Finding, check
from .config import EnvConfig
from .pool_worker import die_with

GRACE = 30  # seconds beyond a check's own limit, for a process that has to start and for one that does not hear the alarm
SHOWN = 100  # characters of what an environment prints


def check_apart(config: EnvConfig, split: str = "test", items: int = 20, seconds: int = SECONDS) -> Iterator[Finding]:
    """The findings of `check`. Where the process dies or hangs, that is the finding of the check that was under way, and the last one.

    What the environment prints is not shown: a finding named `output` tells how much it was.
    """
    context = multiprocessing.get_context("spawn")
    findings, theirs = context.Pipe(duplex=False)
    printed, output = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(os.getpid(), theirs, output, config, split, items, seconds))
    process.start()
    theirs.close()
    output.close()
    said = _Said(printed)
    ended = ""
    try:
        for name in CHECKS:
            if ended:
                yield Finding(name, None, "not checked: the process of the environment has ended")
                continue
            ready = wait([findings, process.sentinel], seconds + GRACE)
            try:
                yield Finding(**json.loads(findings.recv_bytes())) if ready else _hangs(name, seconds)
                ended = "" if ready else "it hangs"
            except (EOFError, OSError):
                process.join(GRACE)
                ended = _ending(process.exitcode)
                words = f", its last words: {said.last!r}" if said.last else ""
                yield Finding(name, False, f"the environment ended its process ({ended}{words}); let it raise an error instead")
    finally:
        with contextlib.suppress(OSError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()
    said.thread.join(1)
    if said.bytes:
        yield Finding("output", None, f"the environment printed {counted(said.lines, 'line')} during the checks, first: {said.first!r}")


def _hangs(name: str, seconds: int) -> Finding:
    return Finding(name, False, f"it did not come to an end within {seconds} seconds, and could not be interrupted")


def _ending(code: int | None) -> str:
    return f"{signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"


class _Said:
    """What a process prints: how much, the beginning and the end."""

    def __init__(self, source: Connection):
        self.bytes, self.lines, self.first, self.end = 0, 0, "", b""
        self._source = source
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    @property
    def last(self) -> str:
        """The last line that has something in it."""
        self.thread.join(1)
        return self.end.decode(errors="replace").strip().rpartition("\n")[2]

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._source.fileno(), 1 << 16):
                self.end = (self.end + data)[-SHOWN:]
                if not self.bytes:
                    self.first = data.decode(errors="replace").partition("\n")[0][:SHOWN]
                self.bytes += len(data)
                self.lines += data.count(b"\n")


def _serve(caller: int, findings: Connection, output: Connection, config: EnvConfig, split: str, items: int, seconds: int) -> None:
    """Check, and send each finding."""
    os.setsid()  # what the environment starts is ended with it
    die_with(caller)
    empty = os.open(os.devnull, os.O_RDONLY)
    for number, target in ((empty, 0), (output.fileno(), 1), (output.fileno(), 2)):
        os.dup2(number, target)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, errors="replace") for number in (1, 2))
    with contextlib.suppress(KeyboardInterrupt):
        for finding in check(config, split, items, seconds):
            findings.send_bytes(json.dumps(asdict(finding)).encode())
