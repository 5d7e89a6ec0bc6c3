"""Single entries, drawn at random over all decoder layers: a control that has the size of a layer and its place nowhere.

`random:P@S` are P parameters, each tensor of the decoder's layers giving its share, drawn with seed S (0 where it is left out).
"""

from __future__ import annotations

import re

import numpy as np
import torch
from transformers import PreTrainedModel

from ...common.errors import UserError
from ..decoder import decoder_layers
from ..packed import PackedWeight
from .trained_set import TrainedSet

GRAMMAR = "random:P or random:P@SEED (P parameters spread over all layers)"


def select(model: PreTrainedModel, spec: str) -> TrainedSet | None:
    """Raises UserError where the layers have fewer parameters than are asked for."""
    match = re.fullmatch(r"random:(\d{1,18})(?:@(\d{1,18}))?", spec)
    if match is None:
        return None
    wanted, drawn_with = int(match[1]), int(match[2] or 0)
    inside = {id(parameter) for layer in decoder_layers(model) for parameter in layer.parameters()}
    named = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in inside}
    if any(isinstance(parameter, PackedWeight) for parameter in named.values()):
        raise UserError(f"trained_set {spec!r}: single entries of all layers would unpack a quantised base; leave model.quantization out")
    sizes = np.array([parameter.numel() for parameter in named.values()])
    if not 1 <= wanted <= sizes.sum():
        raise UserError(f"trained_set {spec!r}: P is 1 to {sizes.sum()}, the parameters of all decoder layers")
    rng = np.random.default_rng(drawn_with)
    counts = rng.multivariate_hypergeometric(sizes, wanted, method="marginals")
    places = {
        name: torch.from_numpy(np.sort(rng.choice(parameter.numel(), count, replace=False, shuffle=False))).to(parameter.device)
        for (name, parameter), count in zip(named.items(), counts, strict=True)
        if count
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    return TrainedSet(spec, {name: named[name] for name in places}, 0, total, places)
