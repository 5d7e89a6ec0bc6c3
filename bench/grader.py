"""How fast the math grader is: verdicts per second on the fast path and through the workers, and the price of hostile responses.

python bench/grader.py            # the figures that need MATH-500 are left out without ONELAYER_DATA
"""

from __future__ import annotations

import json
import os
import random
import runpy
import time
from collections import Counter
from pathlib import Path

from onelayer.envs import load, parse_suite
from onelayer.envs.math import grader, workers

HOSTILE = runpy.run_path(str(Path(__file__).parents[1] / "tests" / "envs" / "hostile.py"))


def fast_path(count: int = 20_000) -> None:
    """Responses as the tiny model writes them, half of them right, no two alike; then spellings that need reading."""
    rng = random.Random(0)
    spellings = ["{0}", "{0:,}", "\\${0}", "{0}.0", "{0}\\text{{ miles}}", "\\frac{{{0}}}{{1}}", "{0} apples", "x = {0}"]
    arithmetic, spelled = [], []
    for _ in range(count):
        a, b, c = rng.randrange(100), rng.randrange(100), rng.randrange(10**6)
        arithmetic.append((f"{a}+{b}={a + b}\n{a + b}-8={a + b - 8}\n\\boxed{{{a + b - rng.choice((8, 9))}}}", str(a + b - 8)))
        spelled.append((f"So the answer is \\boxed{{{rng.choice(spellings).format(c)}}}.", str(c + rng.randrange(2))))
    for name, pairs in (("arithmetic", arithmetic), ("other spellings", spelled)):
        started = time.perf_counter()
        verdicts = Counter(grader.grade(*pair) for pair in pairs)
        print(f"fast path, {name}: {count / (time.perf_counter() - started):,.0f} verdicts/s on one thread ({_counts(verdicts)})")


def math500() -> None:
    """Each solution against its own gold; then each gold against the one before it (a few are equal), and every formula with itself."""
    rows = [json.loads(line) for line in Path(os.environ["ONELAYER_DATA"], "math500", "test.jsonl").read_text().splitlines()]
    items = load(*parse_suite("math500")).items
    own = [(row["solution"], item.gold) for row, item in zip(rows, items, strict=True)]
    other = [(f"\\boxed{{{items[at - 1].gold}}}", item.gold) for at, item in enumerate(items)]
    workers.check(["formula", "x"], ["formula", "x"])
    for name, pairs in (("own solutions", own), ("the gold before", other)):
        before = grader._symbolic.cache_info().misses
        started = time.perf_counter()
        verdicts = Counter(grader.grade_many(pairs))
        seconds, checks = time.perf_counter() - started, grader._symbolic.cache_info().misses - before
        print(
            f"MATH-500, {name}: {len(pairs) / seconds:,.0f} verdicts/s, {checks} of {len(pairs)} through the workers ({_counts(verdicts)})"
        )
    golds = [grader.read(grader.normalise(item.gold)) for item in items if grader.needs_algebra(item.gold)]
    started = time.perf_counter()
    verdicts = Counter(workers.check(gold, gold) for gold in golds)
    rate = len(golds) / (time.perf_counter() - started)
    print(f"MATH-500, {len(golds)} formulas with themselves, one worker at a time: {rate:,.0f} checks/s ({_counts(verdicts)})")


def hostile() -> None:
    """The caller's wall time of each hostile response, against the gold that makes it dearest."""
    workers.check(["formula", "x"], ["formula", "x"])
    times = {}
    for name, response in HOSTILE["HOSTILE"].items():
        for gold in HOSTILE["GOLDS"]:
            started = time.perf_counter()
            verdict = grader.grade(response, gold)
            times.setdefault(name, []).append(((time.perf_counter() - started) * 1000, str(verdict), gold))
    for name, found in sorted(times.items(), key=lambda pair: -max(pair[1])[0]):
        milliseconds, verdict, gold = max(found)
        print(f"{milliseconds:8.2f} ms  {verdict:9} {name} (gold {gold})")
    every = [verdict for found in times.values() for _, verdict, _ in found]
    slowest = max(max(found)[0] for found in times.values())
    print(f"hostile: {len(times)} responses x {len(HOSTILE['GOLDS'])} golds, {every.count('correct')} correct, at most {slowest:.1f} ms")


def _counts(verdicts: Counter) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())


if __name__ == "__main__":
    fast_path()
    if os.environ.get("ONELAYER_DATA"):
        math500()
    hostile()
