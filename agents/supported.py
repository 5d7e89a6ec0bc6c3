"""Whether a model gives the same probabilities by the way that everything here runs it: prompts computed once, responses after them.

Layers that carry a state from token to token (Mamba, RWKV and their hybrids), positions that depend on the length of the whole sequence
and masks of a model's own go another way. Such a model would be sampled from and trained as another one than it is.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..common.errors import UserError
from .prefix import continue_prompts, encode_prompts, head_logits

LARGEST_DIFFERENCE = {torch.float32: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Nats, by the format that the model computes in; kernels sum in different orders."""
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies change once a sequence is longer than the model was trained on."""


@torch.no_grad()
def check_supported(model: PreTrainedModel) -> None:
    """Compare both ways on two short prompts. Raises UserError where they differ, or where the model cannot go this way at all."""
    name = type(model).__name__
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if (kind := rope.get("rope_type")) in LENGTH_DEPENDENT:
        raise UserError(
            f"model.path: {name} has rotary embeddings of the kind {kind!r}, whose frequencies depend on the length of the whole sequence, "
            "so that a prompt cannot be computed apart from its responses; take a model with another kind"
        )
    prompts, responses = [_ids(model, 3, 1), _ids(model, 7, 2)], [_ids(model, 4, 3), _ids(model, 4, 4)]
    try:
        route_BRV = _by_route(model, prompts, responses)
    except Exception as error:  # what a model of another make raises here may be anything
        raise UserError(
            f"model.path: {name} cannot be run with the keys and values of its prompts computed apart "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); take a decoder-only model whose layers all attend"
        ) from error
    plain_BRV = torch.stack(
        [
            model(input_ids=torch.tensor([prompt + response], device=model.device), use_cache=False)
            .logits[0, len(prompt) - 1 : -1]
            .float()
            .log_softmax(-1)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
    )
    difference = float((plain_BRV.exp() * (plain_BRV - route_BRV).abs()).sum(-1).max())
    if not difference <= LARGEST_DIFFERENCE[model.dtype]:
        raise UserError(
            f"model.path: {name} gives other probabilities when its prompts are computed apart from the responses ({difference:.2g} nats), "
            "so it would be trained wrongly; take a decoder-only model whose layers all attend, without a state of their own"
        )


def _ids(model: PreTrainedModel, length: int, start: int) -> list[int]:
    return [(start * 37 + 11 * at) % model.config.get_text_config().vocab_size for at in range(length)]


def _by_route(model: PreTrainedModel, prompts: list[list[int]], responses: list[list[int]]) -> torch.Tensor:
    """Log-probabilities [B, R, V] after the last token of each prompt and each token of its response but the last."""
    rows = torch.arange(len(prompts), device=model.device)
    ids_BR = [[prompt[-1], *response[:-1]] for prompt, response in zip(prompts, responses, strict=True)]
    hidden_BRH = continue_prompts(model, encode_prompts(model, prompts), rows, torch.tensor(ids_BR, device=model.device))
    return torch.stack([head_logits(model, hidden_RH).float().log_softmax(-1) for hidden_RH in hidden_BRH])
