"""Digests of a base that was loaded before: they are taken for the same files alone, and never for what is in memory at the end."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from onelayer.agents import digests, policy, tiny
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.policy import load_base
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.train import train


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_BYTES", 1)
    shutil.copytree(tiny.PATH, tmp_path / "model")
    return ModelConfig(path=str(tmp_path / "model"), device="cpu")


def records() -> list[Path]:
    return sorted(digests.directory().glob("*.json"))


def test_a_base_is_hashed_once_for_its_files(model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, hashed = [], policy.weight_hashes
    monkeypatch.setattr(policy, "weight_hashes", lambda *args: calls.append(1) or hashed(*args))
    first = load_base(model)
    assert load_base(model).hashes == first.hashes and len(calls) == len(records()) == 1
    assert load_base(model.model_copy(update={"quantization": "int8"})).fingerprint != first.fingerprint and len(calls) == 2
    weights = Path(model.path) / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert load_base(model).hashes == first.hashes and len(calls) == 3
    for record in records():
        record.write_text("{")
    assert load_base(model).hashes == first.hashes and len(calls) == 4
    monkeypatch.setattr(digests, "LEAST_BYTES", 2**40)
    load_base(model)
    assert len(calls) == 5


def test_a_wrong_record_voids_the_run(model: ModelConfig, tmp_path: Path) -> None:
    load_base(model)
    (record,) = records()
    found = json.loads(record.read_text())
    name = next(name for name in found if ".layers.0." in name)
    record.write_text(json.dumps({**found, name: "0" * 64}))
    trainer = TrainerConfig(trained_set="layer:3", steps=1, prompts_per_step=1, group_size=2)
    with pytest.raises(RuntimeError, match=r"changed 1 weights outside it.*layers\.0\."):
        train(Config(model=model, trainer=trainer, agent=AgentConfig(max_tokens=4)), tmp_path / "run")
