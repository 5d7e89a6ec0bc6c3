"""examples/one_layer.py computes what the trainer computes."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoTokenizer

from onelayer.agents import tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.agents.policy import load_base
from onelayer.agents.trained_sets import select
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.learner import Learner
from onelayer.trainers.rows import make_rows
from onelayer.trainers.train import advantages

PATH = Path(__file__).parents[1] / "examples" / "one_layer.py"
LAYER = 3


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_layer", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "one_layer", module)
    spec.loader.exec_module(module)
    return module


def test_its_first_gradient_is_the_trainers_on_the_same_rows(example: ModuleType) -> None:
    config = Config(trainer=TrainerConfig(trained_set=f"layer:{LAYER}"), model=ModelConfig(path="tiny", device="cpu"))
    base, tokenizer = load_base(config.model), AutoTokenizer.from_pretrained(tiny.PATH)
    torch.manual_seed(0)
    batch = example.rollout(base.model, tokenizer, example.items(6, seed=0), example.G)
    assert 0 < batch.rewards.mean() < 1

    parameters = example.select(base.model, LAYER)
    example.loss(base.model, batch).backward()
    theirs = [parameter.grad.clone() for parameter in parameters]
    base.model.zero_grad()

    episodes = []
    for at, (ids, mask, reward) in enumerate(zip(batch.ids, batch.mask.bool(), batch.rewards, strict=True)):
        prompt, reply = (ids[part][mask[part]].tolist() for part in (slice(batch.prompt_length), slice(batch.prompt_length, None)))
        step = Step(prompt, reply, [0.0] * len(reply), "", "", float(reward), False, {})
        episodes.append(Episode(at, Play("", at // example.G, at), [step]))
    learner = Learner(base.model, select(base.model, f"layer:{LAYER}"), config)
    learner.optimizer.step = lambda: 0.0
    learner.update(make_rows(episodes, advantages(episodes, config.trainer), config.trainer, example.REPLY))
    ours = [parameter.grad for parameter in learner.trained.parameters.values()]
    assert {id(parameter) for parameter in parameters} == {id(parameter) for parameter in learner.trained.parameters.values()}
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine is not None and (mine - its).abs().max() <= 1e-5
    assert largest > 1e-3  # there is something to compare


def test_it_prints_the_contribution_of_the_layer(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"STEPS": 2, "PROMPTS": 4, "HELD_OUT": 8}.items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(sys, "argv", ["one_layer.py", "--layer", "2"])
    example.main()
    shown = capsys.readouterr().out
    assert all(f"S({name}) = 0." in shown for name in ("base", "full", "layer 2"))
    assert "C(2) = (S_k - S_base) / (S_full - S_base) = " in shown or "no C(2)" in shown


def test_it_needs_nothing_of_the_package_and_can_be_read_in_ten_minutes() -> None:
    source = PATH.read_text()
    imported = {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"torch", "transformers"}
    assert len(source.splitlines()) <= 220
