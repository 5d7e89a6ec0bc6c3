"""What a run or an evaluation costs, and on which machine: time, memory, tokens, operations. Knows nothing of either.

Processor seconds are those of the process and of all that it started. Peak memory is that of this measurement and not of the process's
life, since several runs share a process in a study: Linux forgets the mark when it is told to (proc(5), /proc/PID/clear_refs). What
the process held before it began is in the peak, so that is noted too.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

PACKAGES = ("onelayer", "torch", "transformers", "tokenizers", "safetensors", "numpy", "gymnasium", "math-verify", "peft", "vllm")
SAMPLING_SECONDS = 0.05
PROC = Path("/proc")


class Cost(BaseModel):
    """What the work took, summed over the processes that did it where it was interrupted; what they lost by being killed is not in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seconds: float = Field(default=0.0, ge=0, description="wall-clock seconds")
    cpu_seconds: float = Field(default=0.0, ge=0, description="processor seconds, of the process and of those that it started")
    gpu_seconds: float | None = Field(
        default=None, ge=0, description="wall-clock seconds times the GPUs held, one a process; null: it had none"
    )
    peak_memory: int = Field(default=0, ge=0, lt=2**63, description="most resident memory of the process, bytes")
    memory_before: int = Field(
        default=0, ge=0, lt=2**63, description="resident memory of the process when the work began, bytes; part of the peak"
    )
    peak_worker_memory: int | None = Field(
        default=None,
        ge=0,
        lt=2**63,
        description="most resident memory of one pool worker, bytes; null where the environments stepped in the process",
    )
    peak_gpu_memory: int | None = Field(
        default=None, ge=0, lt=2**63, description="most memory that PyTorch allocated on the GPU, bytes; null without one"
    )
    tokens: int = Field(default=0, ge=0, lt=2**63, description="tokens sampled")
    flops: float = Field(default=0.0, ge=0, description="estimated floating-point operations (docs/run-store.md has the formula)")

    def __sub__(self, part: Cost) -> Cost:
        """The cost without that of a part of the work; the memory stays."""
        gpu = None if self.gpu_seconds is None else max(0.0, self.gpu_seconds - (part.gpu_seconds or 0.0))
        return self.model_copy(
            update={
                "seconds": max(0.0, self.seconds - part.seconds),
                "cpu_seconds": max(0.0, self.cpu_seconds - part.cpu_seconds),
                "gpu_seconds": gpu,
                "tokens": self.tokens - part.tokens,
                "flops": self.flops - part.flops,
            }
        )

    def __add__(self, later: Cost) -> Cost:
        """The cost of both, one after the other."""
        return Cost(
            seconds=self.seconds + later.seconds,
            cpu_seconds=self.cpu_seconds + later.cpu_seconds,
            gpu_seconds=_either(sum, self.gpu_seconds, later.gpu_seconds),
            peak_memory=max(self.peak_memory, later.peak_memory),
            memory_before=max(self.memory_before, later.memory_before),
            peak_worker_memory=_either(max, self.peak_worker_memory, later.peak_worker_memory),
            peak_gpu_memory=_either(max, self.peak_gpu_memory, later.peak_gpu_memory),
            tokens=self.tokens + later.tokens,
            flops=self.flops + later.flops,
        )

    def beside(self, other: Cost) -> Cost:
        """The cost of both, at the same time in two processes; tokens and operations were counted in each for both."""
        return self.model_copy(
            update={
                "seconds": max(self.seconds, other.seconds),
                "cpu_seconds": self.cpu_seconds + other.cpu_seconds,
                "gpu_seconds": _either(sum, self.gpu_seconds, other.gpu_seconds),
                "peak_memory": max(self.peak_memory, other.peak_memory),
                "memory_before": max(self.memory_before, other.memory_before),
                "peak_worker_memory": _either(max, self.peak_worker_memory, other.peak_worker_memory),
                "peak_gpu_memory": _either(max, self.peak_gpu_memory, other.peak_gpu_memory),
            }
        )


class Hardware(BaseModel):
    """The machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str = Field(description="model of the processor")
    cores: int = Field(ge=1, description="cores that the process may use")
    threads: int | None = Field(description="threads that PyTorch computes with; null: it was not loaded")
    gpu: str | None = Field(description="model of the GPU; null: none was used")


class Meter:
    """Measures from `with` on; what it counts itself, `tokens` and `flops`, is added by whoever knows."""

    def __init__(self) -> None:
        self.tokens, self.flops = 0, 0.0
        self.left_out = Cost()
        """Of work in between that is no part of what is measured."""

    def __enter__(self) -> Self:
        self._memory = _PeakMemory()
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()
        self._started, self._cpu = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.stop()

    def cost(self) -> Cost:
        """The cost so far, without what is left out."""
        seconds, cuda = time.perf_counter() - self._started, _cuda()
        measured = Cost(
            seconds=seconds,
            cpu_seconds=max(0.0, cpu_seconds() - self._cpu),
            gpu_seconds=seconds if cuda else None,
            peak_memory=self._memory.peak(),
            memory_before=self._memory.before,
            peak_worker_memory=max((_status(child, "VmHWM") for child in children(os.getpid())), default=None),
            peak_gpu_memory=cuda.max_memory_allocated() if cuda else None,
            tokens=self.tokens,
            flops=self.flops,
        )
        return measured - self.left_out


def cpu_seconds() -> float:
    """Processor seconds so far: of the process, of the children that have ended, and of all descendants that live."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    return total + sum(_cpu_of(process) for process in _descendants(os.getpid())) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[int]:
    """Processes that `process` has started and that live; none where the system does not tell."""
    found: list[int] = []
    with suppress(OSError):
        for task in (PROC / str(process) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def hardware() -> Hardware:
    """What this process computes on."""
    cuda, torch = _cuda(), sys.modules.get("torch")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Hardware(
        cpu=_cpu_model(),
        cores=cores,
        threads=torch.get_num_threads() if torch else None,
        gpu=cuda.get_device_name() if cuda else None,
    )


@cache
def versions() -> dict[str, str]:
    """Python and the packages that have a part in the result, those that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def git_commit() -> str | None:
    """Commit of the working tree that this package is run from, with -dirty where files differ; None where it is no working tree."""
    here = Path(__file__).resolve()

    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(here.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", here.name)  # an installed package may lie in somebody else's working tree
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None


class _PeakMemory:
    """Most resident memory of this process from now on, in bytes."""

    def __init__(self) -> None:
        self._stopped: threading.Event | None = None
        try:
            (PROC / "self/clear_refs").write_text("5")
            self.before = self._most = _status(os.getpid(), "VmRSS")
        except OSError:  # another system, or a sandbox that hides the file
            self.before = self._most = _resident()
            self._stopped = threading.Event()
            threading.Thread(target=self._watch, name="memory", daemon=True).start()

    def peak(self) -> int:
        now = _status(os.getpid(), "VmHWM") if self._stopped is None else _resident()
        self._most = max(self._most, now)
        return self._most

    def stop(self) -> None:
        if self._stopped:
            self._stopped.set()

    def _watch(self) -> None:
        assert self._stopped
        while not self._stopped.wait(SAMPLING_SECONDS):
            self._most = max(self._most, _resident())


def _resident() -> int:
    """Resident memory in bytes; where the system does not tell, the most of the process's life."""
    with suppress(OSError):
        return int((PROC / "self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status(process: int, key: str) -> int:
    """A figure in bytes from /proc/PID/status; 0 for a process that has gone."""
    with suppress(OSError):
        for line in (PROC / str(process) / "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def _descendants(process: int) -> Iterator[int]:
    for child in children(process):
        yield child
        yield from _descendants(child)


def _cpu_of(process: int) -> int:
    """Clock ticks of a process and of its children that have ended; 0 for one that has gone."""
    with suppress(OSError, ValueError):
        return sum(map(int, (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[11:15]))
    return 0


def _cpu_model() -> str:
    with suppress(OSError):
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cuda() -> Any:
    """torch.cuda where this process has begun to use a GPU; else None."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None


def _either(combine: Any, *values: Any) -> Any:
    """The values that are there, combined; None where there is none."""
    there = [value for value in values if value is not None]
    return combine(there) if there else None
