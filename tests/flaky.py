"""An environment of which every n-th reply crashes or hangs, whatever the action; in a module of its own, as a user would have it."""

from __future__ import annotations

import fcntl
import os
import time
from typing import Any

import gymnasium as gym


class Flaky(gym.Env[str, str]):
    """Pays 1 for a reply of an even number of characters.

    counter: file that counts the replies of all processes; beside a file counter.mended nothing fails any more.
    """

    def __init__(self, split: str, counter: str, every: int):
        self.items = {f"{split}-{number}": f"Say something about {split} {number}." for number in range(64)}
        self.counter, self.every = counter, every
        self.observation_space = self.action_space = gym.spaces.Text(10_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return self.items[(options or {})["item"]], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        number, mended = self._counted(), os.path.exists(f"{self.counter}.mended")
        if number % self.every == 0 and not mended:
            if number == self.every:
                time.sleep(1000)
            os._exit(1)
        return "", float(len(action) % 2 == 0), True, False, {}

    def _counted(self) -> int:
        """The replies of all processes so far, this one included; a play that is only begun again does not count."""
        with open(self.counter, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(".")
            file.flush()
            return os.fstat(file.fileno()).st_size


gym.register("tests/Flaky-v0", entry_point=Flaky)  # type: ignore[arg-type]
