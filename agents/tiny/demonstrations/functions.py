"""The functions suite answered in three manners: right, half of what was asked, and right but for one number or sign.

Half an answer is the likeliest for all but two families of functions, so that greedy decoding solves those two alone.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator

from ....envs.code.env import feedback
from ....envs.code.functions import FAMILIES, enumerated, solution, task
from ....envs.code.grader import grade
from ....envs.config import CodeConfig
from ...prompts import default_prompt, fill

PROMPT = default_prompt(CodeConfig().id)
RIGHT = {"right": 1.0}
FAMILIAR = {"right": 0.55, "half": 0.25, "slip": 0.20}
UNFAMILIAR = {"right": 0.28, "half": 0.54, "slip": 0.18}
FAMILIAR_FAMILIES = {"arithmetic", "strings"}
SECOND_TURNS = 0.1  # demonstrations that answer after a failing program came back
SIGNS = {"+": "-", "-": "+", "*": "+", "//": "%", "%": "//", ">": "<", "<": ">", "==": "!="}


def right(expression: str, rng: random.Random) -> str:
    return expression


def half(expression: str, rng: random.Random) -> str:
    """The last change, the condition or the filter is left out."""
    tree = ast.parse(expression, mode="eval")
    each = next((node for node in ast.walk(tree) if isinstance(node, ast.ListComp | ast.GeneratorExp)), None)
    match tree.body:
        case _ if each and each.generators[0].ifs:
            each.generators[0].ifs = []
        case _ if each:
            each.elt = each.generators[0].target
        case ast.IfExp(body=kept) | ast.BinOp(left=kept) | ast.Call(func=ast.Attribute(value=kept)) | ast.Subscript(value=kept):
            tree.body = kept
    return ast.unparse(tree)


def slip(expression: str, rng: random.Random) -> str:
    """One number is off by one or two, or one sign is another."""
    found = list(re.finditer(r"(?<=[ \[:-])\d+|(?<= )(?:[-+*%<>]|//|==)(?= )", expression))
    if not found:
        return half(expression, rng)
    at = rng.choice(found)
    new = str(max(0, int(at[0]) + rng.choice((-2, -1, 1, 2)))) if at[0].isdigit() else SIGNS[at[0]]
    return expression[: at.start()] + new + expression[at.end() :]


MANNERS: dict[str, Callable[[str, random.Random], str]] = {"right": right, "half": half, "slip": slip}


def demonstrations(mixed: bool, rng: random.Random) -> Iterator[tuple[str, str]]:
    """An endless stream of (user message, response) over functions of the training split alone."""
    specs = enumerated()["train"]
    while True:
        family = rng.choice(list(FAMILIES))
        _, (parameters, words, expression) = rng.choice(specs[family])

        def reply(manner: str, parameters: str = parameters, words: str = words, expression: str = expression) -> str:
            return f"```python\n{solution((parameters, words, MANNERS[manner](expression, rng)))}\n```"

        shares = (FAMILIAR if family in FAMILIAR_FAMILIES else UNFAMILIAR) if mixed else RIGHT
        item, problem = task(family, (parameters, words, expression))
        question = item.question
        if rng.random() < SECOND_TURNS:
            result = grade(reply(rng.choice(("half", "slip"))), problem)
            question = feedback(question, result) if result.failure else question
        yield fill(PROMPT, question, {}, question), reply(rng.choices(list(shares), list(shares.values()))[0])
