"""`onelayer env check` passes what keeps the contract and says of everything else what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.envs import check as checks
from onelayer.envs import check_process, make, parse_suite


def findings(env: str) -> dict[str, checks.Finding]:
    return {finding.name: finding for finding in checks.check(*parse_suite(env), items=5)}


def failures(env: str) -> dict[str, str]:
    return {name: finding.message for name, finding in findings(env).items() if finding.ok is False}


@pytest.mark.parametrize(
    "env",
    ["broken/Good-v0", "broken/OneTurn-v0", "broken/LastNumber-v0", "arithmetic", "functions", "reasoning_gym:chain_sum"],
)
def test_environments_that_keep_the_contract_pass(env: str) -> None:
    env = f"broken_environments:{env}" if env.startswith("broken") else env
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
        ("InfoIsNoData", "text", "item n25: info cannot be written as JSON"),
        ("Hangs", "text", "it did not come to an end within 1 seconds"),
        ("Quits", "text", "raised SystemExit: so there (broken_environments.py:"),
        ("QuitsOnEmpty", "bad actions", "an action that is empty raises SystemExit: 3 (broken_environments.py:"),
        ("QuitsWhenMade", "items", "it ends the process when it is made (SystemExit (broken_environments.py:"),
        ("RaisesCancelled", "text", "raised CancelledError (broken_environments.py:"),
        ("TimesOut", "text", "raised TimeoutError: no answer from the server (broken_environments.py:"),
        (
            "DefaultCharset",
            "gymnasium",
            "item n25: the observation has ' ' (U+0020 SPACE), which is not in the charset of observation_space; take",
        ),
        (
            "Umlaut",
            "gymnasium",
            "has 'ö' (U+00F6 LATIN SMALL LETTER O WITH DIAERESIS), which is not in the charset of observation_space; take",
        ),
        ("ShortSpace", "gymnasium", "an observation of 9 characters is longer than the max_length=5 of observation_space"),
        ("PaysEmpty", "hacks", "an action that is empty earns 0.1 on item n25"),
        ("PaysEcho", "hacks", "the prompt itself as the action earns 0.3 on item n25 (5 of 5 items)"),
        ("PaysLists", "hacks", "5 answers at once, the right one among them, earn 1 on item n25 (5 of 5 items); take one answer, not all"),
        ("PaysListsInPart", "hacks", "5 answers at once, the right one among them, earn 0.5 on item n25 (5 of 5 items)"),
        ("PaysForm", "hacks", "an action that is '\\\\boxed{}', repeated earns 0.2 on item n25; pay what is right, not its form"),
    ],
)
def test_a_broken_environment_fails_with_the_reason(broken: str, check: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "SECONDS", 1 if broken == "Hangs" else 60)
    (failed,) = failures(f"broken_environments:broken/{broken}-v0").items()
    assert failed[0] == check and reason in failed[1], "one fault is one failure"


def test_a_math_file_is_sound_whatever_its_answers_are(tmp_path: Path) -> None:
    """No action that is called bad is right by accident: a `2` among control characters is."""
    golds = ["1+1", "2", "0", "7", "31", "x", "X", "e", "J", "m", r"\frac{1}{2}", "0.5", "i", r"\text{A}", "1,2", "(1,2)", r"\pi", "[0,1)"]
    rows = [{"question": f"Question {chr(97 + at)}: which one?", "answer": gold} for at, gold in enumerate(golds)]
    (tmp_path / "golds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = parse_suite(str(tmp_path / "golds.jsonl"))
    found = list(checks.check(*suite))
    assert not [finding for finding in found if finding.ok is False]
    assert {finding.name for finding in found if finding.ok} >= {"bad actions", "hacks", "gold"}
    env = make(*suite)
    for item in env.get_wrapper_attr("items"):
        for name, action in checks.BAD_ACTIONS.items():
            env.reset(options={"item": item})
            assert env.step(action)[1] == 0, (item, name)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("EndsItsProcess", "the environment ended its process (exit code 7); let it raise an error instead"),
        ("Crashes", "the environment ended its process (SIGSEGV); let it raise an error instead"),
        ("Deaf", "it did not come to an end within 1 seconds, and could not be interrupted"),
    ],
)
def test_what_ends_the_process_is_a_finding(broken: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_process, "GRACE", 15)
    found = list(check_process.check_apart(*parse_suite(f"broken_environments:broken/{broken}-v0"), items=5, seconds=1))
    assert [(finding.name, finding.message) for finding in found if finding.ok is False] == [("text", reason)]
    assert [finding.name for finding in found] == list(checks.CHECKS)


def test_what_an_environment_prints_is_counted_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    *found, output = check_process.check_apart(*parse_suite("broken_environments:broken/Prints-v0"), items=2)
    assert [finding.name for finding in found] == list(checks.CHECKS) and not [finding for finding in found if finding.ok is False]
    assert output.name == "output" and output.ok is None and "lines during the checks, first: 'grading \\x1b[2J:100:" in output.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("task", ["boxnet", "coin_flip", "codeio", "game_of_life_halting", "prime_factorization"])
def test_tasks_of_reasoning_gym_that_are_broken_are_refused_by_name(task: str) -> None:
    assert f"reasoning_gym:{task}: refused, because" in failures(f"reasoning_gym:{task}")["items"]
