"""A grader as they are often written: the candidate's code runs in the grader's own process, and what that prints is the verdict.

Run as a program, it reads {"source", "entry_point", "cases": [{"given", "expected"}]} from standard input. It isolates nothing.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys


def compare(value: object, expected: object) -> bool:
    return value == expected


def grade(source: str, entry_point: str, cases: list[dict]) -> bool:
    namespace: dict = {}
    exec(source, namespace)
    verdicts = []
    for case in cases:
        given, expected = case["given"], case["expected"]
        value = namespace[entry_point](*given)
        with contextlib.suppress(Exception):
            value = pickle.loads(pickle.dumps(value))  # as if it came from another process
        verdicts.append(compare(value, expected))
    return all(verdicts)


if __name__ == "__main__":
    request = json.load(sys.stdin)
    try:
        passed = grade(request["source"], request["entry_point"], request["cases"])
    except Exception:
        passed = False
    print(json.dumps({"passed": passed}))
