"""A leaderboard run in one file: what it leaves, that nothing is done twice, and that a failure stops nobody else."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from e2e.commands import finish, message, onelayer, start, stop_when

from onelayer.cli.main import main
from onelayer.evals.records import MANIFEST, read_manifest
from onelayer.evals.samples import SAMPLES

TRAIN = ["train", "quickstart", "trainer.steps=1", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.trained_set=layer:1"]
BOARD = """
overrides: [eval.items=16, eval.n=2]
models:
  - model: tiny
    patches: [RUN]
  - model: ./nowhere
suites:
  - suite: GROUP
  - suite: functions
    overrides: [agent.max_tokens=32]
"""
GROUP = "groups: {sums: [arithmetic, arithmetic/validation]}\n"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    onelayer(*TRAIN, "--output", tmp_path / "run")
    (tmp_path / "group.yaml").write_text(GROUP)
    path = tmp_path / "board.yaml"
    path.write_text(BOARD.replace("RUN", str(tmp_path / "run")).replace("GROUP", str(tmp_path / "group.yaml")))
    return path


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob(SAMPLES)}


def test_models_patches_and_suites_are_measured_whatever_is_killed_or_fails(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    words = ["eval", "--file", str(board)]
    process = start(*words, "--output", one)
    stop_when(process, lambda: any(one.rglob(MANIFEST)), signal.SIGKILL)
    shown = finish(start(*words, "--output", one), 1)
    assert "6 done" in shown.stdout and "3 failed" in shown.stdout and f"onelayer leaderboard {one} --output" in shown.stdout
    assert shown.stderr.count("could not be done: model.path: no model './nowhere'") == 3
    made = files(one)
    policies = sorted(path.name for path in one.iterdir())
    assert len(made) == 6 and policies[0] == "tiny" and policies[1].startswith("tiny+") and policies[1].endswith("run")
    groups = json.loads((one / policies[1] / "suites.json").read_text())
    assert groups["groups"].keys() == {"sums"} and len(groups["suites"]) == 3
    manifest = read_manifest(one / policies[1] / "functions")
    assert (manifest.policy, manifest.max_tokens, manifest.trained[0].trained_set if manifest.trained[0] else "") == (
        "layer:1",
        32,
        "layer:1",
    )
    onelayer("eval", "--suite", "functions", "--items", 16, "--n", 2, "agent.max_tokens=32", "--output", tmp_path / "alone")
    assert made["tiny/functions/samples.parquet"] == (tmp_path / "alone" / SAMPLES).read_bytes()

    before = {path: path.stat().st_mtime_ns for path in one.rglob(SAMPLES)}
    board.write_text(board.read_text().replace("  - model: ./nowhere\n", ""))
    assert main([*words, "--output", str(one)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    assert main([*words, "--output", str(one), "--dry-run", "eval.n=3", "--json"]) == 0
    assert {task["state"] for task in json.loads(capsys.readouterr().out)["tasks"]} == {"begun"}  # more samples are wanted
    assert main([*words, "--output", str(one), "--dry-run"]) == 0
    assert "6 evaluations: 6 done" in capsys.readouterr().out

    onelayer(*words, "--output", two, "--parallel", 2, "--threads", 1)
    assert files(two) == made
    assert main(["leaderboard", str(one), "--output", str(tmp_path / "site")]) == 0
    tables = json.loads((tmp_path / "site" / "leaderboard.json").read_text())["tables"]
    sums = next(table for table in tables if "sums" in json.dumps([table["domain"], table["suite"]]) and table["items"])
    assert len(sums["entries"]) == 2


def test_the_board_that_ships_and_a_file_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = Path(__file__).parents[2] / "configs" / "boards" / "tiny.yaml"
    assert main(["eval", "--file", str(shipped), "--dry-run"]) == 0
    assert "4 to do" in capsys.readouterr().out and not Path("runs").exists()
    good = "models:\n  - model: tiny\nsuites:\n  - suite: arithmetic\n"
    for text, said in (
        (good.replace("model: tiny", "modell: tiny"), "board.yaml:2: unknown key models.0.modell"),
        (good.replace("suite: arithmetic", "overrides: []"), "board.yaml:4: suites.0.suite is missing"),
        (good.replace("tiny", "[tiny]"), "board.yaml:2: models.0.model is wrong"),
        ("", "a leaderboard run has models"),
        (good + "    overrides: [eval.m=1]\n", "board.yaml:4: override eval.m=1: unknown key eval.m"),
        (good.replace("tiny\n", "tiny\n    patches:\n      - runs/none\n"), "board.yaml:4: no patch runs/none"),
        (good.replace("tiny\n", "tiny\n  - model: tiny\n"), "board.yaml:3: a second policy called tiny"),
        (good + "  - suite: arithmetic\n", "board.yaml:5: arithmetic is named twice"),
        (good.replace("arithmetic", "lm-eval:arc"), "onelayer eval --suite lm-eval:arc"),
    ):
        Path("board.yaml").write_text(text)
        assert main(["eval", "--file", "board.yaml"]) == 2
        assert said in message(capsys.readouterr().err)
    for words, said in (
        ([], "give --suite NAME, or --file"),
        (["--file", "board.yaml", "--n", "2"], "leave out --n"),
        (["--suite", "arithmetic", "--dry-run"], "--dry-run is of a leaderboard run"),
        (["--file", "none.yaml"], "none.yaml: no such file"),
    ):
        assert main(["eval", *words]) == 2
        assert said in message(capsys.readouterr().err)
