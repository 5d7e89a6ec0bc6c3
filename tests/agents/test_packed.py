"""A quantised base: packed weights compute what the unpacked ones do, only what is trained is unpacked, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import random_base
from reference_update import assert_equal, sampled_rows
from transformers import AutoModelForCausalLM

from onelayer.agents import patch
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.packed import PackedWeight, quantise, unpack, unpacked, weight_bytes
from onelayer.agents.policy import Base, load_base, weight_hashes
from onelayer.agents.trained_sets import select
from onelayer.common.errors import UserError
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.estimate import estimate
from onelayer.trainers.learner import Learner
from onelayer.trainers.train import train

IDS = torch.arange(3, 40)[None]


def quantised(family: str) -> tuple[Base, Base]:
    """A base with packed weights, and the same one unpacked."""
    base, plain = random_base(family), random_base(family)
    quantise(base.model, "int8")
    quantise(plain.model, "int8")
    unpack(plain.model, dict(plain.model.named_parameters()))
    return tuple(Base(one.model, one.tokenizer, weight_hashes(one.model)) for one in (base, plain))  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2", "qwen3_moe"])
def test_logits_and_gradients_are_those_of_the_unpacked_weights(family: str) -> None:
    base, plain = quantised(family)
    assert base.quantized and not plain.quantized and weight_bytes(base.model) < weight_bytes(plain.model)
    with torch.no_grad():
        assert torch.allclose(base.model(IDS).logits, plain.model(IDS).logits, atol=1e-5)
    rows, gradients = sampled_rows(plain, groups=2), []
    for one in (base, plain):
        trained = select(one.model, "layer:1")
        with unpacked(one.model, trained.parameters):
            learner = Learner(one.model, trained, Config(trainer=TrainerConfig(trained_set="layer:1", lr=1e-12, max_grad_norm=1e9)))
            assert not any(isinstance(weight, PackedWeight) for weight in trained.parameters.values())
            found = {}
            learner.optimizer.step = lambda found=found, trained=trained: (
                found.update({name: weight.grad for name, weight in trained.parameters.items()}) or 0.0
            )
            learner.update(rows)
            learner.optimizer.close()
        gradients.append(found)
    assert_equal(*gradients)
    assert weight_hashes(base.model) == base.hashes  # unpacked for the run alone


def test_a_run_on_a_quantised_base(tmp_path: Path) -> None:
    model = ModelConfig(quantization="int8", device="cpu")
    trainer = TrainerConfig(trained_set="layer:3", steps=2, prompts_per_step=4, group_size=4, lr=1e-3, warmup_steps=0, kl_coef=0.01)
    path = train(Config(model=model, trainer=trainer, agent=AgentConfig(max_tokens=24)), tmp_path / "run")
    base = load_base(model)
    found = patch.read(path)
    assert found.base == base.fingerprint != load_base(ModelConfig(device="cpu")).fingerprint
    with pytest.raises(UserError, match="belongs to base"):
        patch.apply(load_base(ModelConfig(device="cpu")), [found])
    with torch.no_grad():
        before = base.model(IDS).logits
        with patch.applied(base, [found]):
            during = base.model(IDS).logits
        assert torch.equal(base.model(IDS).logits, before) and not torch.equal(during, before)
    assert weight_hashes(base.model) == base.hashes and base.quantized
    patch.export(base, [found], tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(merged(IDS).logits, during, atol=1e-5)
    with pytest.raises(UserError, match="quantised base"):
        select(load_base(model).model, "random:100")


def test_the_estimate_of_a_run_counts_packed_weights() -> None:
    base = load_base(ModelConfig(device="cpu", quantization="int8"))
    config = Config(model=ModelConfig(quantization="int8"), trainer=TrainerConfig(trained_set="layer:3"), agent=AgentConfig(max_tokens=8))
    found = estimate(config, base.model.config, 20)
    trained = select(base.model, "layer:3")
    with unpacked(base.model, trained.parameters):
        held = weight_bytes(base.model) + sum(buffer.nbytes for buffer in base.model.buffers())
    assert found.update and found.update.weights == held
