"""Seeded procedural arithmetic: sums and differences of small numbers, evaluated from left to right.

A split is fixed by the problem's own text (a hash of it), never by the order of generation, so that train, validation
and test can not share a problem whatever the seed, the size or the difficulty.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from ..items import Item

SPLITS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}  # tenths of the hash space
OPERANDS = range(2, 40)
RESULTS = range(0, 100)  # every running result stays in here, so steps are one- and two-digit sums


def generate(split: str, size: int, difficulty: int, seed: int) -> tuple[Item, ...]:
    """`size` distinct problems of `split`; `difficulty` is the number of operations in each."""
    items: dict[str, Item] = {}
    for expression, answer in expressions(difficulty, random.Random(f"arithmetic/{difficulty}/{seed}")):
        if split_of(expression) == split:
            item_id = f"arithmetic/{hashlib.sha256(expression.encode()).hexdigest()[:12]}"
            items[item_id] = Item(item_id, f"What is {expression}?", str(answer), {"difficulty": difficulty})
            if len(items) == size:
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


def split_of(expression: str) -> str:
    """The split that a problem belongs to: a pure function of its text."""
    tenth = hashlib.sha256(expression.encode()).digest()[-1] * 10 // 256
    return next(name for name, tenths in SPLITS.items() if tenth in tenths)
