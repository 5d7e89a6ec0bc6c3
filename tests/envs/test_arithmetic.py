"""Procedural arithmetic: the same items everywhere and always, and splits that never meet."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer.envs import MathConfig, UserError, check_disjoint, load
from onelayer.envs.math import arithmetic

DIGESTS = {
    "train": (4096, "7e35711cfb116f98"),
    "validation": (512, "7c82a82101830bae"),
    "test": (512, "f26fbf8e935c17f6"),
}


@pytest.mark.parametrize("split", DIGESTS)
def test_the_items_are_fixed(split: str) -> None:
    """If this fails, results measured before are no longer comparable."""
    items = load(MathConfig(), split)
    assert (len(items.items), items.digest[:16]) == DIGESTS[split]


def test_one_item_as_it_is() -> None:
    item = load(MathConfig(), "test").items[0]
    assert (item.id, item.question, item.gold) == ("arithmetic/c09bb2980f99", "What is 28 + 17 + 35 - 35?", "45")


configurations = st.builds(MathConfig, size=st.integers(1, 300), difficulty=st.integers(2, 12), seed=st.integers(0, 10**6))


@settings(max_examples=25, deadline=None)
@given(configurations, configurations)
def test_splits_are_disjoint_whatever_the_configuration(first: MathConfig, second: MathConfig) -> None:
    splits = [load(first, "train"), load(second, "validation"), load(first.model_copy(update={"seed": second.seed}), "test")]
    for train, evaluation in ((0, 1), (0, 2), (1, 2)):
        check_disjoint(splits[train], splits[evaluation])
    for split, size in zip(splits, (first.size, second.size, first.size), strict=True):
        assert len(split.items) == len(split.by_id) == size
    for item in splits[0].items:
        assert str(eval(item.question.removeprefix("What is ").removesuffix("?"))) == item.gold


@pytest.mark.parametrize("difficulty", [1, 2])
def test_every_problem_is_counted(difficulty: int) -> None:
    assert arithmetic.existing(difficulty) == len(set(arithmetic.every_expression(difficulty)))


def test_more_than_there_are() -> None:
    with pytest.raises(UserError, match="has 1505 arithmetic problems"):
        load(MathConfig(size=1506, difficulty=1), "train")
    assert len(load(MathConfig(size=1505, difficulty=1), "train").items) == len(load(MathConfig(difficulty=1), "train").items) == 1505
