"""How far a patch moves each layer, for every kind of patch."""

from __future__ import annotations

import math

import pytest
import torch

from onelayer.agents.config import ModelConfig
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.patch import Patch
from onelayer.agents.policy import Base, load_base
from onelayer.agents.trained_sets import select
from onelayer.agents.trained_sets.changes import LEFT, PLACES, RIGHT, by_weight
from onelayer.agents.weight_change import weight_changes


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelConfig())


def moved(base: Base, spec: str, by: float) -> Patch:
    """A patch that adds `by` to every entry of a set."""
    trained = select(base.model, spec)
    masters = {name: trained.read(name, weight.detach()).float() + by for name, weight in trained.parameters.items()}
    return Patch(base.fingerprint, spec, trained.contents(masters))


def test_a_layer(base: Base) -> None:
    weights = [weight.detach().float() for weight in decoder_layers(base.model)[3].parameters()]
    entries = sum(weight.numel() for weight in weights)
    (found,) = weight_changes(base, moved(base, "layer:3", 0.5))
    assert (found.layer, found.entries, found.share) == (3, entries, 1.0)
    assert found.l2 == pytest.approx(0.5 * math.sqrt(entries), rel=1e-4)
    assert found.base_l2 == pytest.approx(math.sqrt(sum(float(weight.square().sum()) for weight in weights)), rel=1e-4)
    assert found.relative == pytest.approx(found.l2 / found.base_l2)


def test_all_parameters_and_single_entries(base: Base) -> None:
    found = weight_changes(base, moved(base, "full", 0.5))
    assert [part.layer for part in found] == [*range(len(decoder_layers(base.model))), None]
    assert sum(part.entries for part in found) == sum(weight.numel() for weight in base.model.parameters())
    patch = moved(base, "random:5000@0", 0.5)
    entries = weight_changes(base, patch)
    assert sum(part.changed for part in entries) == 5000 == sum(len(t) for name, t in patch.weights.items() if name.endswith(PLACES))
    assert sum(part.l2**2 for part in entries) == pytest.approx(0.25 * 5000, rel=1e-4)


def test_a_product_of_low_rank(base: Base) -> None:
    name = next(name for name, weight in base.model.named_parameters() if "layers.2." in name and weight.ndim == 2)
    rows, columns = base.model.get_parameter(name).shape
    left, right = torch.zeros(rows, 1), torch.zeros(1, columns)
    left[0], right[0, :2] = 3.0, 1.0
    patch = Patch(base.fingerprint, "lora:1", {name + LEFT: left, name + RIGHT: right})
    assert list(by_weight(patch.weights)) == [name]
    (found,) = weight_changes(base, patch)
    assert (found.layer, found.changed) == (2, 2) and found.l2 == pytest.approx(3 * math.sqrt(2), rel=1e-2)


def test_what_the_format_of_the_model_cannot_hold_is_no_change() -> None:
    base = load_base(ModelConfig(dtype="bfloat16"))
    (found,) = weight_changes(base, moved(base, "layer:1", 1e-9))
    assert found.l2 < 1e-4 and found.share < 0.01
