"""How fast the sandbox is: checks of a trivial solution per second on one thread, beside evalplus's own check in the same run.

python bench/sandbox.py            # evalplus's figure is left out where evalplus is not installed
taskset -c 0 python bench/sandbox.py   # everything on one core: checks per second and core
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from onelayer.envs import sandbox

SOURCE = "def add(a, b):\n    return a + b\n"
INPUTS = [(1, 2), (30, -4), (2.5, 1)]
EXPECTED = [3, 26, 3.5]
ROUNDS, COUNT = 5, 60


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


def main() -> None:
    print(f"isolation: {sandbox.isolation()}; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    checks = {"onelayer": ours, "evalplus": evalplus()}
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):  # in turns, so that other load meets both
        for name, check in checks.items():
            if check:
                rates.setdefault(name, []).append(rate(check))
    middle = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        print(f"{name}: {middle[name]:.0f} checks/s on one thread (median of {ROUNDS} rounds, {min(found):.0f} to {max(found):.0f})")
    if "evalplus" in middle:
        print(f"ratio: {middle['onelayer'] / middle['evalplus']:.1f}")


if __name__ == "__main__":
    main()
