"""The trained set that changed weights amount to: the smallest that the grammar has a name for, and that holds all of them."""

from __future__ import annotations

from collections.abc import Collection

from transformers import PreTrainedModel

from ...common.errors import UserError
from ..decoder import decoder_layers
from . import blocks

PARTS = ("embed", "norm", "head")
"""What lies outside the layers."""


def cover(model: PreTrainedModel, changed: Collection[str]) -> str | None:
    """A set that holds the parameters of these names; None where there are none, and where one is in no set, as in a part that reads
    pictures."""
    full, left = _names(model, "full"), set(changed)
    if not left or not left <= full:
        return None
    names = [_layers(model, inside)] if (inside := _inside_layers(model, left)) else []
    left -= {name for spec in names for name in _names(model, spec)}
    for part in PARTS:
        if left & (held := _names(model, part)):
            names.append(part)
            left -= held
    spec = blocks.JOIN.join(names)
    return "full" if left or _names(model, spec) == full else spec  # positions that are learned are in no smaller set


def _layers(model: PreTrainedModel, changed: dict[int, set[str]]) -> str:
    """Halves of layers where these hold all changes, else the layers. changed: names by the number of the layer."""
    stem = f"layer{'s' if len(changed) > 1 else ''}:{','.join(map(str, changed))}"
    inside = set().union(*changed.values())
    return next((spec for half in blocks.HALVES if inside <= _names(model, spec := f"{stem}.{half}")), stem)


def _inside_layers(model: PreTrainedModel, changed: set[str]) -> dict[int, set[str]]:
    """The names that lie in decoder layers, by the number of the layer."""
    owner = {id(weight): at for at, layer in enumerate(decoder_layers(model)) for weight in layer.parameters()}
    found: dict[int, set[str]] = {}
    for name, weight in model.named_parameters():
        if name in changed and id(weight) in owner:
            found.setdefault(owner[id(weight)], set()).add(name)
    return dict(sorted(found.items()))


def _names(model: PreTrainedModel, spec: str) -> set[str]:
    """Names of the parameters of a set; none where the model has no such part."""
    try:
        found = blocks.select(model, spec)
    except UserError:
        return set()
    return set(found.parameters) if found else set()
