"""Trained sets and patches: exactly the modules named, exactly the base they belong to."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from families import FAMILIES, random_base
from transformers import AutoModelForCausalLM

from onelayer.agents import patch, tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.patch import Patch
from onelayer.agents.policy import load_base
from onelayer.agents.trained_sets import select
from onelayer.common.errors import UserError

IDS = torch.tensor([[1, 7, 9, 30, 44, 5]])


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_one_is_not_layer_ten(family: str):
    model = random_base(family).model
    chosen = {id(parameter) for parameter in select(model, "layer:1").parameters.values()}
    assert chosen == {id(parameter) for parameter in decoder_layers(model)[1].parameters()}
    assert not chosen & {id(parameter) for index in (10, 11) for parameter in decoder_layers(model)[index].parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_set_is_the_modules_it_names(family: str):
    model = random_base(family).model
    layers = decoder_layers(model)

    def ids(*modules: torch.nn.Module) -> set[int]:
        return {id(parameter) for module in modules for parameter in module.parameters()}

    expected = {
        "full": (ids(model), 0),
        "layers:10,2": (ids(layers[2], layers[10]), 2),
        "mid:4": (ids(*layers[4:8]), 4),
        "layer:3.mlp": (ids(layers[3].get_submodule("mlp")), 3),
        "layer:3.attn": (ids(layers[3].get_submodule("self_attn")), 3),
        "except:2,10": (ids(model) - ids(layers[2], layers[10]), 0),
        "embed": (ids(model.get_input_embeddings()), 0),
        "norm": (ids(model.get_submodule("model.norm")), 12),
        "layer:3+norm": (ids(layers[3], model.get_submodule("model.norm")), 3),
        "layers:4,5.mlp+embed": (ids(model.get_input_embeddings(), *(layers[at].get_submodule("mlp") for at in (4, 5))), 0),
        "head": (ids(model.get_submodule("lm_head")), 0 if model.config.tie_word_embeddings else 12),
    }
    for spec, (parameters, first_layer) in expected.items():
        found = select(model, spec)
        assert {id(parameter) for parameter in found.parameters.values()} == parameters, spec
        assert found.first_layer == first_layer, spec
        assert found.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "spec",
    [
        "random:0",
        "random:10000000",
        "random:5@",
        "except:12",
        "except:",
        "layer:12",
        "layer:-1",
        "layers:1,1",
        "mid:0",
        "mid:13",
        "layer:one",
        "lora",
        "",
        "layers:",
        "layer:1.norm",
    ],
)
def test_a_set_that_is_not_there_is_refused(spec: str):
    with pytest.raises(UserError, match="trained_set"):
        select(random_base("qwen3").model, spec)


def test_entries_drawn_at_random_are_as_many_as_asked_for_in_all_layers():
    model = random_base("qwen3").model
    found, again, other = (select(model, spec) for spec in ("random:5000@1", "random:5000@1", "random:5000"))
    assert found.count == 5000 and found.first_layer == 0
    assert all(torch.equal(found.places[name], again.places[name]) for name in found.places)
    assert any(not torch.equal(found.places[name], other.places.get(name, torch.empty(0))) for name in found.places)
    inside = {id(parameter) for parameter in decoder_layers(model).parameters()}
    assert {id(parameter) for parameter in found.parameters.values()} <= inside
    for layer in decoder_layers(model):
        held = {id(parameter) for parameter in layer.parameters()}
        names = [name for name, parameter in found.parameters.items() if id(parameter) in held]
        share = sum(len(found.places[name]) for name in names) / 5000
        assert share == pytest.approx(1 / 12, abs=0.02)
    assert all((places[1:] > places[:-1]).all() for places in found.places.values())


def test_a_patch_of_entries_changes_these_alone(tmp_path: Path):
    base = random_base("qwen3")
    before = {name: parameter.detach().clone() for name, parameter in base.model.named_parameters()}
    trained = select(base.model, "random:700")
    values = {name: trained.read(name, parameter.detach()) + 1 for name, parameter in trained.parameters.items()}
    patch.write(tmp_path / "p.safetensors", Patch(base.fingerprint, trained.spec, trained.contents(values)))
    found = patch.read(tmp_path / "p.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in found.weights.items()} == trained.shapes
    with patch.applied(base, [found]):
        moved = sum(int((parameter != before[name]).sum()) for name, parameter in base.model.named_parameters())
        assert moved == 700
    assert all(torch.equal(parameter, before[name]) for name, parameter in base.model.named_parameters())
    for broken in (torch.flip, lambda places, _: places + 10**6, lambda places, _: places[:-1]):
        name = next(iter(trained.places))
        weights = found.weights | {f"{name}.places": broken(found.weights[f"{name}.places"], [0])}
        with pytest.raises(UserError, match="no counterpart"):
            patch.apply(base, [Patch(base.fingerprint, trained.spec, weights)])


def test_a_patch_is_of_the_set_that_it_names():
    base = random_base("qwen3")
    layer, entries = select(base.model, "layer:3"), select(base.model, "random:700")
    masters = {name: entries.read(name, parameter.detach()) for name, parameter in entries.parameters.items()}
    held, name = entries.contents(masters), next(iter(entries.places))
    elsewhere = {f"{name}.places": torch.arange(len(entries.places[name]))}
    alone = {name: torch.tensor(1.0), f"{name}.places": torch.tensor(5)}
    nothing = {name: torch.zeros(0), f"{name}.places": torch.zeros(0, dtype=torch.int64)}
    for spec, weights, reason in (
        ("layer:2", layer.contents(layer.parameters), "not those of that set"),
        ("full", layer.contents(layer.parameters), "not those of that set"),
        (entries.spec, held | elsewhere, "its entries of"),
        (entries.spec, held | alone, "no counterpart"),
        (entries.spec, held | nothing, "no counterpart"),
    ):
        with pytest.raises(UserError, match=reason), patch.applied(base, [Patch(base.fingerprint, spec, weights)]):
            pass


def changed_patch(base, spec: str = "layer:3") -> Patch:
    weights = {name: parameter + 0.05 * torch.randn_like(parameter) for name, parameter in select(base.model, spec).parameters.items()}
    return Patch(base.fingerprint, spec, weights)


def test_a_patch_survives_the_disk_byte_for_byte(tmp_path: Path):
    base = random_base("qwen3")
    written = changed_patch(base)
    digest = patch.write(tmp_path / "a.safetensors", written)
    patch.write(tmp_path / "b.safetensors", written)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    found = patch.read(tmp_path / "a.safetensors")
    assert (found.base, found.trained_set, found.sha256) == (written.base, written.trained_set, digest)
    assert all(torch.equal(found.weights[name], weight) for name, weight in written.weights.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_policy_gives_the_same_logits_in_plain_transformers(family: str, tmp_path: Path):
    base = random_base(family)
    patches = [changed_patch(base, "layer:3"), changed_patch(base, "embed")]
    with patch.applied(base, patches), torch.no_grad():
        expected = base.model(IDS).logits
    with torch.no_grad():
        assert not torch.allclose(base.model(IDS).logits, expected, atol=1e-3), "the base is back after the with"
    patch.export(base, patches, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation=base.model.config._attn_implementation)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, expected)


@pytest.mark.parametrize("part", ["model", "tokenizer"])
def test_code_that_comes_with_a_model_is_never_run(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers asks on standard input, unless it is told not to."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    path = tmp_path / "model"
    shutil.copytree(tiny.PATH, path)
    (path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{THEIRS}")
    change = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}}
    if part == "tokenizer":
        change = {"tokenizer_class": "Tokenizer", "auto_map": {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}}
    config = path / ("config.json" if part == "model" else "tokenizer_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    if part == "model":
        with pytest.raises(UserError, match="brings Python code of its own, which is not run"):
            load_base(ModelConfig(path=str(path)))
    else:
        load_base(ModelConfig(path=str(path)))
    assert not (tmp_path / "ran").exists()


def test_every_load_by_a_models_own_words_refuses_its_code_unless_the_recipe_says_otherwise():
    root, calls = Path(__file__).parents[2], []
    for path in [*root.glob("agents/**/*.py"), *root.glob("evals/**/*.py"), *root.glob("bench/**/*.py"), *root.glob("cli/**/*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            if (text := ast.unparse(call.func)).startswith("Auto") and text.endswith(".from_pretrained"):
                calls.append((path.name, {word.arg: ast.unparse(word.value) for word in call.keywords}.get("trust_remote_code")))
    assert len(calls) >= 2 and {told for _, told in calls} <= {"False", "config.trust_remote_code"}, calls


THEIRS = """
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
class Config(Qwen3Config): model_type = "theirs"
class Model(Qwen3ForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


def test_a_patch_belongs_to_one_base(tmp_path: Path):
    base, other = random_base("qwen3"), random_base("qwen3", seed=1)
    with pytest.raises(UserError, match="belongs to base"):
        patch.apply(other, [changed_patch(base)])
    with pytest.raises(UserError, match="disjoint"):
        patch.apply(base, [changed_patch(base, "layer:3"), changed_patch(base, "layers:2,3")])
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        patch.read(tmp_path / "broken.safetensors")


def test_the_fingerprint_is_of_the_values_not_of_the_format(tmp_path: Path):
    model = random_base("llama").model.bfloat16()
    model.save_pretrained(tmp_path)
    random_base("llama").tokenizer.save_pretrained(tmp_path)
    as_stored = load_base(ModelConfig(path=str(tmp_path), dtype="bfloat16", device="cpu"))
    widened = load_base(ModelConfig(path=str(tmp_path), dtype="float32", device="cpu"))
    assert as_stored.fingerprint == widened.fingerprint
