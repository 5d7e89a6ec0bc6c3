"""How fast the sandbox is: checks of a trivial solution per second and core, beside evalplus's own check in the same run.

evalplus forks the process that calls it, so its figure depends on what that holds: nothing else, the problems (as when it
evaluates; needs ONELAYER_DATA), or torch (as in training). The sandbox's workers are fresh interpreters and do not care.

python bench/sandbox.py            # everything on one core; evalplus is left out where it is not installed
"""

from __future__ import annotations

import gzip
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from onelayer.envs import sandbox

SOURCE = "def add(a, b):\n    return a + b\n"
INPUTS = [(1, 2), (30, -4), (2.5, 1)]
EXPECTED = [3, 26, 3.5]
ROUNDS, COUNT = 7, 40


def ours() -> None:
    assert [reply.value for reply in sandbox.calls(SOURCE, "add", INPUTS)] == EXPECTED


def evalplus() -> Callable[[], None] | None:
    try:
        from evalplus.eval import PASS, untrusted_check
    except ImportError:
        return None

    def check() -> None:
        limits = [1.0] * len(INPUTS)
        found = untrusted_check("humaneval", SOURCE, [list(given) for given in INPUTS], "add", EXPECTED, 0, limits, fast_check=True)
        assert found[0] == PASS

    return check


def rate(check: Callable[[], None]) -> float:
    started = time.perf_counter()
    for _ in range(COUNT):
        check()
    return COUNT / (time.perf_counter() - started)


def compare(caller: str) -> None:
    """Both in turns, so that other load meets both; `caller` says what this process holds besides."""
    import json

    held: list = []
    if caller == "problems":
        files = [file for name in ("humanevalplus", "mbppplus") for file in Path(os.environ["ONELAYER_DATA"], name).glob("*.jsonl*")]
        for file in files:
            with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
                held += map(json.loads, lines)
    elif caller == "torch":
        import torch

        held.append(torch)
    checks = {"onelayer": ours, "evalplus": evalplus()}
    rates: dict[str, list[float]] = {}
    ours()
    for _ in range(ROUNDS):
        for name, check in checks.items():
            if check:
                rates.setdefault(name, []).append(rate(check))
    middle = {name: statistics.median(found) for name, found in rates.items()}
    figures = ", ".join(f"{name} {middle[name]:.0f} checks/s ({min(found):.0f} to {max(found):.0f})" for name, found in rates.items())
    ratio = f", ratio {middle['onelayer'] / middle['evalplus']:.1f}" if "evalplus" in middle else ""
    print(f"caller holds {caller}: {figures}{ratio}", flush=True)


def main() -> None:
    core = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, core)  # the workers inherit it
    print(
        f"isolation: {sandbox.isolation()}; one core, one thread; median of {ROUNDS} rounds of {COUNT}; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for caller in ("nothing else", *(["problems"] if os.environ.get("ONELAYER_DATA") else []), "torch"):
        subprocess.run([sys.executable, __file__, caller], check=True)


if __name__ == "__main__":
    compare(sys.argv[1]) if len(sys.argv) > 1 else main()
