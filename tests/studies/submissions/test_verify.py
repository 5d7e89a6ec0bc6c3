"""`onelayer verify`: a submission from its making to its mark, and suites, rules and responses of other origins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from forged_submissions import LAYER, as_right, member, replaced, rewrite, seal, tar

from onelayer.cli.main import main
from onelayer.envs import load
from onelayer.envs.config import MathConfig
from onelayer.studies.leaderboard.marks import Mark, mark_of
from onelayer.studies.store import PATCH


def test_a_suite_that_is_named_here_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = load(MathConfig(), "test").items[:40]
    lines = "".join(json.dumps({"question": item.question, "answer": item.gold}) + "\n" for item in items)
    (tmp_path / "mine.jsonl").write_text(lines)
    suite = str(tmp_path / "mine.jsonl")
    assert main(["eval", "--suite", f"{suite}/all", "--items", "4", "--n", "1", "--output", str(tmp_path / "runs")]) == 0
    assert main(["submit", str(tmp_path / "runs"), "--output", str(tmp_path / "mine.tar")]) == 0
    assert main(["verify", str(tmp_path / "mine.tar")]) == 2
    assert "give --suite" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "mine.tar"), "--suite", suite]) == 0


def test_a_submission_is_verified_unpacked_and_shown_with_its_mark(
    archive: Path, opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "site-runs" / "theirs"
    assert main(["verify", str(archive), "--regenerate", "3", "--seed", "1", "--unpack", str(theirs)]) == 0
    shown = capsys.readouterr().out
    assert "--seed 1" in shown and shown.count("6 made again with the same tokens: regenerated") == 2
    assert {mark_of(theirs / name) for name in ("evaluation-0", LAYER)} == {Mark.REGENERATED}
    assert main(["verify", str(theirs)]) == 0  # a weaker look takes no mark away
    assert mark_of(theirs / LAYER) is Mark.REGENERATED
    assert main(["leaderboard", str(tmp_path / "site-runs"), "--output", str(tmp_path / "site")]) == 0
    board = json.loads((tmp_path / "site/leaderboard.json").read_text())
    (table,) = [table for table in board["tables"] if table["suite"] == "arithmetic/test"]
    assert {entry["trained_set"]: entry["mark"] for entry in table["entries"]} == {"base": "regenerated", "layer:3": "regenerated"}
    assert board["left_out"] == []

    rewrite(opened / LAYER, as_right)
    seal(opened)
    tar(tmp_path / "bad.tar", [member(p.relative_to(opened).as_posix(), p.read_bytes()) for p in sorted(opened.rglob("*")) if p.is_file()])
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "bad.tar"), "--unpack", str(tmp_path / "refused")]) == 2
    assert "evaluation-1: graded otherwise: arithmetic/" in capsys.readouterr().err and not (tmp_path / "refused").exists()
    assert main(["verify", str(opened), "--model", "tiny"]) == 2
    assert mark_of(opened / LAYER) is Mark.UNVERIFIED and mark_of(opened / "evaluation-0") is Mark.CHECKED
    assert not [path for path in tmp_path.rglob(".verify-*")]


def test_a_rule_and_a_file_of_responses_are_graded_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = ["eval", "--suite", "arithmetic", "--items", "4", "--n", "1"]
    items = load(MathConfig(), "test").items[:4]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps({"item": i.id, "response": f"\\boxed{{{i.gold}}}"}) + "\n" for i in items))
    assert main([*suite, "--baseline", "gold", "--output", str(tmp_path / "runs/gold")]) == 0
    assert main([*suite, "--responses", str(tmp_path / "theirs.jsonl"), "--output", str(tmp_path / "runs/theirs")]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "runs"), "--regenerate", "2"]) == 0
    assert capsys.readouterr().out.count("8 samples graded again: checked") == 2
    rewrite(
        tmp_path / "runs/theirs",
        lambda rows: replaced(rows, 0, steps=[rows[0].steps[0].model_copy(update={"response": "0", "action": "0"})]),
    )
    assert main(["verify", str(tmp_path / "runs/theirs")]) == 2
    assert "graded otherwise" in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["random:500", "lora:2@layer:3"])
def test_a_set_that_is_not_made_of_whole_weights_is_verified(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["trainer.steps=1", "trainer.prompts_per_step=2", "trainer.group_size=2", f"trainer.trained_set={spec}"]
    assert main(["train", "quickstart", *few, "--output", str(tmp_path / "runs")]) == 0
    suite = ["eval", "--suite", "arithmetic", "--items", "4", "--n", "1"]
    assert main([*suite, "--patch", str(tmp_path / "runs" / PATCH), "--output", str(tmp_path / "runs/test")]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "runs"), "--regenerate", "1"]) == 0
    assert "made again with the same tokens: regenerated" in capsys.readouterr().out
