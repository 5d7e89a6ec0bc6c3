"""What goes into a check and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How one call ended."""

    RETURNED = "returned"
    """It returned a value that is in the reply; a script: it exited with status 0; tests: all passed."""
    RAISED = "raised"
    """It raised an exception, SystemExit among them; a script: it exited with another status."""
    TIMEOUT = "timeout"
    """It exceeded its CPU time, or idled for as long."""
    MEMORY = "memory"
    """It ran out of memory."""
    CRASHED = "crashed"
    """Its process ended without a reply, or wrote what is none."""
    OUTPUT = "output"
    """It returned or printed more than allowed."""
    UNREADABLE = "unreadable"
    """It returned something that no data can stand for: a function, a generator, an object of a class of its own."""


@dataclass(frozen=True)
class Limits:
    """What one check may use."""

    cpu_seconds: float = 4.0
    """CPU time of one call, and the time that it may idle; so its time on the clock is bounded too, but a busy machine costs nothing."""
    total_cpu_seconds: float = 60.0
    """The same for all calls of a check together."""
    memory_bytes: int = 2 << 30
    """Address space."""
    output_bytes: int = 8 << 20
    """One reply with what was printed during the call; all that a script prints."""
    file_bytes: int = 64 << 20
    """All files in the scratch directory together."""
    processes: int = 64
    """Threads. Further processes cannot be started at all."""


@dataclass(frozen=True)
class Reply:
    """What came of one call."""

    outcome: Outcome
    value: object | None = None
    """Built of plain types in this process: nothing of the candidate's is in it (see inside/codec.py). Arrays are `codec.Array`."""
    stdout: str = ""
    error: str = ""
    """`ValueError: ...` in one line."""
    cpu_seconds: float = 0.0
    kind: str = ""
    """Of what was raised: the nearest built-in exception's name."""


@dataclass(frozen=True)
class Isolation:
    """What holds candidates on this machine."""

    layers: tuple[str, ...]
    """Of namespaces, landlock, seccomp: those that passed their test."""
    missing: dict[str, str]
    """The others, each with the reason."""
    contained: bool
    """Whether the layers are enough."""

    def __str__(self) -> str:
        return " + ".join(self.layers) if self.layers else "none"
