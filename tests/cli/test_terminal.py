"""What others wrote reaches no terminal as a command: names, versions and errors are shown with their control characters written out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_evaluation, outcomes
from rich.table import Table

from onelayer.cli import main as cli
from onelayer.cli.terminal import escaping
from onelayer.common.console import Console

EVIL = "a\x1b[2J\x1b]0;owned\x07\r\u202egpj.exe\u2066\x9b1m\x08z"
HARMLESS = "a\\x1b[2J"


def harmless(text: str) -> bool:
    return HARMLESS in text and not any(mark in text for mark in "\x1b\x07\r\u202e\u2066\x9b\x08")


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with escaping():
        print(EVIL, "\tfine\n")
        sys.stdout.writelines([EVIL, "\n"])
    printed = capsys.readouterr().out
    assert harmless(printed)
    assert "\tfine\n" in printed


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_keep_their_own_colours_only(terminal: bool) -> None:
    found = io.StringIO()
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL, style="bold")
    console = Console(file=found, force_terminal=terminal, width=200)
    console.print(table)
    console.print(EVIL, markup=False)
    text = found.getvalue()
    for own in ("\x1b[1m", "\x1b[3m", "\x1b[0m", "\x1b[1;3m"):
        assert terminal or own not in text
        text = text.replace(own, "")
    text = re.sub(r"\x1b\[[\d;]*m(?!\x1b\[2J)", "", text) if terminal else text
    assert harmless(text)


PROGRAM = """
import logging, sys, warnings
from rich.progress import Progress
from onelayer.cli.terminal import escaping
from onelayer.common.console import Console

with escaping(), Progress(console=Console(stderr=True)) as progress:
    task = progress.add_task("at work", total=2)
    progress.advance(task)
    progress.refresh()
    logging.getLogger("any").warning("of a step: %s", sys.argv[1])
    warnings.warn(sys.argv[1])
    print(sys.argv[1], file=sys.stderr)
    progress.advance(task)
"""


def test_what_is_said_while_a_progress_bar_is_drawn() -> None:
    """On a terminal the bar keeps its control sequences, and a warning has a line of its own, without any."""
    terminal, end = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", PROGRAM, EVIL], stdin=end, stdout=end, stderr=end, env=os.environ | {"TERM": "xterm"})
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    assert done.wait() == 0
    text = shown.decode()
    assert "at work" in text and "100%" in text
    for start in ("\r\x1b[2Kof a step: ", "UserWarning: ", "\r\x1b[2K"):
        assert start + HARMLESS in text
    own = re.sub(r"\x1b\[[\d;]*m|\r\x1b\[2K|\x1b\[\?25[lh]|\r\n", "", text)
    assert harmless(own), repr(own)


def test_all_text_for_a_terminal_goes_through_one_console() -> None:
    """rich writes to the stream itself, so any other console of it would be a way round."""
    package = Path(cli.__file__).parents[1]
    for path in package.glob("*/**/*.py"):
        if path.name not in ("console.py", "terminal.py"):
            assert not re.search(r"rich\.console import .*\bConsole\b|rich import print|get_console", path.read_text()), path


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """Runs, evaluations, data and models whose names, versions, items and texts hold control characters."""
    place = tmp_path / EVIL
    samples = outcomes(0.5, 1, items=4, samples=2)
    told = {"policy": EVIL, "model": EVIL, "split": f"{EVIL}/test", "versions": {EVIL: EVIL}, "git_commit": EVIL, "finished": EVIL}
    make_evaluation(place / "base", samples, **told)
    make_evaluation(place / "odd", samples, **told)
    (place / "odd" / "samples.parquet").write_bytes(b"")
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text('{"name": "\\u001b[2J\\u202e", "schema_version": "\\u001b[31m"}')
    (place / "run" / "config.yaml").write_text(json.dumps({"env": {"suite": EVIL}, "trainer": {"lr": EVIL}}))
    (place / "own.jsonl").write_text("".join(json.dumps({"id": f"{n}{EVIL}", "question": EVIL, "answer": "2"}) + "\n" for n in range(20)))
    (place / "bad.jsonl").write_text(json.dumps({EVIL: EVIL, "response": EVIL}) + "\n")
    (place / "pairs.jsonl").write_text(json.dumps({"response": EVIL, "gold": "2"}) + "\n")
    (place / "theirs.jsonl").write_text("".join(json.dumps({"item": f"{n}{EVIL}", "response": EVIL}) + "\n" for n in range(20)))
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text(json.dumps({"model_type": EVIL, "hidden_size": EVIL}))
    (place / "journal").mkdir()
    (place / "journal" / "journal.jsonl").write_text(json.dumps({"key": EVIL}) + "\n")
    return place


COMMANDS = [
    "train --resume {}/run",
    "train quickstart trainer.trained_set=EVIL",
    "train quickstart env.suite={}/own.jsonl eval.suite={}/own.jsonl/all",
    "train quickstart model.path={}/model",
    "train EVIL=EVIL",
    "study {}/run/config.yaml",
    "study quickstart study.trained_sets=[EVIL]",
    "eval --suite {}/own.jsonl/all --items 2 --n 1 agent.max_tokens=4 --output {}/new",
    "eval --suite {}/own.jsonl/all --items 2 --responses {}/theirs.jsonl --output {}/answered",
    "eval --suite {}/own.jsonl/all --responses {}/bad.jsonl",
    "eval --suite {}/bad.jsonl",
    "eval --suite EVIL",
    "eval --suite arithmetic --model {}/model",
    "eval --suite arithmetic --patch {}/own.jsonl",
    "eval --suite arithmetic --items 2 --n 1 --output {}/journal agent.max_tokens=4",
    "compare {}/base {}/base",
    "compare {}/base {}/odd",
    "compare {}/run",
    "leaderboard {} --output {}/page",
    "runs list {}",
    "runs show {}/base",
    "runs show {}/run",
    "runs diff {}/base {}/run",
    "runs diff {}/base {}/odd",
    "runs delete {}/base --yes",
    "verify {}/base",
    "verify {}/own.jsonl",
    "submit {}/base --output {}/new.tar",
    "export --run {}/run --output {}/model",
    "view {}/nowhere",
    "env check EVIL",
    "env check {}/bad.jsonl",
    "env play {}/bad.jsonl",
    "env new EVIL",
    "grade math --input {}/pairs.jsonl --output {}/pairs.jsonl/new",
    "grade math --input {}/bad.jsonl",
    "grade code --suite {}/own.jsonl --input {}/bad.jsonl",
    "EVIL",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_verb_prints_what_a_terminal_would_obey(
    command: str, evil: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(evil)
    code = cli.main([word.replace("{}", str(evil)).replace("EVIL", EVIL) for word in command.split()])
    out, err = capfd.readouterr()
    for text in (out, err):
        assert not any(mark in text for mark in "\x1b\x07\r\u202e\u2066\x9b\x08"), repr(text)
    assert code in (0, 1, 2) and "a\\x1b[2J" in out + err, repr(out + err)
