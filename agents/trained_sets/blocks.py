"""Whole blocks of the model: layers, their halves, embeddings, head, everything.

Blocks are found by module identity: `layer:1` is the second module of the decoder's list of layers, and never a match on a parameter's
name (which would take `model.layers.1` for `model.layers.10`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from ...common.errors import UserError
from ..decoder import decoder_layers
from .trained_set import TrainedSet

GRAMMAR = "full, layer:N, layers:N,N,..., layer:N.mlp, layer:N.attn, mid:K, except:N,N,..., embed, norm, head, or several of these with +"
JOIN = "+"
HALVES = {"mlp": "mlp", "attn": "self_attn"}
"""The modules of a layer that are sets of their own."""
SEVERAL = "layers:each, layers:every:N, layers:N-N"
"""How several sets of a layer each are written, which a study trains one after the other."""


def select(model: PreTrainedModel, spec: str) -> TrainedSet | None:
    """Raises UserError for a layer or part that the model does not have."""
    parts = [_select(model, part) for part in spec.split(JOIN)]
    chosen: set[int] = set()
    first = len(decoder_layers(model))
    for part in parts:
        if part is None:
            return None
        chosen |= part.parameters
        first = min(first, part.first_layer)
    named = dict(model.named_parameters())
    parameters = {name: parameter for name, parameter in named.items() if id(parameter) in chosen}
    return TrainedSet(spec, parameters, first, sum(parameter.numel() for parameter in named.values()))


@dataclass(frozen=True)
class _Block:
    """One part of a set."""

    parameters: set[int]
    """By identity."""
    first_layer: int


def _select(model: PreTrainedModel, spec: str) -> _Block | None:
    layers = decoder_layers(model)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    decoder = [model.get_decoder(), *([] if head is None else [head])]  # what makes text: a part that reads pictures stays as it is
    modules: Sequence[nn.Module]
    left_out: Sequence[nn.Module] = []
    first = 0
    if spec == "full":
        modules = decoder
    elif spec == "embed":
        modules = [embeddings]
    elif spec == "head":
        if head is None:
            raise UserError(f"trained_set {spec!r}: {type(model).__name__} has no head")
        modules = [head]
        first = 0 if embeddings.weight is head.weight else len(layers)  # tied: training the head trains the embeddings
    elif spec == "norm":
        modules, first = [_last_norm(model)], len(layers)
    elif match := re.fullmatch(r"mid:(\d{1,9})", spec):
        size = int(match[1])
        if not 1 <= size <= len(layers):
            raise UserError(f"trained_set {spec!r}: the model has {len(layers)} layers, so K of mid:K is 1 to {len(layers)}")
        first = (len(layers) - size) // 2
        modules = list(layers[first : first + size])
    elif match := re.fullmatch(r"except:(\d{1,9}(?:,\d{1,9})*)", spec):
        modules, left_out = decoder, [layers[index] for index in indices_of(match[1], spec, len(layers))]
    elif match := re.fullmatch(rf"layers?:(\d{{1,9}}(?:,\d{{1,9}})*)(?:\.({'|'.join(HALVES)}))?", spec):
        indices = indices_of(match[1], spec, len(layers))
        modules = [layers[index] if match[2] is None else _part(layers[index], match[2]) for index in indices]
        first = min(indices)
    else:
        return None
    kept = {id(parameter) for module in left_out for parameter in module.parameters()}
    return _Block({id(parameter) for module in modules for parameter in module.parameters()} - kept, first)


def several(model: PreTrainedModel, spec: str) -> list[str] | None:
    """The sets that one of `SEVERAL` stands for; None for another text. Raises UserError for layers that the model does not have."""
    depth = len(decoder_layers(model))
    if spec == "layers:each":
        chosen = range(depth)
    elif match := re.fullmatch(r"layers:every:([1-9]\d{0,8})", spec):
        chosen = range(0, depth, int(match[1]))
    elif match := re.fullmatch(r"layers:(\d{1,9})-(\d{1,9})", spec):
        first, last = int(match[1]), int(match[2])
        if not first <= last < depth:
            raise UserError(f"trained sets {spec!r}: the layers are 0 to {depth - 1}; name a first and a last one, as layers:0-{depth - 1}")
        chosen = range(first, last + 1)
    else:
        return None
    return [f"layer:{index}" for index in chosen]


def indices_of(text: str, spec: str, depth: int) -> list[int]:
    """The layers in a list with commas. Raises UserError for one that is not there or named twice."""
    indices = [int(number) for number in text.split(",")]
    if missing := [index for index in indices if index >= depth]:
        raise UserError(f"trained_set {spec!r}: no layer {missing[0]}; the model has {depth} layers, numbered 0 to {depth - 1}")
    if len(set(indices)) != len(indices):
        raise UserError(f"trained_set {spec!r}: a layer is named twice")
    return indices


def _last_norm(model: PreTrainedModel) -> nn.Module:
    """The norm behind the last layer: what of the decoder's own modules is neither its layers nor its embeddings, and comes last."""
    layers = decoder_layers(model)
    others = [module for module in model.get_decoder().children() if module is not layers and list(module.parameters(recurse=False))]
    norms = [module for module in others if "norm" in type(module).__name__.lower()]
    if not norms:
        raise UserError(f"trained_set 'norm': {type(model).__name__} has no norm behind its layers")
    return norms[-1]


def _part(layer: nn.Module, part: str) -> nn.Module:
    name = HALVES[part]
    module = getattr(layer, name, None)
    if module is None:
        raise UserError(f"{type(layer).__name__} has no module {name!r}, so .{part} cannot be trained on this model")
    return module
