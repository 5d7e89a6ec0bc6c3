"""A prompt of one's own from a file: the run keeps its text, and every model is asked with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from e2e.commands import replies

from onelayer.agents.prompts import default_prompt
from onelayer.cli.main import main

TEXT = "Work it out: {observation}\nThe answer is a number, in \\boxed{{}}."
SMALL = ["trainer.steps=1", "trainer.prompts_per_step=2", "trainer.group_size=2"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts").mkdir()
    Path("prompts/mine.txt").write_text(f"{TEXT}\n")  # as editors end a file
    Path("recipe.yaml").write_text("agent:\n  max_tokens: 8\n  prompt:\n    file: prompts/mine.txt\n")


def resolved(path: str) -> str | None:
    return yaml.safe_load(Path(path).read_text())["agent"]["prompt"]


@pytest.mark.parametrize(
    ("words", "prompt"),
    [
        ("recipe.yaml", TEXT),
        ("quickstart agent.prompt.file=prompts/mine.txt", TEXT),
        ("quickstart agent.prompt=Q:{observation} agent.prompt.file=prompts/mine.txt", TEXT),
        ("recipe.yaml agent.prompt=Q:{observation}", "Q:{observation}"),
        ("recipe.yaml agent.prompt=null", None),
    ],
)
def test_the_last_prompt_wins(words: str, prompt: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words.split(), "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["agent"]["prompt"] == prompt


def test_a_run_keeps_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "recipe.yaml", *SMALL, "--output", "run"]) == 1  # so small a run has nothing to learn from
    Path("prompts/mine.txt").write_text("Something else: {observation}")
    Path("run/run.json").unlink()  # as if it had been stopped
    assert main(["train", "--resume", "run"]) == 1
    assert resolved("run/config.yaml") == json.loads(Path("run/run.json").read_text())["config"]["agent"]["prompt"] == TEXT
    capsys.readouterr()
    assert main(["train", "recipe.yaml", *SMALL, "--dry-run"]) == 0
    assert "Something else" in capsys.readouterr().out


def test_an_evaluation_asks_with_it_and_says_so() -> None:
    words = ["eval", "--suite", "arithmetic", "--items", "2", "--n", "1", "agent.max_tokens=8"]
    assert main([*words, "agent.prompt.file=prompts/mine.txt", "--output", "mine"]) == 0
    assert main([*words, f"agent.prompt={json.dumps(TEXT)}", "--output", "text"]) == 0
    assert main([*words, "--output", "default"]) == 0
    prompts = {name: json.loads(Path(name, "evaluation.json").read_text())["prompt"] for name in ("mine", "text", "default")}
    assert prompts == {"mine": TEXT, "text": TEXT, "default": default_prompt("onelayer/Math-v0")}
    answers = {name: replies(Path(name), "greedy") for name in prompts}
    assert answers["mine"] == answers["text"] != answers["default"]
