"""How far a patch moves the weights of its base: size and number of the changes, for each decoder layer."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from pydantic import BaseModel, ConfigDict, Field

from .decoder import decoder_layers
from .patch import Patch
from .policy import Base
from .trained_sets.changes import by_weight, changed


class WeightChange(BaseModel):
    """The weights of one decoder layer that a patch may change, as the policy plays with them: in the format of the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: int | None = Field(description="decoder layer, from 0; null: all that is outside the layers (embeddings, last norm, head)")
    l2: float = Field(ge=0, description="L2 norm of the change")
    base_l2: float = Field(ge=0, description="L2 norm of the same weights of the base")
    changed: float = Field(ge=0, description="entries with another value than in the base")
    entries: int = Field(ge=1, description="entries of the weights that the patch holds or adds to")

    @property
    def relative(self) -> float | None:
        """The change over the weights, both as L2 norms; None where these are zero."""
        return self.l2 / self.base_l2 if self.base_l2 else None

    @property
    def share(self) -> float:
        """Of the entries, those that changed."""
        return self.changed / self.entries


@torch.no_grad()
def weight_changes(base: Base, patch: Patch) -> list[WeightChange]:
    """For each layer that the patch touches, in order, and last for what is outside of them.

    base: with its own weights. Raises ValueError for a patch that does not fit it.
    """
    layer_of = {id(weight): index for index, layer in enumerate(decoder_layers(base.model)) for weight in layer.parameters()}
    parameters = dict(base.model.named_parameters())
    sums: defaultdict[int | None, list[float]] = defaultdict(lambda: [0.0] * 4)
    for name, tensors in by_weight(patch.weights).items():
        weight = parameters[name].detach()
        after = changed(weight, {tensor.removeprefix(name): patch.weights[tensor] for tensor in tensors})
        if after is None:
            raise ValueError(f"patch {patch.trained_set}: {name} does not fit the model")
        after, before = after.to(weight.dtype).float(), weight.float()
        found = ((after - before).norm().item() ** 2, before.norm().item() ** 2, (after != before).sum().item(), weight.numel())
        place = sums[layer_of.get(id(parameters[name]))]
        place[:] = [total + one for total, one in zip(place, found, strict=True)]
    order = sorted(sums, key=lambda layer: (layer is None, layer or 0))
    return [
        WeightChange(layer=layer, l2=math.sqrt(l2), base_l2=math.sqrt(base_l2), changed=count, entries=int(entries))
        for layer in order
        for l2, base_l2, count, entries in [sums[layer]]
    ]
