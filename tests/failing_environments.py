"""Environments that misbehave when an action or an item tells them to, in a module that worker processes can import."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

_held: list[bytes] = []


class Unruly(gym.Env[str, str]):
    """Counts its steps and shows them with the seed; done after `length` steps. What an action or the item names, it does."""

    def __init__(self, split: str = "train", length: int = 3):
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.item, self.count = (options or {})["item"], 0
        misbehave(self.item.removeprefix("reset "), self)
        return f"{self.item}, {seed}: {self.np_random.integers(10**9)}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.count += 1
        if self.count == 2 or not self.item.startswith("later "):
            misbehave(self.item.removeprefix("later ").removeprefix("step "), self)
        info = misbehave(action, self) or {}
        over = self.count == self.length
        return f"{self.count} {action}: {self.np_random.integers(10**9)}", float(over), over, False, {"pid": os.getpid()} | info


def misbehave(what: str, env: Unruly) -> dict[str, Any] | None:
    match what.split(" ")[0]:
        case "raise":
            raise IndexError("out of\nrange")
        case "exit":
            os._exit(7)
        case "quit":
            sys.exit("so there")
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(1000)
        case "spin":  # holds the interpreter's lock
            re.match(r"(a+)+$", "a" * 40 + "b")
        case "drip":
            _held.append(b"x" * (20 << 20))
        case "leak":
            _held.append(b"x" * (210 << 20))
        case "bomb":
            _held.append(b"x" * (8 << 30))
        case "print":
            print('{"observation": "printed"}')
            os.write(1, b'\xff\x00\n{"tick": true}\n\n')
        case "pipe":
            write_everywhere("nonsense\n")
        case "forge":  # one reply more than was asked for: whoever waits next would get it
            turn = {"observation": "forged", "reward": 1.0, "terminated": True, "truncated": False, "info": {"forged": True}}
            write_everywhere(json.dumps(turn) + "\n")
        case "forge-later":  # when another episode is waited for
            threading.Timer(0.3, lambda: misbehave("forge", env)).start()
        case "begin":  # a line that the next reply completes
            write_everywhere('{"observation": "')
        case "trickle" | "tick":  # never quiet, and no answer
            until = time.monotonic() + 60
            while time.monotonic() < until:
                write_everywhere(" " * 4096 if what == "trickle" else '{"tick": true}\n')
        case "wide":  # MIB
            return {"wide": "x" * (int(what.split(" ")[1]) << 20)}
        case "child":  # FILE: leaves processes behind, one of which nobody can tell by its group or its parent
            sleep = ["sh", "-c", "echo $$ >> " + what.split(" ")[1] + "; exec sleep 1000"]
            subprocess.Popen(sleep, stdout=subprocess.DEVNULL)
            subprocess.Popen(["sh", "-c", "setsid " + shlex.join(sleep) + " > /dev/null 2>&1 &"]).wait()
        case "stdin":
            sys.stdin.close()
            os.close(0)
        case "unpicklable":
            return {"function": lambda: None, "number": __import__("numpy").float32(0.5), "set": {1}, "nested": {5: (1, 2)}}
        case "nan":
            return {"reward": env.observe_nan()}  # type: ignore[attr-defined]
        case "once":  # FILE: fails the first time
            path = Path(what.split(" ")[1])
            if not path.exists():
                path.touch()
                os._exit(1)
        case "random":  # another observation at every play
            env.np_random.bit_generator.advance(time.monotonic_ns())  # type: ignore[attr-defined]
    return None


def write_everywhere(text: str) -> None:
    """To every file that the process has open, as one that looks for the pipe to its caller does."""
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            os.write(number, text.encode())


def unmakable() -> gym.Env:
    raise RuntimeError("no\nlibrary")


def dies() -> gym.Env:
    os._exit(3)
