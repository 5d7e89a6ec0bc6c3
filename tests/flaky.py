"""An environment of which every n-th play crashes or hangs, whatever the action; in a module of its own, as a user would have it."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

import gymnasium as gym


class Flaky(gym.Env[str, str]):
    """Pays 1 for a reply of an even number of characters.

    counter: file that counts the plays of all processes; beside a file counter.mended nothing fails any more.
    """

    def __init__(self, split: str, counter: str, every: int):
        self.items = {f"{split}-{number}": f"Say something about {split} {number}." for number in range(64)}
        self.counter, self.every = counter, every
        self.observation_space = self.action_space = gym.spaces.Text(10_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        with open(self.counter, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(".")
            file.flush()
            self.number = os.fstat(file.fileno()).st_size
        return self.items[(options or {})["item"]], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if os.path.exists(f"{self.counter}.mended"):
            self.number = 1
        if self.number == self.every:
            time.sleep(1000)
        if self.number % self.every == 0:
            os._exit(1)
        return "", float(len(action) % 2 == 0), True, False, {}


gym.register("tests/Flaky-v0", entry_point=Flaky)  # type: ignore[arg-type]
