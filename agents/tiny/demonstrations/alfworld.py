"""Generated ALFWorld games in small scenes, played by the planner's walkthrough and by noisy variants of it.

The planner knows where things are and a player does not, so on its way to a place a demonstrator looks elsewhere first. In the mixture
it also does what leads nowhere, and at times leaves out the cleaning, heating or cooling.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from itertools import islice
from typing import cast

from ....envs.alfworld.env import ALFWorldEnv
from ....envs.config import ALFWorldConfig
from ...agent import HISTORY, default_prompt, fill

PROMPT = default_prompt(ALFWorldConfig().id)
TURNS = cast("int", HISTORY[ALFWorldConfig().id])
GAMES = 2048
AT_ONCE = 64  # episodes whose steps are shuffled together
SEARCHES, STRAYS = 0.7, 0.3  # chance of looking elsewhere before going to a place, again after each time: to find the thing, and later
OPENS = 0.7  # chance of opening what is closed there
MISTAKES = 0.1  # chance of a command that is not possible, which is shown and not taught: what comes after it is
IDLES, HASTY = 0.1, 0.15  # in the mixture: chance of a step that leads nowhere, and of leaving out what the task needs besides
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
    """(user message, response) of every step of one play; empty where a detour has led to the very thing that is sought."""
    observation, info = env.reset(options={"item": item})
    plan = thoughtful(_walkthrough(item))
    if mixed and rng.random() < HASTY:
        plan = hurried(plan)
    target = next(command for _, command in plan if command.startswith("take ")).split()[1]
    past: list[tuple[str, str]] = []
    pairs = []
    while plan and len(pairs) < STEPS:
        if rng.random() < MISTAKES:
            past = [*past, (observation, mistake(plan, target, info["admissible"], rng))][-TURNS:]
            observation, _, _, _, info = env.step(past[-1][1])
        move = detour(plan, observation, info["admissible"], past, mixed, rng)
        if planned := move is plan[0]:
            plan.pop(0)
        pairs.append((fill(PROMPT, observation, info, info["task"], past), f"<think>{move[0]}</think><action>{move[1]}</action>"))
        past = [*past, (observation, move[1])][-TURNS:]
        observation, _, won, _, info = env.step(move[1])
        if won:
            break
        if not planned and move[1].startswith(("go to", "open")) and f" {target} " in observation:
            return []
        if plan and plan[0][1] not in info["admissible"] and plan[0][1].startswith(("go to", "open")):
            plan.pop(0)  # it is there, or open, already
    return pairs


def mistake(plan: list[Move], target: str, admissible: list[str], rng: random.Random) -> str:
    """A command that is not possible now: a later one of the plan, or taking the target from where it is not."""
    places = [command.removeprefix("go to ") for command in admissible if command.startswith("go to ")]
    wrong = [command for _, command in plan[1:]] + [f"take {target} 1 from {place}" for place in places]
    return rng.choice([command for command in wrong if command not in admissible])


def detour(plan: list[Move], observation: str, admissible: list[str], past: list[Move], mixed: bool, rng: random.Random) -> Move:
    """What to do next: the plan's next move, or something else before it."""
    then, command = plan[0]
    shown = {done for _, done in past}  # who has just been somewhere does not go there again
    elsewhere = [other for other in admissible if other.startswith("go to ") and other != command and other not in shown]
    opening = [other for other in admissible if other.startswith("open ") and other != command]
    if mixed and rng.random() < IDLES:
        return then, rng.choice([other for other in admissible if other.startswith(("examine", "inventory", "look"))])
    if command.startswith("go to "):
        if opening and observation.endswith("is closed.") and rng.random() < OPENS:
            return then, opening[0]
        if elsewhere and rng.random() < (SEARCHES if then.endswith("find") else STRAYS):
            return then, rng.choice(elsewhere)
    return plan[0]


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
