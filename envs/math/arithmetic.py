"""Seeded procedural arithmetic: sums and differences of small numbers, evaluated from left to right.

A split is fixed by the problem's own text (a hash of it), never by the order of generation, so that train, validation
and test cannot share a problem whatever the seed, the size or the difficulty.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator

from ...common.errors import UserError
from ..items import Item, tenth

SPLITS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}  # tenths of the hash space
OPERANDS = range(2, 40)
RESULTS = range(0, 100)  # every running result stays in here, so steps are one- and two-digit sums
DEFAULT_SIZE = {"train": 4096, "validation": 512, "test": 512}


def generate(split: str, size: int | None, difficulty: int, seed: int) -> tuple[Item, ...]:
    """`size` distinct problems of `split`; `difficulty` is the number of operations in each.

    Without a size, 4096 to train and 512 else, or as many as there are. Raises UserError where fewer exist than asked for.
    """
    wanted = size or DEFAULT_SIZE[split]
    if wanted > existing(difficulty) / 20:  # few enough to be counted one by one
        there = sum(split_of(expression) == split for expression in every_expression(difficulty))
        if size is not None and size > there:
            raise UserError(
                f"env.size={size}, but {split} has {there} arithmetic problems of difficulty {difficulty}: lower it or raise env.difficulty"
            )
        wanted = min(wanted, there)
    items: dict[str, Item] = {}
    for expression, answer in expressions(difficulty, random.Random(f"arithmetic/{difficulty}/{seed}")):
        if split_of(expression) == split:
            item_id = f"arithmetic/{hashlib.sha256(expression.encode()).hexdigest()[:12]}"
            items[item_id] = Item(item_id, f"What is {expression}?", str(answer), {"difficulty": difficulty})
            if len(items) == wanted:
                break
    return tuple(items.values())


def expressions(difficulty: int, rng: random.Random) -> Iterator[tuple[str, int]]:
    """An endless stream of (expression, answer), with repetitions."""
    while True:
        result = rng.choice(OPERANDS)
        text = str(result)
        for _ in range(difficulty):
            operator, operand = rng.choice("+-"), rng.choice(OPERANDS)
            result += operand if operator == "+" else -operand
            text += f" {operator} {operand}"
            if result not in RESULTS:
                break
        else:
            yield text, result


def existing(difficulty: int) -> int:
    """How many expressions there are in all splits, counted by their running results."""
    ways = Counter(OPERANDS)
    for _ in range(difficulty):
        longer: Counter[int] = Counter()
        for result, count in ways.items():
            for operand in OPERANDS:
                longer[result + operand] += count
                longer[result - operand] += count
        ways = Counter({result: count for result, count in longer.items() if result in RESULTS})
    return ways.total()


def every_expression(difficulty: int) -> Iterator[str]:
    """Each expression once."""

    def longer(text: str, result: int, left: int) -> Iterator[str]:
        if left == 0:
            yield text
            return
        for operand in OPERANDS:
            for operator, value in (("+", result + operand), ("-", result - operand)):
                if value in RESULTS:
                    yield from longer(f"{text} {operator} {operand}", value, left - 1)

    for first in OPERANDS:
        yield from longer(str(first), first, difficulty)


def split_of(expression: str) -> str:
    """The split that a problem belongs to: a pure function of its text."""
    return next(name for name, tenths in SPLITS.items() if tenth(expression) in tenths)
