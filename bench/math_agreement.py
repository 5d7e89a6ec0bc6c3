"""Where the math grader and math-verify differ: verdicts on the same 5,000 pairs of gold and answer.

ONELAYER_DATA=... python bench/math_agreement.py                    # counts by kind of pair
ONELAYER_DATA=... python bench/math_agreement.py --list OUT.jsonl   # and every disagreement, which holds benchmark text

The pairs: golds of all sets against themselves and against solutions, against a neighbour, and against mutants: other
spellings of the same value, and other values in the same spelling.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from onelayer.envs import load, parse_suite
from onelayer.envs.math import grader

SUITES = ("math500", "gsm8k", "amc23", "aime24", "aime25", "math/train")
SPELLINGS = (  # the same value
    (r"\\frac(?=\{)", r"\\dfrac"),
    (r"\\frac(?=\{)", r"\\tfrac"),
    (r"\\sqrt\{", r"\\sqrt {"),
    (r",(?![\\}])", ", "),
    (r"(?<!t)\(([^()]*)(?<!\\right)\)", r"\\left(\1\\right)"),
    (r"(?<!-)\\infty", r"+\\infty"),
    (r"\\pi", r"{\\pi}"),
    (r"(?<![A-Za-z\\])x(?![A-Za-z])", "{x}"),
)
CHANGES = (  # another value
    (r"\+", "-"),
    (r"-", "+"),
    (r"\\sqrt", ""),
    (r"\\pi", r"\\pi^2"),
    (r"(?<![A-Za-z\\])x(?![A-Za-z])", "X"),
    (r"(?<![A-Za-z\\])x(?![A-Za-z])", "y"),
    (r"(?<!\\left)\(", "["),
    (r"\\cup", r"\\cap"),
    (r"(?<!\d)2(?!\d)", "3"),
    (r"(?<!\d)1(?!\d)", "2"),
    (r"(?<![A-Za-z\\])i(?![A-Za-z])", "(-i)"),
    (r"$", r" \\text{ or } 7919"),
    (r"$", r" \\cdot 10^{-30}"),
)


def pairs(count: int) -> Iterator[tuple[str, str, str]]:
    """(kind, gold, answer), the same ones every time."""
    rng = random.Random(0)
    golds = [item.gold for suite in SUITES for item in load(*parse_suite(suite)).items]
    formulas = sorted({gold for gold in golds if grader.needs_algebra(gold)})
    rows = [json.loads(line) for line in Path(os.environ["ONELAYER_DATA"], "math500", "test.jsonl").read_text().splitlines()]
    solutions = [("own solution", row["answer"], grader.extract_answer(row["solution"]) or "") for row in rows]
    chosen = formulas + rng.sample(golds, count)
    found = solutions + [("itself", gold, gold) for gold in chosen[:800]]
    found += [("neighbour", gold, other) for gold, other in itertools.pairwise(chosen)][:1500]
    mutants = []
    for gold in chosen:
        mutants += [("other spelling", gold, re.sub(old, new, gold)) for old, new in SPELLINGS if re.search(old, gold)]
        mutants += [("other value", gold, re.sub(old, new, gold, count=1)) for old, new in CHANGES if re.search(old, gold)]
    yield from found + rng.sample(mutants, count - len(found))


def theirs(pair: tuple[str, str, str]) -> bool:
    """What math-verify says, with its defaults."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    _, gold, answer = pair
    return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--list", type=Path, metavar="OUT.jsonl")
    options = parser.parse_args()
    every = list(pairs(options.count))
    ours = grader.grade_many((f"\\boxed{{{answer}}}", gold) for _, gold, answer in every)
    with ProcessPoolExecutor(1) as pool:
        verified = list(pool.map(theirs, every, chunksize=50))
    counts, differences = Counter(), []
    for (kind, gold, answer), verdict, agreed in zip(every, ours, verified, strict=True):
        correct = verdict == "correct"
        counts[
            kind,
            "both correct" if correct and agreed else "neither" if not (correct or agreed) else "only ours" if correct else "only theirs",
        ] += 1
        if correct != agreed:
            differences.append({"kind": kind, "gold": gold, "answer": answer, "ours": str(verdict), "math-verify": agreed})
    for kind in sorted({kind for kind, _ in counts}):
        print(
            f"{kind:15}",
            ", ".join(f"{counts[kind, outcome]} {outcome}" for outcome in ("both correct", "neither", "only ours", "only theirs")),
        )
    print(f"{len(every)} pairs, {len(every) - len(differences)} agree, {len(differences)} differ")
    if options.list:
        options.list.write_text("".join(json.dumps(difference, ensure_ascii=False) + "\n" for difference in differences))


if __name__ == "__main__":
    main()
