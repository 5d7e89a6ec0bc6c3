"""Prompts computed once and shared: the keys and values that both decoding and training build upon.

Works for any Hugging Face decoder-only model, since it only hands the model a 4-D mask, position ids and an object with
the `update` method of its cache. A prompt's last token is left to whoever continues it, so that every logit of a response
comes from the response's own pass.

Shape letters: P prompts, B rows, T prompt columns, R response columns, K key columns, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from ..common.errors import UserError


class PrefixCache(Cache):
    """Keys and values by layer. As a model's cache it appends the new columns to those held, without writing to them.

    `rows` picks the prompt of each row, so that gradients of all rows of a prompt flow into its one pass.
    """

    def __init__(self, rows: torch.Tensor | None = None, held: PrefixCache | None = None):
        super().__init__(layers=[])
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._rows, self._held = rows, held

    @property
    def bytes(self) -> int:
        return _bytes(self.keys, self.values)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        if self._held is not None and self._rows is not None:
            # index_select, whose gradient is summed in a fixed order; that of plain indexing depends on the threads' timing.
            key_states = torch.cat([self._held.keys[layer_idx].index_select(0, self._rows), key_states], dim=2)
            value_states = torch.cat([self._held.values[layer_idx].index_select(0, self._rows), value_states], dim=2)
        else:
            self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states


def _bytes(*held: dict[int, torch.Tensor]) -> int:
    return sum(states.nbytes for by_layer in held for states in by_layer.values())


class ExtendingCache(PrefixCache):
    """Keeps the new columns apart from those held, row for row."""

    def __init__(self, before: PrefixCache):
        super().__init__()
        self._before = before

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return torch.cat([self._before.keys[layer_idx], key_states], dim=2), torch.cat(
            [self._before.values[layer_idx], value_states], dim=2
        )


@dataclass
class Prompts:
    """Encoded prompts, left-padded to T columns (each without its last token)."""

    start_P: torch.Tensor
    """First column of each prompt; its last one is T - 1."""
    width: int
    """T."""
    cache: PrefixCache = field(repr=False)


def check_tokens(prompts: Sequence[Sequence[int]], model: PreTrainedModel) -> None:
    """Raises UserError for a token that the model has no embedding of: its tokenizer is that of another model; and for no token at all."""
    known = len(cast("torch.Tensor", model.get_input_embeddings().weight))
    if not all(prompts):
        raise UserError("model.path: the chat template or the tokenizer of the model makes no token of a prompt; take the model's own")
    if (highest := max(map(max, prompts))) >= known:
        raise UserError(f"model.path: the tokenizer gives token {highest}, and the model knows {known}; take the model's own tokenizer")


def width_of(prompts: Sequence[Sequence[int]]) -> int:
    """Columns that prompts are encoded in together."""
    return max(1, *(len(prompt) - 1 for prompt in prompts))


def encode_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Prompts:
    """One pass of the decoder over all tokens but the last of each prompt."""
    device, width = model.device, width_of(prompts)
    ids_PT = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        if len(prompt) > 1:
            ids_PT[row, width - len(prompt) + 1 :] = torch.as_tensor(prompt[:-1])
    start_P = torch.tensor([width - len(prompt) + 1 for prompt in prompts], device=device)
    column_T = torch.arange(width, device=device)
    position_PT = (column_T - start_P[:, None]).clamp(min=0)
    visible_PTT = (column_T[None, :] <= column_T[:, None]) & (column_T >= start_P[:, None])[:, None, :]
    cache = PrefixCache()
    decoder_forward(model, ids_PT.to(device), position_PT, visible_PTT, position_PT, cache)
    return Prompts(start_P, width, cache)


def continue_prompts(model: PreTrainedModel, prompts: Prompts, prompt_B: torch.Tensor, ids_BR: torch.Tensor) -> torch.Tensor:
    """Last hidden states [B, R, H] of responses, each after the prompt that `prompt_B` names.

    ids_BR: the last token of the prompt, then all tokens of the response but its last; right-padded.
    """
    start_B1 = prompts.start_P[prompt_B][:, None]
    column_T, column_R = (torch.arange(width, device=ids_BR.device) for width in (prompts.width, ids_BR.shape[1]))
    position_BR = prompts.width - start_B1 + column_R
    visible_BRT = (column_T >= start_B1)[:, None, :].expand(-1, len(column_R), -1)
    causal_BRR = (column_R[None, :] <= column_R[:, None]).expand(len(prompt_B), -1, -1)
    return decoder_forward(
        model,
        ids_BR,
        position_BR,
        torch.cat([visible_BRT, causal_BRR], dim=2),
        torch.cat([column_T - start_B1, position_BR], dim=1),
        PrefixCache(prompt_B, prompts.cache),
    )


@dataclass
class Kept:
    """What was computed of one conversation so far: keys and values [H, T, D] of each layer, for the T tokens `ids`."""

    ids: list[int]
    keys: dict[int, torch.Tensor] = field(repr=False)
    values: dict[int, torch.Tensor] = field(repr=False)

    @property
    def bytes(self) -> int:
        return _bytes(self.keys, self.values)

    def begins(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt goes on from here."""
        return len(self.ids) < len(prompt) and list(prompt[: len(self.ids)]) == self.ids


def extend_prompts(model: PreTrainedModel, prompts: Sequence[Sequence[int]], kept: Sequence[Kept]) -> Prompts:
    """As `encode_prompts`, but only the tokens of each prompt are computed that come after those kept of it."""
    device = model.device
    held = torch.tensor([len(one.ids) for one in kept], device=device)
    length_P = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    new_P, past = length_P - held, int(held.max())
    width, total = max(1, int(new_P.max())), int(length_P.max())
    before = PrefixCache()
    for mine, theirs in ((before.keys, [one.keys for one in kept]), (before.values, [one.values for one in kept])):
        for layer, states_HTD in theirs[0].items():
            heads, _, size = states_HTD.shape  # values may be of another size than keys
            mine[layer] = states_HTD.new_zeros(len(kept), heads, past, size)
            for row, held_of in enumerate(theirs):
                mine[layer][row, :, past - held_of[layer].shape[1] :] = held_of[layer]
    ids_PT = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, (prompt, one) in enumerate(zip(prompts, kept, strict=True)):
        fresh = prompt[len(one.ids) : -1]
        ids_PT[row, width - len(fresh) :] = torch.as_tensor(fresh, dtype=torch.long)
    column_K, column_T = torch.arange(past + width, device=device), torch.arange(width, device=device)
    # columns: `past` for what is kept, aligned right, then `width` for what is new, aligned right
    position_PK = torch.where(column_K < past, column_K - past + held[:, None], column_K - past - width + length_P[:, None])
    there_PK = torch.where(column_K < past, position_PK >= 0, position_PK >= held[:, None])
    visible_PTK = there_PK[:, None, :] & (column_K[None, :] <= past + column_T[:, None])
    cache = ExtendingCache(before)
    positions = position_PK.clamp(min=0)
    decoder_forward(model, ids_PT.to(device), positions[:, past:], visible_PTK, positions, cache)
    result = PrefixCache()
    for layer in before.keys:
        for mine, old, new in ((result.keys, before.keys, cache.keys), (result.values, before.values, cache.values)):
            heads, size = old[layer].shape[1], old[layer].shape[3]
            mine[layer] = old[layer].new_zeros(len(prompts), heads, total, size)
            for row, (first, length) in enumerate(zip(held.tolist(), length_P.tolist(), strict=True)):
                mine[layer][row, :, total - length : total - length + first] = old[layer][row, :, past - first :]
                mine[layer][row, :, total - length + first :] = new[layer][row, :, width - length + first :]
    return Prompts(total - length_P, total, result)


def decoder_forward(
    model: PreTrainedModel,
    ids_BR: torch.Tensor,
    position_BR: torch.Tensor,
    visible_BRK: torch.Tensor,
    key_position_BK: torch.Tensor,
    cache: Cache,
) -> torch.Tensor:
    """Last hidden states [B, R, H] of new tokens that may see the keys marked in `visible_BRK`."""
    mask = _attention_mask(model, visible_BRK, position_BR, key_position_BK)
    output = model.get_decoder()(
        input_ids=ids_BR,
        position_ids=position_BR,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
    )
    return output.last_hidden_state


def head_logits(model: PreTrainedModel, hidden_NH: torch.Tensor) -> torch.Tensor:
    """The model's own logits [N, V] of last hidden states, whatever it scales or caps them with: its forward pass runs with a decoder
    that returns these states."""
    with _decoder_returns(model, hidden_NH[None]):
        return model(input_ids=torch.zeros(1, len(hidden_NH), dtype=torch.long, device=hidden_NH.device), use_cache=False).logits[0]


class _LastHiddenState(tuple):
    """What a decoder returns, as far as heads read it: the hidden states by name and by place, and nothing else."""

    @property
    def last_hidden_state(self) -> torch.Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _decoder_returns(model: PreTrainedModel, hidden_BRH: torch.Tensor) -> Iterator[None]:
    decoder = model.get_decoder()
    decoder.forward = lambda *args, **kwargs: _LastHiddenState((hidden_BRH,))
    try:
        yield
    finally:
        del decoder.forward


def bytes_per_token(model: PreTrainedModel) -> int:
    """Memory of one token's keys and values in all layers."""
    with torch.no_grad():
        return encode_prompts(model, [[0, 0]]).cache.bytes


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
