"""Models trained elsewhere: every difference found and named, patches that are the trained model, and what no patch can hold refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, MORE_FAMILIES, random_base
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from onelayer.agents import checkpoint, foreign, patch, tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.foreign import Foreign, compare
from onelayer.agents.model_difference import spectral_norm
from onelayer.agents.patch import Origin
from onelayer.agents.policy import Base, load_base
from onelayer.common.errors import UserError

IDS = torch.tensor([[1, 7, 9, 30, 44, 5]])
ORIGIN = Origin(model="theirs", note="TRL, 20 steps")
NORM = "model.norm.weight"


def tiny_model(dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny.PATH, dtype=dtype)


@torch.no_grad()
def stirred(model: PreTrainedModel, chosen: Callable[[str], bool]) -> PreTrainedModel:
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if chosen(name):
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def saved(model: Any, place: Path, **options: Any) -> Path:
    model.save_pretrained(place, **options)
    AutoTokenizer.from_pretrained(tiny.PATH).save_pretrained(place)
    return place


def compared(place: Path, base: str = "tiny", dtype: str = "float32") -> Foreign:
    return compare(ModelConfig.model_validate({"path": base, "dtype": dtype}), str(place))


def policy(found: Foreign, place: Path, dtype: str = "float32", base: str = "tiny") -> Base:
    """The base with the patch applied, which is written and read."""
    found.write(place, found.trained_set, ORIGIN)
    loaded, read = load_base(ModelConfig.model_validate({"path": base, "dtype": dtype})), patch.read(place)
    assert read.base == loaded.fingerprint and read.origin == ORIGIN
    patch.apply(loaded, [read])
    return loaded


@pytest.mark.parametrize(
    ("chosen", "spec"),
    [
        (lambda name: ".layers.3." in name, "layer:3"),
        (lambda name: ".layers.1.mlp" in name or ".layers.4.mlp.up" in name, "layers:1,4.mlp"),
        (lambda name: ".layers.5.self_attn.q" in name, "layer:5.attn"),
        (lambda name: ".layers.3." in name or name == NORM, "layer:3+norm"),
        (lambda name: "embed" in name or ".layers.0.input_layernorm" in name, "layer:0+embed"),
        (lambda name: name == NORM, "norm"),
        (lambda name: True, "full"),
    ],
)
def test_the_patch_is_the_trained_model_and_its_set_the_smallest_that_holds_it(
    chosen: Callable[[str], bool], spec: str, tmp_path: Path
) -> None:
    model = stirred(tiny_model(), chosen)
    found = compared(saved(model, tmp_path / "theirs", max_shard_size="2MB"))
    assert found.trained_set == spec
    assert {one.name for one in found.found.changes} == {name for name, _ in model.named_parameters() if chosen(name)}
    made = policy(found, tmp_path / "patch.safetensors").model
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), model.parameters(), strict=True))
    read = patch.read(tmp_path / "patch.safetensors")
    assert patch.write(tmp_path / "again", read) == read.sha256, "the bytes are those of the library's own writer"


def test_a_claim_is_proven_or_refuted_by_name(tmp_path: Path) -> None:
    found = compared(saved(stirred(tiny_model(), lambda name: ".layers.3.mlp" in name or name == NORM), tmp_path / "theirs"))
    claim = found.claim("layer:3")
    assert not claim.proven and claim.outside == [NORM]
    assert found.claim("layer:3+norm").proven and found.claim("full").proven
    assert "model.layers.3.self_attn.q_proj.weight" in found.claim("layer:3+norm").part
    for spec, reason in (("layer:9", "no layer 9"), ("random:9", "drawn by this program"), ("lora:4", "does not tell the rank")):
        with pytest.raises(UserError, match=reason):
            found.claim(spec)


def test_figures_are_those_of_the_whole_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "PIECE", 1000)  # no tensor is read at once
    model = stirred(tiny_model(), lambda name: ".layers.2." in name)
    found = compared(saved(model, tmp_path / "theirs")).found
    before, after = dict(tiny_model().named_parameters()), dict(model.named_parameters())
    (layer,) = found.layers
    moved = {one.name: (after[one.name] - before[one.name]).detach() for one in found.changes}
    inside = [weight.detach() for weight in decoder_layers(tiny_model())[2].parameters()]
    assert layer.layer == 2 and layer.tensors == len(moved) == 11
    assert layer.l2 == pytest.approx(torch.cat([step.flatten() for step in moved.values()]).norm().item(), rel=1e-5)
    assert layer.base_l2 == pytest.approx(torch.cat([weight.flatten() for weight in inside]).norm().item(), rel=1e-5)
    assert layer.changed == sum(int((step != 0).sum()) for step in moved.values()) and layer.entries == sum(w.numel() for w in inside)
    exact = {name: torch.linalg.matrix_norm(step, 2).item() for name, step in moved.items() if step.ndim == 2}
    assert {one.name: one.spectral for one in found.changes if one.spectral is not None} == pytest.approx(exact, rel=1e-5)
    assert layer.spectral == pytest.approx(max(exact.values()), rel=1e-5)


def test_the_spectral_norm_of_a_large_matrix_is_estimated_from_below() -> None:
    torch.manual_seed(0)
    noise = torch.randn(1500, 600)  # the hardest case: no singular value stands out
    exact = torch.linalg.matrix_norm(noise, 2).item()
    assert 0.97 * exact < spectral_norm(noise) <= exact * (1 + 1e-5)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, "float32") for family in [*FAMILIES, *MORE_FAMILIES]), ("qwen3", "bfloat16"), ("gemma3_text", "bfloat16")],
)
def test_every_family_has_the_fingerprint_that_loading_it_gives(family: str, dtype: str, tmp_path: Path) -> None:
    base = random_base(family)
    plain = dict.fromkeys(["save_original_format"], False)  # experts of some families are kept in other parts than the model has them
    saved(base.model, tmp_path / "base", **plain)
    saved(stirred(base.model, lambda name: "norm" in name or "ln_" in name), tmp_path / "theirs", **plain)
    found = compared(tmp_path / "theirs", str(tmp_path / "base"), dtype)
    made = policy(found, tmp_path / "patch.safetensors", dtype, str(tmp_path / "base")).model
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=getattr(torch, dtype))
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), theirs.parameters(), strict=True))


def test_a_float32_copy_of_a_bfloat16_base_differs_only_where_it_was_trained(tmp_path: Path) -> None:
    saved(tiny_model(torch.bfloat16), tmp_path / "base")
    found = compared(saved(stirred(tiny_model(), lambda name: ".layers.3." in name), tmp_path / "theirs"), str(tmp_path / "base"))
    assert found.trained_set == "layer:3"


def test_a_bfloat16_copy_of_a_float32_base_is_compared_in_bfloat16_alone(tmp_path: Path) -> None:
    fine = stirred(tiny_model(), lambda name: True)  # values that bfloat16 does not hold
    saved(fine, tmp_path / "base")
    model = stirred(fine.bfloat16(), lambda name: ".layers.3." in name)
    saved(model, tmp_path / "theirs")
    with pytest.raises(UserError, match=r"rounding alone changes nearly every weight .* give model.dtype=bfloat16"):
        compared(tmp_path / "theirs", str(tmp_path / "base"))
    found = compared(tmp_path / "theirs", str(tmp_path / "base"), "bfloat16")
    assert found.trained_set == "layer:3"
    made = policy(found, tmp_path / "patch.safetensors", "bfloat16", str(tmp_path / "base")).model
    assert all(torch.equal(one, two) for one, two in zip(made.parameters(), model.parameters(), strict=True))


def test_what_a_patch_cannot_hold_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refusal(place: Path) -> str:
        with pytest.raises(UserError) as error:
            compared(place)
        return str(error.value)

    grown = tiny_model()
    grown.resize_token_embeddings(1030)
    assert "1030 tokens, and the base has 1024: 6 were added" in refusal(saved(grown, tmp_path / "grown"))

    rope = tiny_model()
    rope.config.rope_parameters["rope_theta"] = 5e5
    assert "rope_parameters.rope_theta is 500000.0" in refusal(saved(rope, tmp_path / "rope"))

    assert "every weight is that of the base" in refusal(saved(tiny_model(), tmp_path / "same"))
    assert "are not finite" not in refusal(tmp_path / "same")

    broken = tiny_model()
    broken.get_parameter(NORM).data[3] = float("nan")
    assert f"{NORM} holds values that are not finite" in refusal(saved(broken, tmp_path / "broken"))

    pickled = saved(tiny_model(), tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "pytorch_model.bin: pickled weights run code" in refusal(pickled)

    cut = saved(stirred(tiny_model(), lambda name: True), tmp_path / "cut", max_shard_size="2MB")
    part = sorted(cut.glob("model-*.safetensors"))[1]
    part.write_bytes(part.read_bytes()[:-8])
    assert "cannot be read as safetensors" in refusal(cut)
    assert "no model" in refusal(tmp_path / "nowhere")


def test_a_head_of_its_own_is_told_from_a_copy_of_the_tied_embedding(tmp_path: Path) -> None:
    """Some trainers write the tied head a second time."""
    from safetensors.torch import load_file, save_file

    place = saved(stirred(tiny_model(), lambda name: "embed" in name), tmp_path / "theirs")
    weights = load_file(place / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, place / "model.safetensors")
    assert compared(place).trained_set == "embed"
    weights["lm_head.weight"] += 1
    save_file(weights, place / "model.safetensors")
    with pytest.raises(UserError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight, and config\.json makes them one"):
        compared(place)


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "all maps": ({"target_modules": "all-linear", "r": 4}, "lora:4"),
    "two maps": ({"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 5}, "lora:3.q_proj,v_proj"),
    "some layers": ({"target_modules": ["up_proj"], "layers_to_transform": [1, 4], "r": 2}, "lora:2.up_proj@layers:1,4"),
    "ranks and scales that differ": (
        {
            "target_modules": ["q_proj", "o_proj"],
            "r": 2,
            "rank_pattern": {"layers.1.self_attn.q_proj": 6, "o_proj": 1},
            "alpha_pattern": {"layers.2.self_attn.o_proj": 3},
            "use_rslora": True,
        },
        "lora:6.q_proj,o_proj",
    ),
}


@torch.no_grad()
def adapted(place: Path, **settings: Any) -> torch.Tensor:
    """A LoRA that peft made and saved, none of its factors zero; returns the logits of the model with it."""
    torch.manual_seed(0)
    model: Any = get_peft_model(tiny_model(), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(0, 0.05)
    model.save_pretrained(place)
    return model.eval()(IDS).logits


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_of_peft_plays_as_peft_computes_it(case: str, tmp_path: Path) -> None:
    settings, spec = ADAPTERS[case]
    wanted = adapted(tmp_path / "adapter", **settings)
    found = compared(tmp_path / "adapter")
    assert found.trained_set == spec
    with torch.no_grad():
        logits = policy(found, tmp_path / "patch.safetensors").model(IDS).logits
        plain = tiny_model()(IDS).logits
    assert torch.allclose(logits, wanted, atol=1e-4) and not torch.allclose(plain, wanted, atol=0.05)


def test_claims_of_an_adapter(tmp_path: Path) -> None:
    adapted(tmp_path / "adapter", target_modules=["q_proj"], r=4, layers_to_transform=[3])
    found = compared(tmp_path / "adapter")
    proven = {spec: found.claim(spec).proven for spec in ("lora:4", "lora:9.q_proj", "layer:3", "lora:3", "lora:4.v_proj", "layer:2")}
    assert proven == {"lora:4": True, "lora:9.q_proj": True, "layer:3": True, "lora:3": False, "lora:4.v_proj": False, "layer:2": False}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"target_modules": ["lm_head"]}, "lm_head"),
    ],
)
def test_an_adapter_that_does_more_is_refused(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    adapted(tmp_path / "adapter", **{"target_modules": ["q_proj"], "r": 2} | settings)
    with pytest.raises(UserError, match=rf"{reason}.*merge it where it was made"):
        compared(tmp_path / "adapter")


def test_an_adapter_of_another_model_or_with_other_patterns_is_refused(tmp_path: Path) -> None:
    adapted(tmp_path / "adapter", target_modules=["q_proj"], r=2)
    path = tmp_path / "adapter" / "adapter_config.json"
    good = json.loads(path.read_text())
    for values, reason in (
        ({"alpha_pattern": {"(a+)+$": 3}}, "a pattern in alpha_pattern"),
        ({"peft_type": "LOHA"}, "peft_type LOHA"),
        ({"lora_alpha": "much"}, "lora_alpha"),
    ):
        path.write_text(json.dumps(good | values))
        with pytest.raises(UserError, match=reason):
            compared(tmp_path / "adapter")
    path.write_text(json.dumps(good))
    base = saved(random_base("qwen3").model, tmp_path / "base")
    with pytest.raises(UserError, match=r"the factors of model.layers.0.self_attn.q_proj have the shapes"):
        compared(tmp_path / "adapter", str(base))
    assert foreign.adapter.is_adapter(tmp_path / "adapter")
    shutil.rmtree(tmp_path / "adapter")
