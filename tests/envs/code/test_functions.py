"""The procedural suite: the same tasks everywhere and always, right by their own solutions, splits that never meet."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer.envs import UserError, check_disjoint, load
from onelayer.envs.code import functions
from onelayer.envs.code.grader import check, grade
from onelayer.envs.code.problems import Calls, Problem
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig

DIGESTS = {
    "train": (4096, "32aeb63ef36454fd"),
    "validation": (512, "b39f264d7cb0c4d1"),
    "test": (512, "0259491cc27f9c1b"),
}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_items_are_fixed(split: str) -> None:
    """If this fails, results measured before are no longer comparable."""
    items = load(CodeConfig(), split)
    assert (len(items.items), items.digest[:16]) == DIGESTS[split]


def test_one_item_as_it_is() -> None:
    item = load(CodeConfig(), "test").items[0]
    assert (item.id, item.question, item.gold, item.meta["type"]) == (
        "functions/57f789dad298",
        "Write f(a, b): a minus b, then times 7.\nf(8, 16) == -56\nf(8, 8) == 0",
        "def f(a, b):\n    return (a - b) * 7",
        "arithmetic",
    )


def cases_of(problem: Problem) -> list[tuple[tuple, object]]:
    """Inputs with right outputs, the examples first."""
    assert isinstance(problem.tests, Calls) and problem.tests.expected is not None
    return list(zip(problem.tests.base + problem.tests.plus, problem.tests.expected, strict=True))


configurations = st.builds(CodeConfig, size=st.integers(1, 60), seed=st.integers(0, 10**6))


@settings(max_examples=15)
@given(configurations, configurations)
def test_splits_are_disjoint_and_solutions_pass(first: CodeConfig, second: CodeConfig) -> None:
    train, validation, test = load(first, "train"), load(second, "validation"), load(first.model_copy(update={"seed": second.seed}), "test")
    for a, b in ((train, validation), (train, test), (validation, test)):
        check_disjoint(a, b)
        assert not {item.gold for item in a.items} & {item.gold for item in b.items}
    problems = load_problems(first, "train")[1]
    assert len(train.items) == len(train.by_id) == first.size
    for item in random.Random(0).sample(train.items, min(5, len(train.items))):
        assert grade(f"```python\n{item.gold}\n```", problems[item.id]).verdict == "correct"


def test_the_same_function_is_the_same_item_under_every_seed() -> None:
    one, other = load(CodeConfig(size=2000), "train").by_id, load(CodeConfig(size=2000, seed=1), "train").by_id
    shared = one.keys() & other.keys()
    assert 50 < len(shared) < 2000
    assert {id: one[id] for id in shared} == {id: other[id] for id in shared}


def test_examples_are_right_and_tests_tell_functions_apart() -> None:
    split, problems = load_problems(CodeConfig(), "validation")
    assert {item.meta["type"] for item in split.items} == set(functions.FAMILIES)
    for item in split.items:
        cases = cases_of(problems[item.id])
        namespace: dict = {}
        exec(item.gold, namespace)
        for example in item.question.split("\n")[1:]:
            assert eval(example, namespace), item
        assert len({repr(args) for args, _ in cases}) == len(cases) >= 8, item
        assert len({repr(right) for _, right in cases}) > 1, item
        assert len(item.question) < 150, item


def test_another_function_of_the_family_does_not_pass() -> None:
    """Every pair of neighbours, judged in this process by the comparison alone."""
    split, problems = load_problems(CodeConfig(), "test")
    families: dict[object, list] = {}
    for item in split.items:
        families.setdefault(item.meta["type"], []).append(item)
    passed = []
    for items in families.values():
        for item, other in pairwise(items):
            namespace: dict = {}
            exec(other.gold, namespace)
            try:
                if all(namespace["f"](*args) == right for args, right in cases_of(problems[item.id])):
                    passed.append((item.gold, other.gold))
            except (TypeError, ZeroDivisionError):
                continue
    assert len(passed) <= 1, passed


def test_answers_by_heart_fail() -> None:
    """A program that knows the examples of the task's text fails the hidden tests."""
    _, problems = load_problems(CodeConfig(size=20), "train")
    for problem in problems.values():
        known = {repr(args): right for args, right in cases_of(problem)[: functions.EXAMPLES]}
        result = check(f"def f(*args):\n    return {known!r}.get(repr(args))", problem)
        assert (result.base, result.verdict) == ("correct", "wrong")
        assert result.failure is not None and result.failure.expected is None


def test_more_than_there_are() -> None:
    with pytest.raises(UserError, match=r"env\.size=100000, but test has \d+ functions"):
        load(CodeConfig(size=100_000), "test")
    with pytest.raises(UserError, match="functions has no split 'all'; it has test, validation, train"):
        load(CodeConfig(), "all")
