"""Low-rank adapters: beside exactly the maps named, seeded, as peft computes them, and gone without a trace."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from families import FAMILIES, MORE_FAMILIES, random_base
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from onelayer.agents import patch
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.flops import multiplied
from onelayer.agents.patch import Patch
from onelayer.agents.policy import Base, weight_hashes
from onelayer.agents.trained_sets import TrainedSet, select
from onelayer.agents.trained_sets.low_rank import ALPHA
from onelayer.common.errors import UserError

IDS = torch.tensor([[1, 7, 9, 30, 44, 5]])


@torch.no_grad()
def logits_of(model: nn.Module) -> torch.Tensor:
    return model(IDS).logits


def stirred(trained: TrainedSet) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters.values():
            parameter.add_(0.05 * torch.randn_like(parameter))


def patch_of(base: Base, trained: TrainedSet) -> Patch:
    return Patch(base.fingerprint, trained.spec, trained.contents(trained.parameters))


def traces(model: nn.Module) -> dict[str, object]:
    """What an adapter could leave behind."""
    return {
        "modules": [(name, id(module), module.training, sorted(vars(module))) for name, module in model.named_modules()],
        "parameters": [(name, id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    }


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_merged_weights_are_what_the_adapters_compute_and_nothing_is_left_of_them(family: str, tmp_path: Path):
    base = random_base(family)
    before, plain, generator = traces(base.model), logits_of(base.model), torch.get_rng_state()
    trained = select(base.model, "lora:3")
    with trained.attached(seed=0):
        assert torch.equal(torch.get_rng_state(), generator)
        assert torch.equal(logits_of(base.model), plain), "B is zero at first"
        stirred(trained)
        adapted, merged = logits_of(base.model), dict(trained.weights())
    assert traces(base.model) == before and weight_hashes(base.model) == base.hashes and torch.equal(logits_of(base.model), plain)
    assert not torch.allclose(adapted, plain, atol=1e-2)

    made = patch_of(base, trained)
    assert {name: tuple(tensor.shape) for name, tensor in made.weights.items()} == trained.shapes
    assert trained.count == sum(tensor.numel() for tensor in made.weights.values()) < trained.total
    patch.write(tmp_path / "p.safetensors", made)
    read = patch.read(tmp_path / "p.safetensors")
    with patch.applied(base, [read]):
        assert torch.allclose(logits_of(base.model), adapted, atol=1e-4)
        assert all(torch.equal(base.model.get_parameter(name), weight) for name, weight in merged.items())
    assert weight_hashes(base.model) == base.hashes


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_adapted_model_is_pefts_own(family: str):
    """peft's own injection, given the same factors, computes the same to the bit."""
    base = random_base(family)
    trained, theirs = select(base.model, "lora:4@layers:1,2"), copy.deepcopy(base.model)
    chosen = {id(module) for layer in decoder_layers(theirs)[1:3] for module in layer.modules() if isinstance(module, nn.Linear | Conv1D)}
    names = [name for name, module in theirs.named_modules() if id(module) in chosen]
    config = LoraConfig(r=4, lora_alpha=ALPHA, target_modules=names, fan_in_fan_out=family == "gpt2")
    inject_adapter_in_model(config, theirs)
    with trained.attached(seed=0):
        stirred(trained)
        parts = [(name, part) for name in names for part in ("lora_A", "lora_B")]
        values = {f"{name}.{part}.default.weight": trained.parameters[f"{name}.weight.{part}"] for name, part in parts}
        assert set(trained.parameters.values()) == set(values.values())
        theirs.load_state_dict(values, strict=False)
        assert {name for name, module in base.model.named_modules() if isinstance(module, BaseTunerLayer)} == set(names)
        assert torch.equal(logits_of(base.model), logits_of(theirs))


def test_a_run_begins_where_its_seed_says():
    base = random_base("qwen3")
    trained, begun = select(base.model, "lora:4"), []
    for seed, drawn_before in ((0, 3), (0, 4), (1, 3)):
        torch.manual_seed(drawn_before)
        with trained.attached(seed):
            begun.append({name: parameter.detach().clone() for name, parameter in trained.parameters.items()})
            stirred(trained)
    first, again, other = begun
    for name, factor in first.items():
        assert torch.equal(factor, again[name]) and factor.dtype == torch.float32
        if name.endswith("lora_B"):
            assert not factor.any()
        else:
            assert 0 < factor.abs().max() <= factor.shape[1] ** -0.5 and not torch.equal(factor, other[name])


def test_only_the_layers_named_are_adapted():
    model = random_base("qwen3").model
    for spec, indices in (("lora:2@layer:1", [1]), ("lora:2@layers:10,3", [3, 10]), ("lora:2", list(range(12)))):
        found = select(model, spec)
        prefixes = tuple(f"model.layers.{index}." for index in indices)
        expected = {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(prefixes)}
        assert {name.rpartition(".weight.")[0] for name in found.parameters} == expected
        assert found.first_layer == min(indices)


def test_a_forward_pass_counts_the_factors_and_no_layer_below_the_first():
    model = random_base("qwen3").model
    trained = select(model, "lora:4@layers:3,5")
    before = multiplied(model), multiplied(model, 3), multiplied(model, 4)
    with trained.attached(0):
        after = multiplied(model), multiplied(model, 3), multiplied(model, 4)
    assert [now - then for now, then in zip(after, before, strict=True)] == [trained.count, trained.count, trained.count // 2]


def test_the_engine_plays_the_adapted_model():
    base = random_base("qwen3")
    request = Request((5, 9, 11), 3, Sampling(8))
    trained = select(base.model, "lora:4")
    with trained.attached(0):
        stirred(trained)
        (adapted,) = TransformersEngine(base.model, base.end_ids).generate([request])
    with patch.applied(base, [patch_of(base, trained)]):
        (merged,) = TransformersEngine(base.model, base.end_ids).generate([request])
    (plain,) = TransformersEngine(base.model, base.end_ids).generate([request])
    assert adapted.token_ids == merged.token_ids and adapted.logprobs == pytest.approx(merged.logprobs, abs=1e-4)
    assert adapted.logprobs[0] != pytest.approx(plain.logprobs[0], abs=1e-3)


def test_an_exported_policy_gives_the_same_logits_in_plain_transformers(tmp_path: Path):
    base = random_base("qwen3")
    trained = select(base.model, "lora:4@layer:3")
    with trained.attached(0):
        stirred(trained)
    made = patch_of(base, trained)
    with patch.applied(base, [made]):
        expected = logits_of(base.model)
    patch.export(base, [made], tmp_path / "model")
    assert torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "model")), expected)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("lora:0", "a rank is 1 to 32"),
        ("lora:33", "a rank is 1 to 32"),
        ("lora:4@layer:12", "no layer 12"),
        ("lora:4@layers:1,1", "named twice"),
        ("lora:4@mlp", "is not one of"),
        ("lora:", "is not one of"),
    ],
)
def test_what_the_model_does_not_have_is_refused(spec: str, reason: str):
    with pytest.raises(UserError, match=reason):
        select(random_base("qwen3").model, spec)


def test_a_patch_that_does_not_fit_or_overlaps_is_refused():
    base = random_base("qwen3")
    trained = select(base.model, "lora:4@layer:3")
    with trained.attached(0):
        stirred(trained)
    good = patch_of(base, trained)
    left = next(name for name in good.weights if name.endswith(".lora_left"))
    for broken in (good.weights[left].T, good.weights[left][:-1], good.weights[left][:, :-1]):
        with pytest.raises(UserError, match="no counterpart"):
            patch.apply(base, [Patch(good.base, good.trained_set, good.weights | {left: broken})])
    with pytest.raises(UserError, match="no counterpart"):
        patch.apply(base, [Patch(good.base, good.trained_set, {left: good.weights[left]})])
    right = left.replace(".lora_left", ".lora_right")
    none = {left: good.weights[left][:, :0], right: good.weights[right][:0]}
    large = {name: torch.full_like(good.weights[name], 1e38) for name in (left, right)}
    for factors, reason in ((none, "no counterpart"), (large, "is not finite with it")):
        with pytest.raises(UserError, match=reason), patch.applied(base, [Patch(good.base, good.trained_set, good.weights | factors)]):
            pass
    layer = select(base.model, "layer:3")
    with pytest.raises(UserError, match="both change"):
        patch.apply(random_base("qwen3"), [good, Patch(good.base, layer.spec, layer.contents(layer.parameters))])


def test_without_peft_sets_are_told_apart_and_patches_applied_but_nothing_is_trained(monkeypatch: pytest.MonkeyPatch):
    base = random_base("qwen3")
    before = traces(base.model)
    monkeypatch.setitem(sys.modules, "peft", None)
    trained = select(base.model, "lora:4")
    with pytest.raises(UserError, match=r"pip install 'onelayer\[lora\]'"), trained.attached(0):
        pass
    assert traces(base.model) == before
    patch.apply(base, [patch_of(base, trained)])
