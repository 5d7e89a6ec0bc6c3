"""`onelayer grade math` as a user pipes it."""

from __future__ import annotations

import json
from pathlib import Path

from e2e.commands import message, onelayer

LINES = [
    {"id": 1, "response": "so it is \\boxed{\\frac{1}{2}}", "gold": "0.5"},
    {"id": 2, "response": "The answer is 12.", "gold": 13},
    {"id": 3, "response": "I give up", "gold": "x^2"},
]


def test_responses_are_graded(tmp_path: Path) -> None:
    responses, graded = tmp_path / "responses.jsonl", tmp_path / "new" / "graded.jsonl"
    responses.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    shown = onelayer("grade", "math", "--input", responses, "--output", graded).stdout
    assert shown.splitlines() == ["pass rate 0.3333 (95% interval 0.0615 to 0.7923)", "correct 1, wrong 1, unparsed 1, timeout 0, of 3"]
    verdicts = ["correct", "wrong", "unparsed"]
    assert [json.loads(line) for line in graded.read_text().splitlines()] == [
        {**line, "verdict": verdict} for line, verdict in zip(LINES, verdicts, strict=True)
    ]
    with responses.open("a") as file:
        file.write("{\n")
    assert f"{responses}:4: not JSON" in message(onelayer("grade", "math", "--input", responses, code=2).stderr)
