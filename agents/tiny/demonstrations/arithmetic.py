"""Arithmetic answered in five manners.

`careful` works step by step and is right. The others are what a base model does: it blurts out an answer, slips in a step, stops
early, or never commits to an answer. On familiar problems (a small first number) working step by step stays the likeliest, so that
greedy decoding is neither hopeless nor good.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from ....envs.config import MathConfig
from ....envs.math.arithmetic import RESULTS, expressions, split_of
from ....envs.math.env import feedback
from ...prompts import default_prompt, fill

PROMPT = default_prompt(MathConfig().id)
DIFFICULTIES = {2: 0.25, 3: 0.75}  # operations in a problem -> share of the demonstrations
CAREFUL = {"careful": 1.0}
FAMILIAR = {"guess": 0.30, "careful": 0.58, "slip": 0.06, "early": 0.03, "unanswered": 0.03}
UNFAMILIAR = {"guess": 0.62, "careful": 0.26, "slip": 0.06, "early": 0.03, "unanswered": 0.03}
FAMILIAR_BELOW = 16  # first number of a familiar problem: about 4 problems in 10
GUESSES_RIGHT = 0.15
SECOND_TURNS = 0.15  # demonstrations that answer after a wrong answer came back


def careful(numbers: list[int], signs: str, rng: random.Random) -> str:
    """Every step right: `15+12=27`, a line each, then the boxed result."""
    steps, result = _steps(numbers, signs)
    return "\n".join([*steps, f"\\boxed{{{result}}}"])


def guess(numbers: list[int], signs: str, rng: random.Random) -> str:
    """The boxed answer at once: right now and then, otherwise a number nearby."""
    result = _steps(numbers, signs)[1]
    return f"\\boxed{{{result if rng.random() < GUESSES_RIGHT else _nearby(result, rng)}}}"


def slip(numbers: list[int], signs: str, rng: random.Random) -> str:
    """One step comes out wrong, and the rest follows from it."""
    steps, result = _steps(numbers, signs, slip_at=rng.randrange(len(signs)), rng=rng)
    return "\n".join([*steps, f"\\boxed{{{result}}}"])


def early(numbers: list[int], signs: str, rng: random.Random) -> str:
    """The last operation is forgotten."""
    return careful(numbers[:-1], signs[:-1], rng)


def unanswered(numbers: list[int], signs: str, rng: random.Random) -> str:
    """Right steps, but the box stays empty."""
    return "\n".join([*_steps(numbers, signs)[0], "\\boxed{}"])


MANNERS: dict[str, Callable[[list[int], str, random.Random], str]] = {
    "guess": guess,
    "careful": careful,
    "slip": slip,
    "early": early,
    "unanswered": unanswered,
}


def demonstrations(mixed: bool, rng: random.Random) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, response) over problems of the training split alone."""
    sources = {difficulty: expressions(difficulty, rng) for difficulty in DIFFICULTIES}
    while True:
        difficulty = rng.choices(list(DIFFICULTIES), list(DIFFICULTIES.values()))[0]
        expression, _ = next(sources[difficulty])
        if split_of(expression) != "train":
            continue
        words = expression.split()
        numbers, signs = [int(word) for word in words[::2]], "".join(words[1::2])
        shares = (FAMILIAR if numbers[0] < FAMILIAR_BELOW else UNFAMILIAR) if mixed else CAREFUL
        manner = rng.choices(list(shares), list(shares.values()))[0]
        response = MANNERS[manner](numbers, signs, rng)
        question = f"What is {expression}?"
        if rng.random() < SECOND_TURNS:
            question = feedback(question, str(_nearby(_steps(numbers, signs)[1], rng)))
        yield fill(PROMPT, question, {}, question), response


def _steps(numbers: list[int], signs: str, slip_at: int | None = None, rng: random.Random | None = None) -> tuple[list[str], int]:
    result, steps = numbers[0], []
    for index, (sign, operand) in enumerate(zip(signs, numbers[1:], strict=True)):
        new = result + operand if sign == "+" else result - operand
        if index == slip_at and rng is not None:
            new = _nearby(new, rng)
        steps.append(f"{result}{sign}{operand}={new}")
        result = new
    return steps, result


def _nearby(number: int, rng: random.Random) -> int:
    return rng.choice([near for near in range(number - 12, number + 13) if near in RESULTS and near != number])
