"""docs/other-trainers.md with TRL itself: one layer by `only`, everything, and a LoRA; imported, their sets proven, evaluated and ranked.

These tests need TRL, and run with `make test-trl`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trl  # pyright: ignore[reportMissingImports]  # noqa: F401 (an environment without it is told so at once)
from e2e.commands import ENVIRONMENT

from onelayer.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "one_layer_trl.py"
SETS = {"layer:3": "layer:3", "full": "full", "lora:4": "lora:4"}
MOVING = """
import sys
import trl
from transformers import TrainerCallback

class MovesANorm(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **rest):
        model.model.norm.weight.data.mul_(1.001)

made = trl.GRPOTrainer.__init__
def with_another(self, *args, callbacks=(), **rest):
    made(self, *args, callbacks=[*callbacks, MovesANorm()], **rest)
trl.GRPOTrainer.__init__ = with_another
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The example, with a trainer that also moves the last norm in each step."""


def train(output: Path, *arguments: str, program: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *program, str(EXAMPLE), *arguments, "--steps", "2", "--prompts", "2", "--output", str(output)]
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trl")
    evaluation = ["eval", "--suite", "arithmetic", "--items", "8", "--n", "1"]
    assert main([*evaluation, "--output", str(root / "runs" / "base")]) == 0
    for name in SETS:
        run = train(root / name, "--set", name)
        assert run.returncode == 0, run.stderr
        patch = str(root / "runs" / name / "patch.safetensors")
        assert main(["import", "--base", "tiny", "--model", str(root / name), "--claims", name, "--note", "TRL", "--output", patch]) == 0
        assert main([*evaluation, "--patch", patch, "--output", str(root / "runs" / name / "test")]) == 0
    return root


def test_all_three_are_ranked_as_trained_elsewhere_in_the_sets_that_were_claimed(root: Path) -> None:
    assert main(["leaderboard", str(root / "runs"), "--output", str(root / "site")]) == 0
    board = json.loads((root / "site" / "leaderboard.json").read_text())
    entries = [entry for table in board["tables"] if table["items"] for entry in table["entries"]]
    ranked = {entry["elsewhere"][0]["trained_set"]: entry for entry in entries if entry["elsewhere"]}
    assert ranked.keys() == set(SETS) and len(entries) == 1 + len(SETS)
    assert all(entry["algorithm"] == "trained elsewhere" and entry["sampled"]["rank"] for entry in ranked.values())


def test_a_full_run_does_not_pass_for_one_layer(root: Path, tmp_path: Path) -> None:
    claim = ["--claims", "layer:3", "--output", str(tmp_path / "patch.safetensors")]
    assert main(["import", "--base", "tiny", "--model", str(root / "full"), *claim]) == 1


def test_a_trainer_that_moves_a_norm_too_is_stopped_by_the_callback(tmp_path: Path) -> None:
    run = train(tmp_path / "model", "--set", "layer:3", program=("-c", MOVING))
    assert run.returncode != 0 and "1 of the" in run.stderr and "moved, too: model.norm.weight" in run.stderr
