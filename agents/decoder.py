"""The parts of a decoder-only model, found by what they are and never by their names."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from ..common.errors import UserError


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's list of layers. Raises UserError for a model that has none."""
    depth = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(found) != 1:
        raise UserError(
            f"{type(model).__name__} is not a decoder-only model with one list of {depth} layers ({len(found)} such lists found)"
        )
    return found[0]
