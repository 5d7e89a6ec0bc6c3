"""`only`: one set trained by another trainer, all else frozen by module identity and proven unmoved."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from families import FAMILIES, random_base
from transformers import TrainerControl, TrainerState, TrainingArguments

from onelayer import only
from onelayer.agents.decoder import decoder_layers
from onelayer.common.errors import UserError

IDS = torch.tensor([[1, 7, 9, 30, 44, 5]])


def trained_a_little(model: torch.nn.Module) -> None:
    """Three steps of AdamW on whatever is trainable, as a trainer takes them."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(3):
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_moves_and_nothing_else(family: str) -> None:
    model = random_base(family).model
    layer = only(model, "layer:1")
    trained_a_little(model)
    inside = {id(parameter) for parameter in decoder_layers(model)[1].parameters()}
    assert set(layer.check()) == {name for name, one in model.named_parameters() if id(one) in inside}


def test_what_moves_beside_it_is_named() -> None:
    model = random_base("llama").model
    layer = only(model, "layer:1")
    with torch.no_grad():
        model.get_parameter("model.norm.weight").add_(1e-6)
    with pytest.raises(UserError, match=r"layer:1 was to be trained alone, and 1 of the \d+ other weights moved, too: model\.norm\.weight"):
        layer.check()


def test_the_callback_refuses_a_model_that_was_unfrozen_and_one_that_moved() -> None:
    model = random_base("llama").model
    callback = only(model, "layer:1").callback()
    told = (TrainingArguments(output_dir="unused"), TrainerState(), TrainerControl())
    callback.on_train_begin(*told)
    callback.on_train_end(*told)
    model.get_input_embeddings().requires_grad_(True)
    with pytest.raises(UserError, match=r"these are trainable, too: model\.embed_tokens\.weight"):
        callback.on_train_begin(*told)
    trained_a_little(model)
    with pytest.raises(UserError, match=r"moved, too: model\.embed_tokens\.weight"):
        callback.on_train_end(*told)


@pytest.mark.parametrize(
    ("spec", "reason"), [("layer:99", "no layer 99"), ("lora:4", "peft configuration"), ("random:9", "single entries")]
)
def test_what_cannot_be_frozen_so_is_refused(spec: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        only(random_base("llama").model, spec)


def test_the_package_is_imported_without_torch_until_it_is_asked_for() -> None:
    code = "import sys, onelayer; assert 'torch' not in sys.modules; onelayer.only; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
