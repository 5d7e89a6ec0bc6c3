"""Does an environment keep the contract? Each check finds out one thing and says what is wrong in one line."""

from __future__ import annotations

import json
import math
import signal
import string
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from ..common.errors import UserError
from ..common.text import counted
from . import load, make
from .check_play import LONGEST_EPISODE, RAISED, Broken, Subject, episode, gold, golden, solved
from .config import EnvConfig
from .items import Split
from .other import items_of
from .pool_worker import describe

BAD_ACTIONS = {  # without a digit or a letter of ASCII: what can be read as an answer may be the right one
    "empty": "",
    "spaces and line breaks": " \n\t\r\n ",
    "huge": "\u2026" * 1_000_000,
    "not ASCII": "\u00f8 \u6570\u5b66 \U0001f600 \u202e",
    "control characters": "".join(map(chr, [*range(32), *range(127, 160)])),
    "half a surrogate pair": "\ud800",
    "deeply nested": "(" * 100_000,
}
DELIMITERS = ("\\boxed{}", "<answer></answer>", "<answer>", "####", "```\n```\n", "**", "$", "The answer is ")
REPEATED = 20  # delimiters in one action, and actions in one episode
FREE = 0.05  # what a grader may pay for any reply at all
SECONDS = 120  # a check that takes longer has hung


@dataclass(frozen=True)
class Finding:
    """What one check came to: `ok` is None where there was nothing to check."""

    name: str
    ok: bool | None
    message: str


class _TooLong(BaseException):
    """A check has hung. Not an Exception, which an environment may catch or raise itself."""


def check(config: EnvConfig, split: str = "test", items: int = 20, seconds: int | None = None) -> Iterator[Finding]:
    """Run all checks on `items` items of a split; yields each finding as it is made. A fault is told once: a check that cannot pass
    because another has failed is left out. seconds: of one check (default: SECONDS); off the main thread a hang is not noticed."""
    subject: Subject | None = None
    failed: set[str] = set()
    for name, (function, needs) in CHECKS.items():
        if missing := [need for need in needs if need in failed]:
            yield Finding(name, None, f"not checked: {missing[0]} comes first")
            continue
        try:
            with _time_limit(seconds or SECONDS), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                if subject is None:
                    subject, message = _enumerate(config, split, items)
                else:
                    message = function(subject)
        except (Broken, UserError) as error:
            finding = Finding(name, False, str(error))
        except _TooLong:
            finding = Finding(name, False, f"it did not come to an end within {seconds or SECONDS} seconds")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the environment's own, SystemExit too
            finding = Finding(name, False, f"raised {describe(error)}")
        else:
            said = [str(warning.message) for warning in caught if name == "gymnasium" and _matters(str(warning.message))]
            finding = Finding(name, None if message is None else not said, said[0] if said else message or "nothing to check")
        if finding.ok is False:
            failed.add(name)
        yield finding


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
    env = subject.make()
    for item in subject.few:
        for actions in (None, gold(env, item)):
            for turn in episode(env, item, seed=0, actions=actions):
                if outside := _outside(env.observation_space, turn.observation):
                    raise Broken(f"item {item}: {outside}")
    try:
        check_env(subject.make().unwrapped, skip_render_check=True, skip_close_check=True)
    except AssertionError as error:
        raise Broken(" ".join(str(error).split())) from error
    return "its checker passes"


def check_text(subject: Subject) -> str:
    """Text in, text out, and information that can travel between processes."""
    env = subject.make()
    for item in subject.few:
        for turn in episode(env, item, seed=0):
            if not isinstance(turn.observation, str):
                raise Broken(f"item {item}: the observation is a {type(turn.observation).__name__}; it must be text")
            try:
                json.dumps(turn.info)
            except (TypeError, ValueError) as error:
                raise Broken(f"item {item}: info cannot be written as JSON ({error}); keep plain values in it") from error
    return "observations are text, info is JSON"


def check_item(subject: Subject) -> str:
    """`options={"item": id}` plays that item, whatever the seed: the episodes of a group start alike."""
    env = subject.make()
    starts = {}
    for item in subject.few:
        first, second = (next(episode(env, item, seed)) for seed in (1, 2))
        if first.observation != second.observation:
            raise Broken(f"item {item} starts differently with another seed; an item is one start, so that a group can be compared")
        if first.info.get("item", item) != item:
            raise Broken(f"asked for item {item}, it plays {first.info['item']}")
        starts[item] = first.observation
    if len(starts) > 1 and len(set(starts.values())) == 1 and not all(solved(golden(env, item)) for item in starts):
        raise Broken(f"{len(starts)} items all start alike, and no gold actions tell them apart; does reset read options['item']?")
    try:
        env.reset(options={"item": "no such item \u2603"})
    except Exception:
        return f"{counted(len(starts), 'item')}, each with one start"
    raise Broken("an item that does not exist is not refused; raise an error, or a typing mistake plays something else")


def check_determinism(subject: Subject) -> str:
    """The same item and actions give the same episode: in another instance, and after other items."""
    env, other = subject.make(), subject.make()
    first = {item: list(episode(env, item, seed=3)) for item in subject.few}
    for item in reversed(subject.few):
        for again, where in ((episode(other, item, seed=3), "in another instance"), (episode(env, item, seed=3), "after other items")):
            turns = list(again)
            for number, (one, two) in enumerate(zip(first[item], turns, strict=False)):
                if part := one.differs(two):
                    raise Broken(f"item {item}: the same actions {where} give another {part} at step {number}")
            if len(turns) != len(first[item]):
                raise Broken(f"item {item}: the same actions {where} end after {len(turns) - 1} instead of {len(first[item]) - 1} steps")
    return f"{counted(len(first), 'item')} three times"


def check_rewards(subject: Subject) -> str:
    """Each reward and their sum are in [0, 1]."""
    env, seen = subject.make(), set()
    for item in subject.few:
        for actions in (None, gold(env, item)):
            total = 0.0
            for number, turn in enumerate(episode(env, item, seed=0, actions=actions)):
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
                turns = list(episode(env, item, seed=0, actions=[action]))
            except RAISED as error:
                raise Broken(f"an action that is {name} raises {describe(error)}; answer it, with reward 0") from error
            if solved(turns):
                raise Broken(f"an action that is {name} solves item {item}")
    return f"{len(BAD_ACTIONS)} kinds are answered"


def check_hacks(subject: Subject) -> str:
    """What knows nothing of an item earns nothing."""
    env = subject.make()

    def paid(item: str, *actions: str) -> float:
        turns = list(episode(env, item, seed=0, actions=list(actions)))
        return 1.0 if solved(turns) else sum(turn.reward for turn in turns)

    blind = {"empty": "", **{f"{mark.strip()!r}, repeated": mark * REPEATED for mark in DELIMITERS}}
    echoed, listed, lists = [], [], 0
    for number, item in enumerate(subject.few):
        for name, action in blind.items() if number < 3 else ():
            if (reward := paid(item, *[action] * REPEATED)) > FREE:
                raise Broken(f"an action that is {name} earns {reward:g} on item {item}; pay what is right, not its form")
        prompt = str(next(episode(env, item, seed=0)).observation)
        if (reward := paid(item, *[prompt] * REPEATED)) > FREE:
            echoed.append(f"the prompt itself as the action earns {reward:g} on item {item}")
        if candidates := _candidates(env, subject, item):
            wrong, right = candidates
            alone = {action: paid(item, action) for action in wrong}
            others = [action for action, reward in alone.items() if reward < 1]  # equal to the right one in other words
            if len(others) >= 2:
                lists += 1
                half = len(others) // 2
                reward = paid(item, "\n".join([*others[:half], right, *others[half:]]))
                if reward > max(FREE, *(alone[action] for action in others)):
                    listed.append(f"{len(others) + 1} answers at once, the right one among them, earn {reward:g} on item {item}")
    # One of them may be paid by chance: the last number of a question is an answer, too.
    for found, tried, remedy in (
        (echoed, len(subject.few), "do not look for the answer in all that is written"),
        (listed, lists, "take one answer, not all"),
    ):
        if len(found) * 2 > tried:
            raise Broken(f"{found[0]} ({len(found)} of {tried} items); {remedy}")
    return "an empty action, the prompt, delimiters" + (" and lists of answers" if lists else "") + " earn nothing"


def _candidates(env: Any, subject: Subject, item: str) -> tuple[list[str], str] | None:
    """Answers of other items, and this one's. Only answers of one line: programs, for example, do not exclude each other."""
    answers = {one: actions[0] for one in subject.few if len(actions := gold(env, one)) == 1 and "\n" not in actions[0].strip()}
    if (right := answers.get(item)) is None:
        return None
    return [answer for answer in dict.fromkeys(answers.values()) if answer != right][:8], right


def check_end(subject: Subject) -> str:
    """An episode ends, whatever is done in it."""
    env = subject.make()
    for actions in (None, [""] * LONGEST_EPISODE):
        steps = sum(1 for _ in episode(env, subject.few[0], seed=0, actions=actions)) - 1
        if steps >= LONGEST_EPISODE:
            raise Broken(f"an episode goes on after {steps} steps; end it (truncated=True), or register it with max_episode_steps")
    return f"after {counted(steps, 'step')}"


def check_gold(subject: Subject) -> str | None:
    """The gold actions solve their items."""
    env, tried = subject.make(), 0
    for item in subject.few:
        if turns := golden(env, item):
            tried += 1
            if not solved(turns):
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
        actions = gold(env, item) or ["0"]
        before = time.perf_counter()
        for action in actions:
            steps += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
        in_step += time.perf_counter() - before
    return f"{resets / in_reset:,.0f} resets and {steps / in_step:,.0f} steps a second"


PLAYED = ("items", "text")
CHECKS: dict[str, tuple[Callable[[Subject], str | None], tuple[str, ...]]] = {
    "items": (lambda subject: None, ()),  # done first, by _enumerate: the others need them
    "splits": (check_splits, ("items",)),
    "text": (check_text, ("items",)),
    "item": (check_item, PLAYED),
    "rewards": (check_rewards, PLAYED),
    "determinism": (check_determinism, PLAYED),
    "gymnasium": (check_gymnasium, (*PLAYED, "rewards", "determinism")),
    "bad actions": (check_bad_actions, PLAYED),
    "hacks": (check_hacks, (*PLAYED, "rewards", "bad actions")),
    "end": (check_end, (*PLAYED, "bad actions")),
    "gold": (check_gold, (*PLAYED, "item", "rewards", "end")),
    "speed": (check_speed, PLAYED),
}
"""Each check, and the ones that it cannot pass without."""


def _outside(space: Any, text: Any) -> str | None:
    """Why a text is not in a space of texts; None where it is, or the space is of another kind."""
    if not isinstance(space, spaces.Text) or not isinstance(text, str) or space.contains(text):
        return None
    if strange := [character for character in text if character not in space.character_set]:
        name = f"U+{ord(strange[0]):04X} {unicodedata.name(strange[0], 'without a name')}"
        every = "string.printable" if strange[0] in string.printable else f"string.printable + {strange[0]!r}"
        return (
            f"the observation has {strange[0]!r} ({name}), which is not in the charset of observation_space; "
            f"take spaces.Text({space.max_length}, min_length=0, charset={every}), or onelayer.envs.spaces.FreeText() for any text"
        )
    most, bound = (
        ("longer", f"max_length={space.max_length}") if len(text) > space.max_length else ("shorter", f"min_length={space.min_length}")
    )
    return f"an observation of {len(text)} characters is {most} than the {bound} of observation_space; change that"


def _matters(warning: str) -> bool:
    """Whether a warning of Gymnasium's checker is about a mistake: it also warns of what text environments cannot help."""
    return "is not within the observation space" in warning or "random seed" in warning


@contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _TooLong

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
