"""`onelayer grade math` on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.cli.grade import grade_math
from onelayer.envs.errors import UserError

LINES = [
    {"response": "\\boxed{12}", "gold": "12", "id": "a", "extra": {"kept": ["ü", 1.5]}},
    {"response": "\\boxed{x+x}", "gold": "2x", "verdict": "an older one"},
    {"response": "\\boxed{13}", "gold": 12},
    {"response": "no idea", "gold": "12"},
]


def write(path: Path, lines: list) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_verdicts_are_added_and_the_rest_passes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    grade_math(write(tmp_path / "in.jsonl", LINES), output)
    graded = [json.loads(line) for line in output.read_text().splitlines()]
    verdicts = ["correct", "correct", "wrong", "unparsed"]
    assert graded == [{**line, "verdict": verdict} for line, verdict in zip(LINES, verdicts, strict=True)]
    out = capsys.readouterr().out
    assert out.splitlines() == ["pass rate 0.5000 (95% interval 0.1500 to 0.8500)", "correct 2, wrong 1, unparsed 1, timeout 0, of 4"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ({"response": "12"}, ":2: no key 'gold'"),
        ({"gold": "12"}, ":2: no key 'response'"),
        ({"response": 12, "gold": "12"}, ":2: 'response' is no text"),
        ({"response": "12", "gold": "\\frac{"}, ":2: the gold answer"),
    ],
)
def test_a_broken_line_leaves_the_output_alone(tmp_path: Path, line: object, message: str) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("from before\n")
    with pytest.raises(UserError, match=message):
        grade_math(write(tmp_path / "in.jsonl", [LINES[0], line]), output)
    assert output.read_text() == "from before\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", LINES)
    for given, output, message in (
        (tmp_path / "none.jsonl", None, "No such file"),
        (write(tmp_path / "empty.jsonl", []), None, "the file is empty"),
        (source, source / "out.jsonl", "cannot be written"),
        (source, tmp_path, "cannot be written"),
    ):
        with pytest.raises(UserError, match=message):
            grade_math(given, output)
