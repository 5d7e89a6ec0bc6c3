"""`onelayer grade math` and `onelayer grade code` on real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.cli.grade import grade_code, grade_math
from onelayer.common.errors import UserError

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
        ({"response": 12, "gold": "12"}, ":2: 'response' is not text"),
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


def solutions(tmp_path: Path) -> Path:
    """A suite of two tasks in EvalPlus's format."""
    rows = [
        {"task_id": "T/0", "prompt": 'def f(a):\n    """Double a."""\n', "entry_point": "f", "canonical_solution": "    return a * 2\n"},
        {"task_id": "T/1", "prompt": '"""\nNegate a.\n"""\n', "entry_point": "g", "canonical_solution": "def g(a):\n    return -a\n"},
    ]
    tests = {"base_input": [[1], [3]], "plus_input": [[2.5], [0]], "atol": 0}
    return write(tmp_path / "suite.jsonl", [{**row, **tests} for row in rows])


RIGHT = {"task_id": "T/0", "completion": "    return a + a\n", "extra": ["ü"]}
HALF = {"task_id": "T/0", "solution": "def f(a):\n    return int(a) * 2", "base": "an older one"}
RAISES = {"task_id": "T/1", "solution": "\ud800"}


def test_code_samples_are_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    grade_code(write(tmp_path / "in.jsonl", [RIGHT, HALF, RAISES]), str(solutions(tmp_path)), output)
    graded = [json.loads(line) for line in output.read_bytes().decode("utf-8", "surrogatepass").splitlines()]
    verdicts = [("correct", "correct"), ("correct", "wrong"), ("raised", "raised")]
    assert graded == [{**line, "base": base, "plus": plus} for line, (base, plus) in zip([RIGHT, HALF, RAISES], verdicts, strict=True)]
    assert capsys.readouterr().out.splitlines() == [
        "base pass@1 0.5000 (95% interval 0.0015 to 0.9985)",
        "plus pass@1 0.2500 (95% interval 0.0012 to 0.9897)",
        "base: correct 2, wrong 0, raised 1, timeout 0, memory 0, crashed 0, output 0, of 3",
        "plus: correct 1, wrong 1, raised 1, timeout 0, memory 0, crashed 0, output 0, of 3",
    ]


def test_tasks_without_samples_are_named_and_not_solved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grade_code(write(tmp_path / "in.jsonl", [RIGHT] * 10), str(solutions(tmp_path)))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines[:4]] == [
        "base pass@1 0.5000",
        "base pass@10 0.5000",
        "plus pass@1 0.5000",
        "plus pass@10 0.5000",
    ]
    assert lines[-1] == "no samples for 1 of 2 tasks, which count as not solved: T/1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON"),
        ({"solution": ""}, ":2: no key 'task_id'"),
        ({"task_id": 1, "solution": ""}, ":2: 'task_id' is not text"),
        ({"task_id": "T/7", "solution": ""}, r":2: no task 'T/7' in .*suite.jsonl; the nearest is 'T/\d'"),
        ({"task_id": "T/1"}, ":2: neither 'solution' nor 'completion'"),
        ({"task_id": "T/1", "solution": ["x"]}, ":2: 'solution' is not text"),
    ],
)
def test_a_broken_sample_leaves_the_output_alone(tmp_path: Path, line: object, message: str) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("from before\n")
    with pytest.raises(UserError, match=message):
        grade_code(write(tmp_path / "in.jsonl", [RIGHT, line]), str(solutions(tmp_path)), output)
    assert output.read_text() == "from before\n"


def test_a_line_may_hold_the_tolerance_and_the_unit_of_its_gold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"response": "\\boxed{3.149}", "gold": "3.14", "precision": 0.01},
        {"response": "\\boxed{3.149}", "gold": "3.14", "precision": None},
        {"response": "\\boxed{2.9\\times10^{16}}", "gold": 2.88e16, "relative": 0.05},
        {"response": "\\boxed{12xyz}", "gold": "12", "unit": "xyz"},
    ]
    output = tmp_path / "out.jsonl"
    grade_math(write(tmp_path / "in.jsonl", lines), output)
    assert [json.loads(line)["verdict"] for line in output.read_text().splitlines()] == ["correct", "wrong", "correct", "correct"]
    for wrong in ({"precision": 0}, {"relative": "much"}, {"unit": 3}):
        with pytest.raises(UserError, match=rf"in\.jsonl:1: '{next(iter(wrong))}'"):
            grade_math(write(tmp_path / "in.jsonl", [lines[0] | {"precision": None} | wrong]), output)
