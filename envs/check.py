"""Does an environment keep the contract? Each check finds out one thing and says what is wrong in one line."""

from __future__ import annotations

import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from . import load, make
from .config import EnvConfig
from .errors import UserError
from .items import Split
from .other import items_of

BAD_ACTIONS = {
    "empty": "",
    "spaces and line breaks": " \n\t\r\n ",
    "huge": "x" * 1_000_000,
    "not ASCII": "né 数学 \U0001f600 \u202e",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x1b[2J",
    "half a surrogate pair": "\ud800",
    "deeply nested": "(" * 100_000,
}
SECONDS = 120  # a check that takes longer has hung
LONGEST_EPISODE = 10_000  # steps


@dataclass(frozen=True)
class Finding:
    """What one check came to: `ok` is None where there was nothing to check."""

    name: str
    ok: bool | None
    message: str


class Broken(Exception):
    """What a check found wrong."""


@dataclass(frozen=True)
class Subject:
    """What is checked: the items of one split, `few` of them spread over it."""

    config: EnvConfig
    split: str
    few: tuple[str, ...]

    def make(self) -> gym.Env[Any, Any]:
        return make(self.config, self.split)


@dataclass(frozen=True)
class Turn:
    """What came of a reset or a step, as far as it must be the same every time."""

    observation: Any
    reward: float
    ended: bool
    info: dict[str, Any]

    def differs(self, other: Turn) -> str | None:
        """The name of the first part that differs."""
        if repr(self.info) != repr(other.info):
            return f"info ({_difference(self.info, other.info)})"
        return next((name for name in ("observation", "reward", "ended") if getattr(self, name) != getattr(other, name)), None)


def check(config: EnvConfig, split: str = "test", items: int = 20) -> Iterator[Finding]:
    """Run all checks on `items` items of a split; yields each finding as it is made. Off the main thread a hang is not noticed."""
    subject: Subject | None = None
    for name, function in CHECKS.items():
        if subject is None and name != "items":
            yield Finding(name, None, "not checked: there are no items")
            continue
        try:
            with _time_limit(SECONDS), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if subject is None:
                    subject, message = _enumerate(config, split, items)
                else:
                    message = function(subject)
        except Broken as error:
            yield Finding(name, False, str(error))
        except UserError as error:
            yield Finding(name, False, str(error))
        except TimeoutError:
            yield Finding(name, False, f"it did not come to an end within {SECONDS} seconds")
        except Exception as error:  # the environment's own
            yield Finding(name, False, f"raised {_named(error)}")
        else:
            said = [str(warning.message) for warning in caught if name == "gymnasium" and _matters(str(warning.message))]
            yield Finding(name, None if message is None else not said, said[0] if said else message or "nothing to check")


def _enumerate(config: EnvConfig, split: str, items: int) -> tuple[Subject, str]:
    found = load(config, split)
    again = items_of(make(config, split), found.name)
    if replace(found, items=again).digest != found.digest:
        raise Broken("made twice, it enumerates different items; derive them from a fixed seed")
    stride = max(1, len(found.items) // items)
    few = tuple(item.id for item in found.items[::stride][:items])
    return Subject(config, split, few), f"{found.size_text} in {split}, sha256 {found.digest[:12]}"


def check_splits(subject: Subject) -> str | None:
    """What is trained on is not evaluated on."""
    seen: dict[str, Split] = {}
    for name in ("train", "validation", "test"):
        try:
            seen[name] = load(subject.config, name)
        except Exception:  # a split that it does not have
            continue
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if one in seen and other in seen:
            texts = {item.text_key for item in seen[other].items}
            if shared := sum(item.id in seen[other].by_id or item.text_key in texts for item in seen[one].items):
                raise Broken(
                    f"{shared} of the {len(seen[one].items)} items of {one} are also in {other}; divide them by a hash of their text"
                )
    sizes = ", ".join(f"{name} {len(split.items)}" for name, split in seen.items())
    lacking = {"train": "; without train it can be evaluated only", "test": "; without test it can be trained on only"}
    return (sizes or f"{subject.split} alone") + "".join(text for name, text in lacking.items() if name not in seen)


def check_gymnasium(subject: Subject) -> str:
    """Gymnasium's own checker."""
    try:
        check_env(subject.make().unwrapped, skip_render_check=True, skip_close_check=True)
    except AssertionError as error:
        raise Broken(" ".join(str(error).split())) from error
    return "its checker passes"


def check_text(subject: Subject) -> str:
    """Text in, text out, and information that can travel between processes."""
    env = subject.make()
    for item in subject.few:
        for turn in _episode(env, item, seed=0):
            if not isinstance(turn.observation, str):
                raise Broken(f"item {item}: the observation is a {type(turn.observation).__name__}; it must be text")
            try:
                json.dumps(turn.info)
            except (TypeError, ValueError) as error:
                raise Broken(f"item {item}: info can not be written as JSON ({error}); keep plain values in it") from error
    return "observations are text, info is JSON"


def check_item(subject: Subject) -> str:
    """`options={"item": id}` plays that item, whatever the seed: the episodes of a group start alike."""
    env = subject.make()
    starts = {}
    for item in subject.few:
        first, second = (next(_episode(env, item, seed)) for seed in (1, 2))
        if first.observation != second.observation:
            raise Broken(f"item {item} starts differently with another seed; an item is one start, so that a group can be compared")
        if first.info.get("item", item) != item:
            raise Broken(f"asked for item {item}, it plays {first.info['item']}")
        starts[item] = first.observation
    if len(starts) > 1 and len(set(starts.values())) == 1 and not all(_solved(_golden(env, item)) for item in starts):
        raise Broken(f"{len(starts)} items all start alike, and no gold actions tell them apart; does reset read options['item']?")
    try:
        env.reset(options={"item": "no such item \u2603"})
    except Exception:
        return f"{len(starts)} items, each with one start"
    raise Broken("an item that does not exist is not refused; raise an error, or a typing mistake plays something else")


def check_determinism(subject: Subject) -> str:
    """The same item and actions give the same episode: in another instance, and after other items."""
    env, other = subject.make(), subject.make()
    first = {item: list(_episode(env, item, seed=3)) for item in subject.few}
    for item in reversed(subject.few):
        for again, where in ((_episode(other, item, seed=3), "in another instance"), (_episode(env, item, seed=3), "after other items")):
            turns = list(again)
            for number, (one, two) in enumerate(zip(first[item], turns, strict=False)):
                if part := one.differs(two):
                    raise Broken(f"item {item}: the same actions {where} give another {part} at step {number}")
            if len(turns) != len(first[item]):
                raise Broken(f"item {item}: the same actions {where} end after {len(turns) - 1} instead of {len(first[item]) - 1} steps")
    return f"{len(first)} items three times"


def check_rewards(subject: Subject) -> str:
    """Each reward and their sum are in [0, 1]."""
    env, seen = subject.make(), set()
    for item in subject.few:
        for actions in (None, _gold(env, item)):
            total = 0.0
            for number, turn in enumerate(_episode(env, item, seed=0, actions=actions)):
                total += turn.reward
                if not math.isfinite(turn.reward) or not 0 <= turn.reward <= 1 or total > 1 + 1e-9:
                    raise Broken(
                        f"item {item}: reward {turn.reward:g} at step {number}, {total:g} in all; an episode's sum is between 0 and 1"
                    )
            seen.add(total)
    return f"episodes of {min(seen):g} to {max(seen):g}"


def check_bad_actions(subject: Subject) -> str:
    """Whatever a model writes is answered, and is not right by accident."""
    env = subject.make()
    for name, action in BAD_ACTIONS.items():
        for item in subject.few[:3]:
            try:
                turns = list(_episode(env, item, seed=0, actions=[action]))
            except Exception as error:
                raise Broken(f"an action that is {name} raises {_named(error)}; answer it, with reward 0") from error
            if _solved(turns):
                raise Broken(f"an action that is {name} solves item {item}")
    return f"{len(BAD_ACTIONS)} kinds are answered"


def check_end(subject: Subject) -> str:
    """An episode ends, whatever is done in it."""
    env = subject.make()
    for actions in (None, [""] * LONGEST_EPISODE):
        steps = sum(1 for _ in _episode(env, subject.few[0], seed=0, actions=actions)) - 1
        if steps >= LONGEST_EPISODE:
            raise Broken(f"an episode goes on after {steps} steps; end it (truncated=True), or register it with max_episode_steps")
    return f"after {steps} step{'s' * (steps != 1)}"


def check_gold(subject: Subject) -> str | None:
    """The gold actions solve their items."""
    env, tried = subject.make(), 0
    for item in subject.few:
        if turns := _golden(env, item):
            tried += 1
            if not _solved(turns):
                raise Broken(f"item {item}: the gold actions earn {sum(turn.reward for turn in turns):g} and do not solve it")
    return f"{tried} of {tried} solved" if tried else None


def check_speed(subject: Subject) -> str:
    """How quick it is, on one core."""
    env, resets, steps, in_reset, in_step = subject.make(), 0, 0, 0.0, 0.0
    started = time.perf_counter()
    while time.perf_counter() - started < 0.5 and resets < 1000:
        item = subject.few[resets % len(subject.few)]
        before = time.perf_counter()
        env.reset(seed=0, options={"item": item})
        in_reset, resets = in_reset + time.perf_counter() - before, resets + 1
        actions = _gold(env, item) or ["0"]
        before = time.perf_counter()
        for action in actions:
            steps += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        in_step += time.perf_counter() - before
    return f"{resets / in_reset:,.0f} resets and {steps / in_step:,.0f} steps a second"


CHECKS: dict[str, Callable[[Subject], str | None]] = {
    "items": lambda subject: None,  # done first, by _enumerate: the others need them
    "splits": check_splits,
    "gymnasium": check_gymnasium,
    "text": check_text,
    "item": check_item,
    "determinism": check_determinism,
    "rewards": check_rewards,
    "bad actions": check_bad_actions,
    "end": check_end,
    "gold": check_gold,
    "speed": check_speed,
}


def _episode(env: gym.Env[Any, Any], item: str, seed: int, actions: list[str] | None = None) -> Iterator[Turn]:
    """Play an item: the given actions, or without any some that depend on nothing but the step. The first turn is the reset's."""
    observation, info = env.reset(seed=seed, options={"item": item})
    yield Turn(observation, 0.0, False, dict(info))
    for number in count() if actions is None else range(len(actions)):
        if number == LONGEST_EPISODE:
            return
        action = actions[number] if actions is not None else _some_action(info, number)
        observation, reward, terminated, truncated, info = env.step(action)
        yield Turn(observation, float(reward), bool(terminated or truncated), dict(info))
        if terminated or truncated:
            return


def _some_action(info: dict[str, Any], number: int) -> str:
    admissible = info.get("admissible")
    return admissible[number * 7 % len(admissible)] if admissible else f"\\boxed{{{number}}}"


def _gold(env: gym.Env[Any, Any], item: str) -> list[str]:
    try:
        return list(env.get_wrapper_attr("gold")(item))
    except AttributeError:
        return []


def _golden(env: gym.Env[Any, Any], item: str) -> list[Turn]:
    """The episode of the gold actions; empty without any."""
    actions = _gold(env, item)
    return list(_episode(env, item, seed=0, actions=actions)) if actions else []


def _solved(turns: list[Turn]) -> bool:
    if not turns:
        return False
    verdict = turns[-1].info.get("verdict")
    return verdict == "correct" if verdict is not None else sum(turn.reward for turn in turns) >= 1


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = [key for key in {**one, **other} if repr(one.get(key)) != repr(other.get(key))]
    return ", ".join(map(str, keys))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _matters(warning: str) -> bool:
    """Whether a warning of Gymnasium's checker is about a mistake: it also warns of what text environments can not help."""
    return "is not within the observation space" in warning or "random seed" in warning


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError

    try:
        before = signal.signal(signal.SIGALRM, stop)
    except ValueError:  # off the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # and again every second, where the environment swallows the exception
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
