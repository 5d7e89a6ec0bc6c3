"""`onelayer env check` passes what keeps the contract and says of everything else what is wrong with it."""

from __future__ import annotations

import pytest

from onelayer.envs import check as checks
from onelayer.envs import parse_suite


def findings(env: str) -> dict[str, checks.Finding]:
    return {finding.name: finding for finding in checks.check(*parse_suite(env), items=5)}


def failures(env: str) -> dict[str, str]:
    return {name: finding.message for name, finding in findings(env).items() if finding.ok is False}


@pytest.mark.parametrize("env", ["broken_environments:broken/Good-v0", "arithmetic", "functions", "reasoning_gym:chain_sum"])
def test_environments_that_keep_the_contract_pass(env: str) -> None:
    found = findings(env)
    assert not failures(env)
    assert all(found[name].ok for name in checks.CHECKS)


@pytest.mark.alfworld
def test_alfworld_keeps_the_contract() -> None:
    assert not failures("alfworld")


@pytest.mark.parametrize(
    ("broken", "check", "reason"),
    [
        ("AnotherStart", "item", "item n25 starts differently with another seed"),
        ("NotDeterministic", "determinism", "the same actions in another instance give another observation at step 1"),
        ("NoItems", "items", "it has no attribute `items`"),
        ("OtherItemsEachTime", "items", "made twice, it enumerates different items"),
        ("SharedBetweenSplits", "splits", "20 of the 20 items of train are also in validation"),
        ("TooMuchReward", "rewards", "item n25: reward 1 at step 2, 2 in all"),
        ("NotANumber", "rewards", "item n25: reward nan at step 1"),
        ("RaisesOnEmpty", "bad actions", "an action that is empty raises IndexError"),
        ("IgnoresTheItem", "item", "asked for item n27, it plays n25"),
        ("UnknownItemIsAnother", "item", "an item that does not exist is not refused"),
        ("WrongGold", "gold", "item n25: the gold actions earn 0 and do not solve it"),
        ("NotText", "text", "item n25: the observation is a list"),
        ("NeverEnds", "end", "an episode goes on after 10000 steps"),
        ("PassesAnything", "bad actions", "an action that is empty solves item n25"),
        ("Leaks", "determinism", "give another observation at step 1"),
        ("InfoIsNoData", "text", "item n25: info can not be written as JSON"),
        ("Hangs", "end", "it did not come to an end within 1 seconds"),
    ],
)
def test_a_broken_environment_fails_with_the_reason(broken: str, check: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SECONDS", 1 if broken == "Hangs" else 60)
    assert reason in failures(f"broken_environments:broken/{broken}-v0")[check]


@pytest.mark.parametrize("task", ["boxnet", "coin_flip", "codeio", "game_of_life_halting", "prime_factorization"])
def test_tasks_of_reasoning_gym_that_are_broken_are_refused_by_name(task: str) -> None:
    assert f"reasoning_gym:{task}: refused, because" in failures(f"reasoning_gym:{task}")["items"]
