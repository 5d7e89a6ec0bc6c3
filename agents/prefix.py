"""Prompts computed once and shared: the keys and values that both decoding and training build upon.

Works for any Hugging Face decoder-only model, since it only hands the model a 4-D mask, position ids and an object with
the `update` method of its cache. A prompt's last token is left to whoever continues it, so that every logit of a response
comes from the response's own pass.

Shape letters: P prompts, B rows, T prompt columns, R response columns, K key columns, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache


class PrefixCache(Cache):
    """Keys and values by layer. As a model's cache it appends the new columns to those held, without writing to them.

    `rows` picks the prompt of each row, so that gradients of all rows of a prompt flow into its one pass.
    """

    def __init__(self, rows: torch.Tensor | None = None, held: PrefixCache | None = None):
        super().__init__(layers=[])
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._rows, self._held = rows, held

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        if self._held is not None and self._rows is not None:
            # index_select, whose gradient is summed in a fixed order; that of plain indexing depends on the threads' timing.
            key_states = torch.cat([self._held.keys[layer_idx].index_select(0, self._rows), key_states], dim=2)
            value_states = torch.cat([self._held.values[layer_idx].index_select(0, self._rows), value_states], dim=2)
        else:
            self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states


@dataclass
class Prompts:
    """Encoded prompts, left-padded to T columns (each without its last token)."""

    start_P: torch.Tensor
    """First column of each prompt; its last one is T - 1."""
    width: int
    """T."""
    cache: PrefixCache = field(repr=False)


def encode_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Prompts:
    """One pass of the decoder over all tokens but the last of each prompt."""
    device = model.device
    width = max(1, *(len(prompt) - 1 for prompt in prompts))
    ids_PT = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        if len(prompt) > 1:
            ids_PT[row, width - len(prompt) + 1 :] = torch.as_tensor(prompt[:-1])
    start_P = torch.tensor([width - len(prompt) + 1 for prompt in prompts], device=device)
    column_T = torch.arange(width, device=device)
    position_PT = (column_T - start_P[:, None]).clamp(min=0)
    visible_PTT = (column_T[None, :] <= column_T[:, None]) & (column_T >= start_P[:, None])[:, None, :]
    cache = PrefixCache()
    decoder_forward(model, ids_PT.to(device), position_PT, visible_PTT, position_PT, cache, with_logits=False)
    return Prompts(start_P, width, cache)


def decoder_forward(
    model: PreTrainedModel,
    ids_BR: torch.Tensor,
    position_BR: torch.Tensor,
    visible_BRK: torch.Tensor,
    key_position_BK: torch.Tensor,
    cache: Cache,
    with_logits: bool = True,
) -> torch.Tensor:
    """Logits [B, R, V] (or last hidden states) of new tokens that may see the keys marked in `visible_BRK`."""
    module = model if with_logits else model.get_decoder()
    mask = _attention_mask(model, visible_BRK, position_BR, key_position_BK)
    output = module(
        input_ids=ids_BR,
        position_ids=position_BR,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    )
    return output.logits if with_logits else output.last_hidden_state


def _attention_mask(
    model: PreTrainedModel, visible_BRK: torch.Tensor, position_BR: torch.Tensor, key_position_BK: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    config = model.config.get_text_config()
    full = _additive(visible_BRK, model.dtype)
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not window or (kinds and "sliding_attention" not in kinds):
        return full
    near_BRK = position_BR[:, :, None] - key_position_BK[:, None, :] < window
    sliding = _additive(visible_BRK & near_BRK, model.dtype)
    return {"full_attention": full, "sliding_attention": sliding} if kinds else sliding


def _additive(visible_BRK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # The least number, not minus infinity: a padded query sees no key at all, and its softmax must stay finite.
    mask_BRK = torch.zeros(visible_BRK.shape, dtype=dtype, device=visible_BRK.device)
    return mask_BRK.masked_fill_(~visible_BRK, torch.finfo(dtype).min)[:, None]
