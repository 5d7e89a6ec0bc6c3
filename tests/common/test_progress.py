"""Progress where no bar can be drawn, tables that a terminal is too narrow for, and text without a terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from onelayer.common import progress
from onelayer.common.console import Console, Table


def test_without_a_terminal_each_step_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("layer:3", 5, done=3) as shown:
        for note in ("reward 0.1", "reward 0.2\x1b[2J"):
            shown.note(note)
            shown.advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("layer:3  4/5  reward 0.1  0:00:0") and first.endswith(" left")
    assert second == "layer:3  5/5  reward 0.2\\x1b[2J  0:00:00 left"


def test_many_steps_within_an_interval_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("base", 100, every=60) as shown:
        for _ in range(100):
            shown.advance()
    assert capsys.readouterr().err == "base  100/100  0:00:00 left\n"


def test_silence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_shown", True)
    progress.show(False)
    with progress.progress("base", 2) as shown:
        shown.advance()
    progress.say("run 1 of 2")
    assert capsys.readouterr().err == ""


CELL = st.text("0123456789.[]", min_size=1, max_size=16)


@given(st.lists(st.lists(CELL, min_size=5, max_size=5), min_size=1, max_size=4), st.integers(40, 120))
def test_a_narrow_terminal_shows_every_figure_in_full(rows: list[list[str]], width: int) -> None:
    found = io.StringIO()
    table = Table(title="All")
    table.add_column("policy", no_wrap=True)
    for number in range(5):
        table.add_column(f"f{number}", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(Text(f"p{number}"), *map(Text, row))
    Console(file=found, force_terminal=True, width=width, color_system=None).print(table)
    lines = found.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = found.getvalue().replace("│", " ").replace("┃", " ").split()
    assert "All" in words and "\u2026" not in found.getvalue()
    for number, row in enumerate(rows):
        assert f"p{number}" in words and not set(row) - set(words)


def test_without_a_terminal_nothing_is_broken_into_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    found = io.StringIO()
    table = Table("policy", *(f"column {number}" for number in range(30)))
    table.add_row(*(["0.123456789"] * 31))
    Console(file=found).print(table, Text("word " * 100))
    assert found.getvalue().count("0.123456789") == 31
    assert [len(line.split()) for line in found.getvalue().splitlines()][-1] == 100
