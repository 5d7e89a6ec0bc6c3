"""Generated ALFWorld games in small scenes: what the planner does, by a player who does not know where things are.

Things are looked for in the order of the places, what is closed is opened. In the mixture a demonstrator also does what leads nowhere,
and at times leaves out the cleaning, heating or cooling.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from itertools import islice
from typing import cast

from ....envs.alfworld.env import ALFWorldEnv
from ....envs.config import ALFWorldConfig
from ...prompts import default_prompt, fill

PROMPT = default_prompt(ALFWorldConfig().id)
TURNS = cast("int", ALFWorldConfig.HISTORY)
GAMES = 8192
AT_ONCE = 64  # episodes whose steps are shuffled together
MISTAKES = 0.2  # chance of a command that is not possible, which is shown and not taught: what comes after it is
IDLES, HASTY = 0.2, 0.3  # in the mixture: chance of a step that leads nowhere, and of leaving out what the task needs besides
STEPS = 24
PROCESSING = ("clean", "heat", "cool")
Move = tuple[str, str]  # a thought and a command


def demonstrations(mixed: bool, rng: random.Random) -> Iterator[tuple[str, str]]:
    """An endless stream of (user message, response): single steps of many episodes, shuffled."""
    env = _env()
    ids = list(env.items)
    episodes = (pairs for _ in iter(int, 1) for pairs in [episode(env, rng.choice(ids), mixed, rng)] if pairs)
    while True:
        steps = [step for pairs in islice(episodes, AT_ONCE) for step in pairs]
        rng.shuffle(steps)
        yield from steps


def episode(env: ALFWorldEnv, item: str, mixed: bool, rng: random.Random) -> list[tuple[str, str]]:
    """(user message, response) of every step of one play; empty where the search comes upon another of the things that are sought."""
    observation, info = env.reset(options={"item": item})
    plan = thoughtful(_walkthrough(item))
    if mixed and rng.random() < HASTY:
        plan = hurried(plan)
    target = next(command for _, command in plan if command.startswith("take ")).split()[1]
    places = [command.removeprefix("go to ") for command in info["admissible"] if command.startswith("go to ")]
    here = rng.choice(places)
    past: list[tuple[str, str]] = []
    pairs = []
    while plan and len(pairs) < STEPS:
        if rng.random() < MISTAKES and (mistakes := impossible(plan, target, here, info["admissible"])):
            past = [*past, (observation, rng.choice(mistakes))][-TURNS:]
            observation, _, _, _, info = env.step(past[-1][1])
        thought, command = plan[0]
        if command.startswith("go to ") and thought.endswith(("find", "use")):
            command = searching(places, here, info["admissible"])
        if mixed and rng.random() < IDLES:
            command = rng.choice([other for other in info["admissible"] if other.startswith(("examine", "inventory", "look"))])
        pairs.append((fill(PROMPT, observation, info, info["task"], past), f"<think>{thought}</think><action>{command}</action>"))
        past = [*past, (observation, command)][-TURNS:]
        observation, _, won, _, info = env.step(command)
        if won:
            break
        here = command.removeprefix("go to ") if command.startswith("go to ") else here
        if command == plan[0][1]:
            plan.pop(0)
        elif thought.endswith("find") and f" {target} " in observation and command.startswith(("go to", "open")):
            return []
        if plan and plan[0][1] not in info["admissible"] and plan[0][1].startswith(("go to", "open")):
            plan.pop(0)  # it is there, or open, already
    return pairs


def impossible(plan: list[Move], target: str, here: str, admissible: list[str]) -> list[str]:
    """Commands that are not possible now: half take the target from here, where it is not; the others are later ones of the plan."""
    later = [command for _, command in plan[1:]]
    return [command for command in [f"take {target} 1 from {here}"] * max(1, len(later)) + later if command not in admissible]


def searching(places: list[str], here: str, admissible: list[str]) -> str:
    """Open what is closed here, or go to the next place."""
    closed = [command for command in admissible if command.startswith("open ")]
    return closed[0] if closed else f"go to {places[(places.index(here) + 1) % len(places)]}"


def thoughtful(commands: list[str]) -> list[Move]:
    """Each command under a thought: which thing it is about, and what is to be done next that changes something.

    The thing comes first: a model that has named it finds it in the observation, and knows then whether to take it.
    """
    target = next(command for command in commands if command.startswith("take ")).split()[1]
    moves: list[Move] = []
    then = ""
    for command in reversed(commands):
        verb = command.split()[0]
        if verb not in ("go", "open"):
            then = {"move": "put"}.get(verb, verb)
        moves.append((f"the {target}: {'find' if then == 'take' and verb != 'take' else then}", command))
    return moves[::-1]


def hurried(plan: list[Move]) -> list[Move]:
    """The plan without cleaning, heating or cooling, and without the way there."""
    verbs = [command.split()[0] for _, command in plan]
    at = next((index for index, verb in enumerate(verbs) if verb in PROCESSING), None)
    return plan if at is None else plan[: verbs.index("take") + 1] + plan[at + 1 :]


@functools.cache
def _env() -> ALFWorldEnv:
    return ALFWorldEnv(scene="small", split="train", size=GAMES, max_steps=4 * STEPS)


@functools.cache
def _walkthrough(item: str) -> list[str]:
    return _env().gold(item)
