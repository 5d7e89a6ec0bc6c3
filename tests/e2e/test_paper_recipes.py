"""The recipes of the paper's set-up (configs/paper): each is read, planned without its model and items, and run for two steps with a
random model of the same family, two layers deep, on small invented files in the columns of its data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from onelayer.agents import tiny
from onelayer.agents.shapes import SHAPES
from onelayer.cli.config import RECIPES, load
from onelayer.cli.main import main
from onelayer.cli.sketch import of_outline
from onelayer.envs.alfworld import sources as games
from onelayer.trainers.metrics import read_metrics

NAMES = sorted(file.stem for file in (RECIPES / "paper").glob("*.yaml"))
SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"head_dim": 8, "vocab_size": 1024, "max_position_embeddings": 2048}
SHRUNKEN = ["model.dtype=float32", "agent.engine=transformers", "agent.kv_cache_gib=0.01", "agent.max_prompt=900", "agent.max_tokens=6"]
SHRUNKEN += [
    "trainer.steps=2",
    "trainer.prompts_per_step=2",
    "trainer.group_size=2",
    "trainer.minibatches=2",
    "trainer.trained_set=layer:1",
]
SHRUNKEN += ["trainer.tokens_per_forward=1024"]

SKYWORK = {"data_source": "train-math", "ability": "math", "extra_info": {"index": 0}}
MATH_ROWS = {
    "numinamath": lambda n: {
        "source": "cn_k12",
        "problem": f"What is {n} + 1?",
        "solution": f"It is $\\boxed{{{n + 1}}}$.",
        "messages": [],
    },
    "deepscaler": lambda n: {"problem": f"What is {n} + 1?", "answer": str(n + 1), "solution": ""},
    "math": lambda n: {"problem": f"What is {n} + 1?", "level": "Level 1", "type": "Algebra", "solution": f"$\\boxed{{{n + 1}}}$"},
    "skywork": lambda n: {
        **SKYWORK,
        "prompt": [{"role": "user", "content": f"What is {n} + 1?"}],
        "reward_model": {"ground_truth": json.dumps([str(n + 1)]), "style": "rule"},
    },
}
"""A row of each training set, in its published columns (tests/envs/test_math_columns.py cites them)."""


def deepcoder_row(n: int) -> dict[str, Any]:
    tests = [{"type": "stdin_stdout", "input": f"{n}\n", "output": f"{n + 1}\n"}]
    return {"problem": f"Read a number and print it plus {n}.", "solutions": [f"print(int(input()) + {n})"], "tests": json.dumps(tests)}


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Invented files under ONELAYER_DATA, and games under ALFWORLD_DATA."""
    folder = tmp_path / "data"
    for suite, row in MATH_ROWS.items():
        write(folder / suite / "train.jsonl", [row(n) for n in range(30)])
    for suite in ("math500", "aime24"):
        write(folder / suite / "test.jsonl", [{"problem": f"What is {n} - 1?", "answer": str(n - 1)} for n in range(4)])
    write(folder / "deepcoder.jsonl", [deepcoder_row(n) for n in range(30)])
    monkeypatch.setenv("ONELAYER_DATA", str(folder))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "games"))
    return folder


def random_base(folder: Path, hub_name: str) -> Path:
    """A model of the family that the hub name is of, with random weights and the tokenizer of the tiny base."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(replace(SHAPES[hub_name], **SMALL).config())
    model.config.eos_token_id = model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny.PATH).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.alfworld] if name.endswith("alfworld") else []) for name in NAMES])
def test_two_steps_with_a_small_random_model_of_the_family(name: str, data: Path, tmp_path: Path) -> None:
    config = load(f"paper/{name}")
    words = [f"model.path={random_base(tmp_path / 'model', config.model.path)}", *SHRUNKEN]
    if name.endswith("alfworld"):
        games.generate(tmp_path / "games", {"train": 6, "valid_seen": 2}, scene="small")
        words += ["env.max_steps=2", "pool.workers=0", "trainer.minibatches=1"]
    if name.endswith("deepcoder"):  # from a file in place of the hub
        words += [f"env.suite={data / 'deepcoder.jsonl'}", "eval.suite=null", "pool.workers=0"]
    assert main(["train", f"paper/{name}", *words, "--output", str(tmp_path / "run"), "-q"]) in (0, 1)  # 1: no reply was right
    steps = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert len(steps) == 2 and (tmp_path / "run" / "patch.safetensors").is_file()
    assert all(step.kl is not None for step in steps) == (config.trainer.kl_coef > 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_planned_without_its_model_and_items(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape is the table's, and what the paper fixes is in the recipe."""
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    config = load(f"paper/{name}")
    assert config.study.lr_grid == [1e-6, 3e-6, 5e-6, 1e-5] and config.study.layer_lr == 5e-6
    found = of_outline(config, ["full", *config.study.trained_sets])
    scanned = {"qwen2.5-1.5b-alfworld": 8, "qwen2.5-3b-alfworld": 11, "deepseek-7b-skywork": 8}  # the others: all
    assert len(found.sets) == 1 + scanned.get(name, SHAPES[config.model.path].num_hidden_layers)
    assert found.prompt.tokens == config.agent.max_prompt and found.prompt.text is None
    shape, items, prompt = found.missing
    assert "the package's table of shapes" in shape and "not at hand" in items and "not tokenised" in prompt
    assert found.config.agent.reply_length + found.prompt.tokens <= SHAPES[config.model.path].max_position_embeddings


def test_a_dry_run_without_model_and_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    words = ["study.trained_sets=[layer:26]", "agent.max_tokens=64", "agent.max_prompt=64", "trainer.tokens_per_forward=256"]
    assert main(["study", "paper/qwen3-1.7b-numina", *words, "--dry-run", "-q"]) == 0
    said = capsys.readouterr().out
    assert "Qwen/Qwen3-1.7B-Base, 1,720,574,976 parameters" in said and "50,336,000" in said
    assert "The model is not loaded: its shape is that of the package's table of shapes" in said
    assert "numinamath/train.jsonl" in said and "The first prompt" not in said
    assert main(["study", "paper/qwen3-1.7b-numina", "--dry-run", "--measure"]) == 2
    assert "--measure" in capsys.readouterr().err
