"""A model's directory that others made is one line of refusal, before it takes memory or time; a good one is loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from onelayer.agents import tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.policy import load_base
from onelayer.common.errors import UserError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny.PATHS["tiny"], tmp_path / "model"))


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(model: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        load_base(ModelConfig(path=str(model), **options))
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"hidden_size": -1}, "hidden_size is '-1'"),
        ({"num_attention_heads": 0}, "num_attention_heads is '0'"),
        ({"vocab_size": 10**10}, "vocab_size is '10000000000'"),
        ({"hidden_size": "128"}, "hidden_size is '128'"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is '1000000'"),
        ({"vocab_size": 10**7}, "config.json describes 12"),  # 10**7 embeddings of 128 numbers
        ({"num_hidden_layers": 7, "layer_types": ["full_attention"] * 7}, "without 11 of the weights"),
        ({"eos_token_id": 2**40}, "eos_token_id"),
        ({"model_type": ["qwen3"]}, "TypeError"),
    ],
)
def test_a_configuration_that_is_not_that_of_the_weights(model: Path, values: dict[str, Any], reason: str) -> None:
    changed(model / "config.json", **values)
    assert reason in refusal(model)


def test_files_that_are_cut_or_of_another_kind(model: Path) -> None:
    weights = model / "model.safetensors"
    good = weights.read_bytes()
    for data in (good[: len(good) // 2], good + b"\0", b"", (2**62).to_bytes(8, "little") + good[8:], good[:8] + b"[" * len(good)):
        weights.write_bytes(data)
        assert "model.safetensors: cannot be read as safetensors" in refusal(model)
    weights.write_bytes(good)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text("{}")
    assert "KeyError" in refusal(model)
    (model / "tokenizer.json").write_text("[" * 100_000)
    assert "tokenizer.json: not JSON (nested too deeply)" in refusal(model)
    for normalizer in ({"type": "Prepend", "prepend": "0" * 10**7}, {"type": "Sequence", "normalizers": [{"content": "0" * 10**6}]}):
        (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": normalizer}))
        assert "tokenizer.json: puts more than 1000 characters" in refusal(model)
    (model / "tokenizer.json").unlink()
    os.mkfifo(model / "tokenizer.json")
    assert "tokenizer.json: no regular file" in refusal(model)


@pytest.mark.parametrize("name", ["../../dev/zero", "/dev/zero", "", "nowhere.safetensors", "zero"])
def test_an_index_names_files_beside_it(model: Path, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": name}}))
    assert "index.json: names" in refusal(model)
    (model / "zero").symlink_to("/dev/zero")
    assert "zero: no regular file" in refusal(model)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('never') }}", "TemplateError: never"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ 'a' * 10**8 }}", "100000000 characters"),
        ("{{ 'a' * 10**11 }}", "MemoryError"),
        ("{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x|length }}", "MemoryError"),
        ("", "makes nothing"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "took too long"),
        ("{% if messages|length > 1 %}{{ 'a' * 10**8 }}{% endif %}0", "100000001 characters"),
    ],
)
def test_a_chat_template_that_raises_or_does_not_end_or_makes_too_much(model: Path, template: str, reason: str) -> None:
    (model / "chat_template.jinja").write_text(template)
    assert "chat template" in (told := refusal(model)) and reason in told


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there(device: str) -> None:
    assert refusal(Path("tiny"), device=device).startswith(f"model.device: no device {device!r} here")


def test_a_directory_that_was_saved_is_loaded(model: Path) -> None:
    assert load_base(ModelConfig(path=str(model))).fingerprint == load_base(ModelConfig()).fingerprint


def test_tokens_that_the_model_does_not_know() -> None:
    base = load_base(ModelConfig())
    known = len(base.model.get_input_embeddings().weight)  # pyright: ignore[reportArgumentType]
    engine = TransformersEngine(base.model, base.end_ids)
    sampling = Sampling(max_tokens=2)
    assert len(list(engine.generate([Request((known - 1,), 0, sampling)]))) == 1
    with torch.inference_mode(), pytest.raises(UserError, match=f"token {known}, and the model knows {known}"):
        list(engine.generate([Request((1, known), 0, sampling)]))


@pytest.mark.parametrize(
    ("gpu", "given", "dtype"),
    [
        (True, {}, "bfloat16"),
        (True, {"device": "cpu"}, "float32"),
        (True, {"dtype": "float32"}, "float32"),
        (False, {}, "float32"),
        (False, {"device": "cuda:1"}, "bfloat16"),
    ],
)
def test_a_model_on_a_gpu_computes_in_bfloat16_unless_told_otherwise(
    gpu: bool, given: dict[str, str], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe holds the format, so that a run is measured and continued in it on another machine, too."""
    monkeypatch.setattr("onelayer.agents.config.sees_gpu", lambda: gpu)
    assert ModelConfig.model_validate(given).dtype == dtype
    assert json.loads(ModelConfig.model_validate(given).model_dump_json())["dtype"] == dtype
