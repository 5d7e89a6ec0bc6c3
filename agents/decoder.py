"""The parts of a decoder-only model, found by what they are and never by their names."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..envs.errors import UserError


def multiplied(model: PreTrainedModel, first_layer: int = 0) -> int:
    """Parameters that a token is multiplied with from a decoder layer on, the head included: what counts for FLOPs. Input embeddings
    are looked up, and count only where they are the head's too; of a mixture's experts those count that a token is sent to."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embeddings.weight
    looked_up = 0 if tied else sum(parameter.numel() for parameter in embeddings.parameters())
    layers = list(decoder_layers(model))
    below = sum(parameter.numel() for layer in layers[:first_layer] for parameter in layer.parameters())
    idle = sum(_idle_experts(layer, model.config.get_text_config()) for layer in layers[first_layer:])
    return sum(parameter.numel() for parameter in model.parameters()) - looked_up - below - idle


def _idle_experts(layer: nn.Module, config: PreTrainedConfig) -> int:
    """Parameters of the experts of a layer that a token is not sent to."""
    experts = next(
        (getattr(config, name) for name in ("num_local_experts", "num_experts", "n_routed_experts") if hasattr(config, name)), None
    )
    used = getattr(config, "num_experts_per_tok", None)
    if not experts or not used:
        return 0
    held = [module for name, module in layer.named_modules() if name.rpartition(".")[2] == "experts"]
    return sum(parameter.numel() for module in held for parameter in module.parameters()) * (experts - used) // experts


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's list of layers. Raises UserError for a model that has none."""
    depth = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(found) != 1:
        raise UserError(
            f"{type(model).__name__} is not a decoder-only model with one list of {depth} layers ({len(found)} such lists found)"
        )
    return found[0]
