"""`onelayer env`: what a person does with environments in a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from onelayer.cli.main import main
from onelayer.envs.graded import GradedEnv


def run(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(list(map(str, words))) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.out + captured.err


def test_a_person_plays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    item = "functions/" + run(capsys, "env", "play", "functions", "--gold").partition("[functions/")[2].partition("]")[0]
    monkeypatch.setattr(sys, "stdin", io.StringIO("<<<\ndef f(*a):\n    return None\n>>>\n"))
    shown = run(capsys, "env", "play", "functions", "--item", item)
    assert "Write f(" in shown and shown.endswith("not solved, reward 0, wrong\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    told = run(capsys, "env", "play", "arithmetic")
    assert told.endswith("not solved, reward 0\n")
    assert re.search(r"An action that solves another item:\n\\boxed\{-?\d+\}\ngold:\n\\boxed\{-?\d+\}\n", told)
    assert "solved, reward 1, correct" in run(capsys, "env", "play", "arithmetic", "--gold")


@pytest.mark.parametrize(("name", "more"), [("riddles", []), ("guess_it", ["--turns"])])
def test_a_new_environment_keeps_the_contract(
    name: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run(capsys, "env", "new", name, *more)
    assert sorted(path.name for path in Path(name).iterdir()) == sorted([f"{name}.py", f"test_{name}.py", "pyproject.toml"])
    monkeypatch.syspath_prepend(str(tmp_path / name))
    (command,) = [line.split()[1:] for line in shown.splitlines() if "env check" in line]
    assert "keeps the contract" in run(capsys, *command)
    assert "not empty" in run(capsys, "env", "new", name, code=2)


def test_a_grader_has_options_and_tells_parts_of_its_reward() -> None:
    def items(split: str, most: int = 3) -> list[dict[str, object]]:
        return [{"question": f"{n}?", "answer": n} for n in range(most)]

    def grade(response: str, item: dict[str, object], bonus: float = 0.0) -> tuple[float, dict[str, float]]:
        return float(response == str(item["answer"])) * (1 - bonus) + bonus, {"bonus": bonus}

    env = GradedEnv(items, grade, "test", most=5, bonus=0.25)
    assert len(env.items) == 5
    env.reset(options={"item": "test/4"})
    _, reward, *_, info = env.step("3")
    assert (reward, info) == (0.25, {"item": "test/4", "gold": "4", "metrics": {"bonus": 0.25}})
    with pytest.raises(TypeError, match="neither items nor grade has a parameter bonsu"):
        GradedEnv(items, grade, bonsu=1)


def test_a_failing_check_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "env", "check", "broken_environments:broken/WrongGold-v0", code=1)
    assert "FAILED gold" in shown and shown.endswith("1 check failed\n")


def test_a_line_of_a_file_is_named_and_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`:100:` is an emoji to rich, `[b]` its markup, and an escape sequence an order to the terminal."""
    path = tmp_path / "[b] \x1b[2J.jsonl"
    path.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n' * 99 + "broken\n")
    shown = run(capsys, "env", "check", path, code=1)
    assert ".jsonl:100: " in shown and "\U0001f4af" not in shown and "[b] " in shown and "\x1b" not in shown


def test_an_environment_that_ends_its_process_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(capsys, "env", "check", "broken_environments:broken/Quits-v0", code=1)
    assert "FAILED text         raised SystemExit: so there (broken_environments.py:" in shown
    assert "ended its process (exit code 7)" in run(capsys, "env", "check", "broken_environments:broken/EndsItsProcess-v0", code=1)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    shown = run(capsys, "env", "play", "broken_environments:broken/Quits-v0", code=2)
    assert "it ended its process (SystemExit: so there (broken_environments.py:" in shown
    for words in (["env", "play"], ["eval", "--suite"]):
        shown = run(capsys, *words, "broken_environments:broken/QuitsWhenMade-v0", code=2)
        assert "it ends the process when it is made (SystemExit (broken_environments.py:" in shown


@pytest.mark.alfworld
@pytest.mark.parametrize(("rule", "shown"), [("false", "played as: look\n"), ("true", "Nothing happens.\n")])
def test_a_command_in_another_spelling_is_shown_as_what_was_played(
    rule: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Look.\nlook\n"))
    printed = run(capsys, "env", "play", "alfworld", f"env.strict={rule}")
    assert shown in printed and printed.count("played as") == (rule == "false")


@pytest.mark.alfworld
def test_games_are_generated_and_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "games"
    shown = run(capsys, "env", "generate", "alfworld", "--out", out, "--train", 3, "--valid", 2)
    assert shown.startswith(f"{out}: 3 train, 2 valid_seen, 2 valid_unseen\n")
    games = list(out.rglob("game.tw-pddl"))
    assert len(games) == 7 and all(json.loads(game.read_text())["walkthrough"] for game in games)
    monkeypatch.setenv("ALFWORLD_DATA", str(out))
    assert "solved, reward 1, correct" in run(capsys, "env", "play", "alfworld-official/valid_unseen", "--gold")
    assert "not empty" in run(capsys, "env", "generate", "alfworld", "--out", out, code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("env play nowhere", "no suite 'nowhere'"),
        ("env play arithmetic --item x", "no item 'x' among the 512 of this split; the nearest id is"),
        ("env play nomodule:a/B-v0", "nomodule: cannot be imported"),
        ("env play json:a/B-v0", "json:a/B-v0: Gymnasium does not make it"),
        ("env play reasoning_gym:rubiks_cube", "reasoning_gym:rubiks_cube: refused, because its items have no answer"),
        ("env play reasoning_gym:chain_sums", "no such task; did you mean chain_sum?"),
        ("env play functions env.max_turn=2", "unknown key env.max_turn; did you mean env.max_turns?"),
        ("env new Riddles", "'Riddles' cannot name a package"),
        ("env generate chess --out x", "chess: no games to generate"),
        ("env check", "Missing argument 'ENV'"),
    ],
)
def test_mistakes_are_answered_in_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in run(capsys, *words.split(), code=2)


def test_baselines_play_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("eval", "--suite", "functions", "--items", 6, "--n", 1, "env.max_turns=2", "pool.workers=0")
    run(capsys, *words, "--baseline", "gold", "--output", tmp_path / "gold")
    manifest = json.loads((tmp_path / "gold" / "evaluation.json").read_text())
    assert (manifest["policy"], manifest["sampled"]["pass_rate"]["mean"], manifest["cost"]["tokens"]) == ("gold", 1.0, 0)
    assert "names no admissible actions" in run(capsys, *words, "--baseline", "random", "--output", tmp_path / "random", code=2)
