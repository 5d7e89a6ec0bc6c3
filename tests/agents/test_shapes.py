"""The shapes of models that are not loaded: against the published numbers of parameters, and against a model that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from onelayer.agents import tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import load_base
from onelayer.agents.shapes import SHAPES, is_at_hand, outline
from onelayer.common.errors import UserError

PUBLISHED = {  # billions of parameters, on the cards of the models; a head that is tied to the embeddings counts once
    "Qwen/Qwen3-1.7B-Base": 1.72,
    "Qwen/Qwen3-4B-Base": 4.02,
    "Qwen/Qwen3-8B-Base": 8.19,
    "Qwen/Qwen2.5-Math-1.5B": 1.54,
    "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-3B-Instruct": 3.09,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7.62,
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_published_number_of_parameters(name: str) -> None:
    found = outline(ModelConfig(path=name, dtype="bfloat16"))
    assert sum(parameter.numel() for parameter in found.model.parameters()) / 1e9 == pytest.approx(PUBLISHED[name], abs=0.005)
    assert {parameter.device.type for parameter in found.model.parameters()} == {"meta"}
    assert found.source == "the package's table of shapes" and not is_at_hand(ModelConfig(path=name))


def test_the_outline_of_a_model_is_its_shape() -> None:
    loaded, found = load_base(ModelConfig()).model, outline(ModelConfig())
    assert {name: weight.shape for name, weight in found.model.named_parameters()} == {
        name: weight.shape for name, weight in loaded.named_parameters()
    }
    assert found.tokenizer and found.source == str(tiny.PATH)


def test_what_has_no_shape_is_refused(tmp_path: Path) -> None:
    for path in ("nobody/has-this-model", str(tmp_path / "nothing")):
        with pytest.raises(UserError, match=r"model\.path"):
            outline(ModelConfig(path=path))
