"""Adapters from the command line: training, a kill, evaluation, export, and a study where one model serves all sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.commands import dies_at, lines, onelayer, replies

from onelayer.agents import patch
from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import load_base, weight_hashes
from onelayer.cli.main import main
from onelayer.trainers import train as training
from onelayer.trainers.config import Config
from onelayer.trainers.manifest import complete_manifest

SIZES = ["trainer.steps=3", "trainer.prompts_per_step=2", "trainer.group_size=4", "trainer.checkpoint_every=1"]
TRAIN = ["train", "quickstart", *SIZES, "trainer.lr=3e-3", "trainer.trained_set=lora:4", "trainer.kl_coef=0.01", "trainer.epochs=2"]
EVALUATION = ["eval", "--suite", "arithmetic", "--items", "8", "--n", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of adapters and its evaluation."""
    root = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, "--output", str(root / "run")]) == 0
    assert main([*EVALUATION, "--patch", str(root / "run" / "patch.safetensors"), "--output", str(root / "run" / "test")]) == 0
    return root


def test_a_killed_run_ends_in_the_same_bytes(root: Path, tmp_path: Path) -> None:
    dies_at("checkpoint.pt", "after", *TRAIN, "--output", tmp_path / "run")
    dies_at("patch.safetensors", "before", "train", "--resume", tmp_path / "run")
    onelayer("train", "--resume", tmp_path / "run")
    assert (tmp_path / "run" / "patch.safetensors").read_bytes() == (root / "run" / "patch.safetensors").read_bytes()


def test_the_exported_model_is_the_policy_that_the_patch_makes(root: Path, tmp_path: Path) -> None:
    assert main(["export", "--run", str(root / "run"), "--output", str(tmp_path / "model")]) == 0
    assert main([*EVALUATION, "--model", str(tmp_path / "model"), "--output", str(tmp_path / "exported")]) == 0
    assert main([*EVALUATION, "--output", str(tmp_path / "base")]) == 0
    assert replies(root / "run" / "test") == replies(tmp_path / "exported") != replies(tmp_path / "base")


def test_the_manifest_and_the_patch_tell_of_the_factors(root: Path) -> None:
    manifest, header = complete_manifest(root / "run"), patch.read_header(root / "run" / "patch.safetensors")
    assert manifest.trained_set == header.trained_set == "lora:4"
    assert manifest.trained_parameters == sum(rows * columns for rows, columns in header.shapes.values()) == 61_440
    assert manifest.total_parameters == 1_411_072
    assert (root / "run" / "patch.safetensors").stat().st_size < 4.2 * manifest.trained_parameters


def test_a_study_trains_adapters_beside_other_sets_on_one_model(tmp_path: Path) -> None:
    """What is trained after adapters is what it is without them."""
    few = [*SIZES, "eval.items=8", "eval.n=1", "study.lr_grid=[1e-3]", "study.base_samples=2"]
    sets = "study.trained_sets=[lora:4,lora:2@layer:3,layer:3]"
    assert main(["study", "quickstart", *few, sets, "--output", str(tmp_path / "study")]) == 0
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert {"lora:4", "lora:2@layer:3", "layer:3"} <= {arm["name"] for arm in report["arms"]}
    alone = ["train", "quickstart", *SIZES, "trainer.lr=1e-3", "trainer.trained_set=layer:3", "--output", str(tmp_path / "alone")]
    assert main(alone) == 0
    (among,) = (tmp_path / "study" / "layer-3").glob("*/patch.safetensors")
    assert among.read_bytes() == (tmp_path / "alone" / "patch.safetensors").read_bytes()


def test_a_run_leaves_the_model_as_it_was_and_says_what_it_cost(tmp_path: Path) -> None:
    settings = {"trained_set": "lora:4@layer:3", "steps": 1, "prompts_per_step": 2, "group_size": 4}
    config = Config.model_validate({"env": {"id": "onelayer/Math-v0", "suite": "arithmetic"}, "trainer": settings})
    prepared = training.prepare(config, ["lora:4@layer:3"])
    modules = [id(module) for module in prepared.base.model.modules()]
    training.train(config, tmp_path / "run", prepared=prepared)
    assert [id(module) for module in prepared.base.model.modules()] == modules
    assert weight_hashes(prepared.base.model) == prepared.base.hashes == load_base(ModelConfig()).hashes
    assert len(lines(tmp_path / "run" / "metrics.jsonl")) == 1 and (complete_manifest(tmp_path / "run").cost.flops or 0) > 0
