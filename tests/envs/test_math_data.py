"""The published problem sets, under ONELAYER_DATA."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from onelayer.envs import check_disjoint, load, parse_suite
from onelayer.envs.math.grader import Verdict, grade_many, normalise
from onelayer.envs.math.numerals import number

pytestmark = pytest.mark.data

SIZES = {
    "gsm8k/train": 6695,
    "gsm8k/validation": 778,
    "gsm8k": 1319,
    "math/train": 6760,
    "math/validation": 738,
    "math500": 500,
    "aime24": 30,
    "aime25": 30,
    "amc23": 40,
}


def rows(suite: str) -> list[dict]:
    return [json.loads(line) for line in Path(os.environ["ONELAYER_DATA"], suite, "test.jsonl").read_text().splitlines()]


def test_all_suites_load() -> None:
    assert {suite: len(load(*parse_suite(suite)).items) for suite in SIZES} == SIZES


@pytest.mark.parametrize(
    ("train", "evaluation"),
    [("gsm8k/train", "gsm8k"), ("gsm8k/train", "gsm8k/validation"), ("math/train", "math500"), ("math/train", "math/validation")],
)
def test_training_data_is_disjoint_from_evaluation_data(train: str, evaluation: str) -> None:
    check_disjoint(load(*parse_suite(train)), load(*parse_suite(evaluation)))


@pytest.mark.parametrize(("suite", "solution"), [("math500", "solution"), ("gsm8k", "answer")])
def test_every_gold_agrees_with_its_solution(suite: str, solution: str) -> None:
    items = load(*parse_suite(suite)).items
    verdicts = grade_many([(row[solution], item.gold) for row, item in zip(rows(suite), items, strict=True)])
    assert [item.id for item, verdict in zip(items, verdicts, strict=True) if verdict is not Verdict.CORRECT] == []


@pytest.mark.parametrize("suite", ["math500", "gsm8k"])
def test_no_gold_agrees_with_a_neighbour(suite: str) -> None:
    """Against the next item's gold that differs, where x=5 and 5 do not differ."""
    golds = [item.gold for item in load(*parse_suite(suite)).items]

    def value(gold: str) -> object:
        plain = normalise(gold).removeprefix("x=")
        found = number(plain)
        return plain if found is None else found

    pairs = []
    for at, gold in enumerate(golds):
        other = next(other for other in golds[at + 1 :] + golds[:at] if value(other) != value(gold))
        pairs.append((f"\\boxed{{{other}}}", gold))
    assert [pair for pair, verdict in zip(pairs, grade_many(pairs), strict=True) if verdict is Verdict.CORRECT] == []
