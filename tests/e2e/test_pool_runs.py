"""Runs on environments that crash and hang: a few are dropped and told of, many stop the run with the reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from e2e.commands import ENVIRONMENT, finish, lines, message, start

RECIPE = """
env: {{id: "flaky:tests/Flaky-v0", options: {{counter: {counter}, every: {every}}}}}
pool: {{workers: 2, step_seconds: 3}}
agent: {{max_tokens: 8}}
trainer: {{steps: 4, prompts_per_step: 8, group_size: 8, trained_set: "layer:3", checkpoint_every: 1000}}
"""


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(Path(__file__).parents[1]))


def begin(directory: Path, every: int) -> subprocess.Popen[str]:
    """A run of which every n-th play fails."""
    directory.mkdir()
    (directory / "flaky.yaml").write_text(RECIPE.format(counter=directory / "counter", every=every))
    return start("train", directory / "flaky.yaml", "--output", directory / "run")


def test_two_in_a_hundred_are_dropped_and_ten_stop_the_run(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    processes = begin(few, 50), begin(many, 10)

    shown = finish(processes[0])
    dropped = [line["dropped"] for line in lines(few / "run" / "metrics.jsonl")]
    manifest = json.loads((few / "run" / "run.json").read_text())
    assert len(dropped) == 4 and 4 <= sum(dropped) <= 8
    assert manifest["dropped"] == sum(dropped)
    assert f"{sum(dropped):.0f} episodes in all were dropped" in shown.stderr
    for reason in ("no answer within 3 s, item train-", "the process ended itself with exit code 1, item train-"):
        assert reason in shown.stderr
    assert shown.stdout == f"{few / 'run' / 'patch.safetensors'}\n"

    said = message(finish(processes[1], 2).stderr)
    assert "environments failed in 8 of the last" in said and "more than 5%" in said
    assert "first: " in said and "item train-" in said
    assert said.endswith(f"then continue with: onelayer train --resume {many / 'run'}")
    assert (many / "run" / "checkpoint.pt").exists() and not (many / "run" / "patch.safetensors").exists()

    (many / "counter.mended").touch()
    assert finish(start("train", "--resume", many / "run")).stdout == f"{many / 'run' / 'patch.safetensors'}\n"
    assert [line["step"] for line in lines(many / "run" / "metrics.jsonl")] == [0, 1, 2, 3]
