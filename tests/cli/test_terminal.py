"""What others wrote reaches no terminal as a command: names, versions and errors are shown with their control characters written out."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.table import Table

from onelayer.cli import main as cli
from onelayer.cli.console import Console
from onelayer.cli.terminal import escaping

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


@pytest.mark.parametrize(
    "words",
    [
        ["runs", "list", "{}"],
        ["runs", "show", "{}/" + EVIL],
        ["runs", "show", "{}/broken"],
        ["leaderboard", "{}"],
        ["compare", "{}/" + EVIL],
    ],
)
def test_verbs(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (EVIL, "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"name": "\\u001b[2J\\u202e", "version": "\\u001b[31m"}')
    cli.main([word.replace("{}", str(tmp_path)) for word in words])
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not any(mark in text for mark in "\x1b\x07\r\u202e\u2066\x9b\x08"), repr(text)
    assert out + err
