"""What the pool costs: steps per second of an environment that does nothing, stepped directly, through the pool in this process,
and over one and two worker processes; and what one worker's crash costs the others.

python bench/pool.py [--envs 256] [--seconds 3]

The environments step in rounds, as an engine's batches have them: all actions are handed over, then all turns are awaited.
`alone` has one environment at a time: the way there and back. On a machine whose cores the caller and the workers share, two workers
gain nothing here: there is no work to share.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

from onelayer.envs.pool import Pool
from onelayer.envs.pool_env import PoolEnv

OBSERVATION = "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, a drawer 1 and a shelf 1. " * 8


class Nothing(gym.Env[str, str]):
    """Shows about 900 characters; `die` ends its process."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        return OBSERVATION, {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "die":
            os._exit(1)
        return OBSERVATION, 0.0, False, False, {"admissible": ["go to cabinet 1", "go to drawer 1", "look"], "valid": True}


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from pool import Nothing  # under a name that workers can import, too

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()

    env = Nothing()
    env.reset()
    rate = repeated(lambda: [env.step("look") for _ in range(1000)] and 1000, args.seconds)
    print(f"{'directly':<28} {rate:>9,.0f} steps/s  {1e6 / rate:>7.1f} us a step")
    for workers in (0, 1, 2):
        with Pool(Nothing, workers) as pool:
            name = f"{workers} worker{'s' * (workers != 1)}" if workers else "in this process"
            for count in (args.envs, 1):
                envs = [pool.env() for _ in range(count)]
                began = time.perf_counter()
                for future in [one.reset("item", 0) for one in envs]:
                    future.result()
                began = time.perf_counter() - began
                rate = repeated(lambda envs=envs: a_round(envs), args.seconds)
                shown = f"{name}, {'alone' if count == 1 else f'{count} envs'}"
                print(f"{shown:<28} {rate:>9,.0f} steps/s  {1e6 / rate:>7.1f} us a step   first resets {began:.2f} s")
                for one in envs:
                    one.close()
    with Pool(Nothing, 1) as pool:
        envs = [pool.env() for _ in range(args.envs)]
        for future in [one.reset("item", 0) for one in envs]:
            future.result()
        for _ in range(10):
            a_round(envs)
        began = time.perf_counter()
        a_round(envs)
        usual = time.perf_counter() - began
        began = time.perf_counter()
        guilty = envs[0].step("die")
        a_round(envs[1:])
        passed = time.perf_counter() - began
        print(f"a round of {args.envs} takes {usual:.3f} s; {passed:.3f} s where one ends the process, the others 10 steps in")
        guilty.result()


def a_round(envs: list[PoolEnv]) -> int:
    for future in [one.step("look") for one in envs]:
        future.result()
    return len(envs)


def repeated(work: Any, seconds: float) -> float:
    """Steps per second; `work` returns how many it took."""
    work()
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        steps += work()
    return steps / passed


if __name__ == "__main__":
    main()
