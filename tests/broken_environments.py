"""One environment that keeps the contract, and some that break it, each in one way."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import string
import sys
import time

import gymnasium
from gymnasium.spaces import Text

IDS = {"train": range(0, 20), "validation": range(20, 25), "test": range(25, 35)}


class Good(gymnasium.Env):
    """Say the number twice."""

    observation_space = action_space = Text(2_000_000, min_length=0, charset=string.printable)

    def __init__(self, split="train"):
        self.items = {f"n{n}": f"number {n}" for n in IDS[split]}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.item = self.choose(options)
        self.said = 0
        return self.items[self.item], {"item": self.item}

    def choose(self, options):
        wanted = (options or {}).get("item") or str(self.np_random.choice(list(self.items)))
        return {item: item for item in self.items}[wanted]

    def step(self, action):
        self.said += 1
        right = action == self.item
        return self.items[self.item], 0.5 * right, self.said == 2, False, {"valid": right}

    def gold(self, item):
        return [item, item]


class AnotherStart(Good):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return f"{observation} {self.np_random.integers(1000)}", info


class NotDeterministic(Good):
    def step(self, action):
        return (f"{random.random()}", *super().step(action)[1:])


class NoItems(Good):
    def __init__(self, split="train"):
        super().__init__(split)
        self.known = self.__dict__.pop("items")

    def reset(self, *, seed=None, options=None):
        return "", {}


class OtherItemsEachTime(Good):
    fresh = itertools.count()

    def __init__(self, split="train"):
        self.items = {f"n{next(self.fresh)}": "number" for _ in range(5)}


class SharedBetweenSplits(Good):
    def __init__(self, split="train"):
        super().__init__("train")


class TooMuchReward(Good):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 2 * reward, *rest


class NotANumber(Good):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("nan"), *rest


class RaisesOnEmpty(Good):
    def step(self, action):
        action[0]
        return super().step(action)


class IgnoresTheItem(Good):
    def choose(self, options):
        return next(iter(self.items))


class UnknownItemIsAnother(Good):
    def choose(self, options):
        wanted = (options or {}).get("item")
        return wanted if wanted in self.items else next(iter(self.items))


class WrongGold(Good):
    def gold(self, item):
        return ["no", "idea"]


class NotText(Good):
    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        return [observation], info


class NeverEnds(Good):
    def step(self, action):
        observation, _, _, truncated, info = super().step(action)
        return observation, 0.0, False, truncated, info


class PassesAnything(Good):
    def step(self, action):
        return self.items[self.item], 1.0, True, False, {}


class Leaks(Good):
    total = 0

    def step(self, action):
        Leaks.total += 1
        return (f"step {Leaks.total}", *super().step(action)[1:])


class InfoIsNoData(Good):
    def step(self, action):
        return (*super().step(action)[:4], {"env": self})


class Hangs(Good):
    def step(self, action):
        time.sleep(1e6)
        return super().step(action)


class Quits(Good):
    def step(self, action):
        sys.exit("so there")


class QuitsOnEmpty(Good):
    def step(self, action):
        return super().step(action) if action else sys.exit(3)


class QuitsWhenMade(Good):
    def __init__(self, split="train"):
        sys.exit()


class RaisesCancelled(Good):
    def step(self, action):
        raise asyncio.CancelledError


class TimesOut(Good):
    def step(self, action):
        raise TimeoutError("no answer from the server")


class EndsItsProcess(Good):
    def step(self, action):
        os._exit(7)


class Crashes(Good):
    def step(self, action):
        os.kill(os.getpid(), signal.SIGSEGV)


class Deaf(Good):
    """Hangs where no signal reaches it."""

    def step(self, action):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(1e6)


class Prints(Good):
    def step(self, action):
        print("grading \x1b[2J:100:", action[:10])
        os.write(1, b"raw\n")
        os.write(2, b"raw\n")
        return super().step(action)


class DefaultCharset(Good):
    observation_space = Text(100)


class Umlaut(Good):
    def step(self, action):
        return ("sch\u00f6n", *super().step(action)[1:])


class ShortSpace(Good):
    observation_space = Text(5, charset=string.printable)


class OneTurn(Good):
    """Say the number; `pays` is what an action earns."""

    def gold(self, item):
        return [item]

    def step(self, action):
        return self.items[self.item], float(self.pays(action)), True, False, {}

    def pays(self, action):
        return action == self.item


class LastNumber(OneTurn):
    """Sound: takes the last number that is named, and pays by closeness."""

    def pays(self, action):
        numbers = re.findall(r"\bn(\d{1,3})\b", action)
        return max(0.0, 1 - abs(int(numbers[-1]) - int(self.item[1:])) / 10) if numbers else 0


class PaysEmpty(OneTurn):
    def pays(self, action):
        return 0.1 if not action else action == self.item


class PaysEcho(OneTurn):
    def pays(self, action):
        return action == self.item or 0.3 * action.endswith(self.items[self.item])


class PaysLists(OneTurn):
    def pays(self, action):
        return self.item in action.split()


class PaysListsInPart(OneTurn):
    def pays(self, action):
        return action == self.item or 0.5 * (self.item in action.split())


class PaysForm(OneTurn):
    def pays(self, action):
        return action == self.item or 0.2 * ("\\boxed" in action)


for environment in (Good, *Good.__subclasses__(), *OneTurn.__subclasses__()):
    gymnasium.register(f"broken/{environment.__name__}-v0", entry_point=environment)  # type: ignore[arg-type]
