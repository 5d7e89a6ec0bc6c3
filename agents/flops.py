"""Floating-point operations, estimated from the model's shape and the tokens.

They are counted as Kaplan et al. 2020 do (arXiv:2001.08361, section 2.1): 2 N a token for a forward pass, N being the parameters that a
token is multiplied with. A backward pass costs 2 more for each parameter through which a gradient flows, from the lowest trained layer
on, and 2 more for each that is trained; with all of them trained that is Kaplan's 4 N. Attention's own products are left out, as there.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .decoder import decoder_layers
from .episodes import Episode


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


def tokens_forwarded(episodes: Iterable[Episode]) -> int:
    """Tokens that the model reads or writes: the prompt and the reply of every step, and of a conversation that grows what is new.

    Nothing is taken off for a prompt that is computed once for several samples.
    """
    count = 0
    for episode in episodes:
        seen: list[int] = []
        for step in episode.steps:
            goes_on = seen and step.prompt_ids[: len(seen)] == seen
            count += len(step.prompt_ids) + len(step.token_ids) - (len(seen) if goes_on else 0)
            seen = [*step.prompt_ids, *step.token_ids]
    return count


def training_flops(tokens: int, parameters: int, above: int, trained: int, epochs: int, reference: bool, handed_over: int = 0) -> float:
    """Estimated FLOPs of learning from `tokens`, their contexts included.

    parameters: those that a token is multiplied with; above: those from the lowest trained layer on; trained: of the trained set. What is
    below is computed once for all epochs and for the reference policy, which runs through the rest once an epoch. handed_over: of the
    tokens, those of which the rollout has handed over what is below.
    """
    passes = epochs * (2 if reference else 1)
    below = 2.0 * (tokens - handed_over) * (parameters - above)
    return below + float(tokens) * (2 * above * passes + 2 * epochs * (above + trained))
