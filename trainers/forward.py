"""Log-probabilities of rows under the model being trained, with everything that is constant computed once.

Three savings, none of which changes a gradient: a prompt is encoded once for all responses to it (gradients of all flow
through its keys and values); responses of similar length share a pass; and the layers below the trained ones, whose output
is a constant of the batch, run once however many passes follow (epochs, the reference).

Shape letters: P prompts, B rows, T prompt columns, R response columns, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel

from ..agents.policy import decoder_layers
from ..agents.prefix import PrefixCache, Prompts, decoder_forward, encode_prompts
from .rows import Row

Output = TypeVar("Output")


@dataclass(frozen=True)
class Bucket:
    """Rows of similar response length, right-padded to R; `mask_BR` marks sampled tokens, and `weight_BR` is 0 on all others."""

    prompt_B: torch.Tensor
    input_BR: torch.Tensor
    target_BR: torch.Tensor
    logprob_BR: torch.Tensor
    advantage_BR: torch.Tensor
    weight_BR: torch.Tensor
    mask_BR: torch.Tensor


@dataclass
class Pack:
    """Rows that are held in memory together: their distinct prompts, and buckets of responses."""

    prompts: list[tuple[int, ...]]
    buckets: list[Bucket]
    constants: list[torch.Tensor] = field(default_factory=list)
    """Inputs of the lowest trained layer, one a pass (the prompts', then each bucket's), once they are known."""


def packs(rows: Sequence[Row], rows_per_pack: int, device: torch.device) -> list[Pack]:
    """Whole groups together as long as `rows_per_pack` allows, responses in buckets of lengths up to a power of two."""
    ordered = sorted(rows, key=lambda row: (row.group, row.episode, row.step))
    return [_pack(ordered[start : start + rows_per_pack], device) for start in range(0, len(ordered), rows_per_pack)]


def _pack(rows: Sequence[Row], device: torch.device) -> Pack:
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(tuple(row.prompt_ids) for row in rows))}
    by_length: dict[int, list[Row]] = {}
    for row in rows:
        by_length.setdefault((len(row.token_ids) - 1).bit_length(), []).append(row)
    return Pack(list(prompts), [_bucket(members, prompts, device) for _, members in sorted(by_length.items())])


def _bucket(rows: Sequence[Row], prompts: dict[tuple[int, ...], int], device: torch.device) -> Bucket:
    width = max(len(row.token_ids) for row in rows)

    def padded(lists: Iterator[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*values, *[0] * (width - len(values))] for values in lists], dtype=dtype, device=device)

    return Bucket(
        torch.tensor([prompts[tuple(row.prompt_ids)] for row in rows], device=device),
        padded(([row.prompt_ids[-1], *row.token_ids[:-1]] for row in rows), torch.long),
        padded((row.token_ids for row in rows), torch.long),
        padded((row.logprobs for row in rows), torch.float32),
        padded((row.advantages for row in rows), torch.float32),
        padded((row.weights for row in rows), torch.float32),
        padded((row.sampled for row in rows), torch.bool),
    )


def pack_logits(model: PreTrainedModel, pack: Pack, first_layer: int, reuse: bool) -> Iterator[tuple[Bucket, torch.Tensor]]:
    """Each bucket with its logits [B, R, V]: column t is the distribution of response token t.

    With `reuse`, what enters `first_layer` is kept in the pack, and later calls start there.
    """
    layers = decoder_layers(model)
    reuse = reuse and 0 < first_layer < len(layers)
    known = pack.constants if reuse and pack.constants else None

    def run(index: int, forward: Callable[[], Output]) -> Output:
        if not reuse:
            return forward()
        with _resume(layers, first_layer, known[index]) if known else _record(layers[first_layer], pack.constants):
            return forward()

    prompts = run(0, lambda: encode_prompts(model, pack.prompts))
    for index, bucket in enumerate(pack.buckets, start=1):
        yield bucket, run(index, lambda bucket=bucket: _response_logits(model, prompts, bucket))


def _response_logits(model: PreTrainedModel, prompts: Prompts, bucket: Bucket) -> torch.Tensor:
    rows, (_, width) = bucket.prompt_B, bucket.input_BR.shape
    start_B1 = prompts.start_P[rows][:, None]
    column_T, column_R = torch.arange(prompts.width, device=rows.device), torch.arange(width, device=rows.device)
    position_BR = prompts.width - start_B1 + column_R
    visible_BRT = (column_T >= start_B1)[:, None, :].expand(-1, width, -1)
    causal_BRR = (column_R[None, :] <= column_R[:, None]).expand(len(rows), -1, -1)
    return decoder_forward(
        model,
        bucket.input_BR,
        position_BR,
        torch.cat([visible_BRT, causal_BRR], dim=2),
        torch.cat([column_T - start_B1, position_BR], dim=1),
        PrefixCache(rows, prompts.cache),
    )


@contextmanager
def _record(layer: nn.Module, inputs: list[torch.Tensor]) -> Iterator[None]:
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _resume(layers: nn.ModuleList, first: int, hidden_BRH: torch.Tensor) -> Iterator[None]:
    """Let the model start at layer `first` with this input: the layers below pass through what they get."""
    handle = layers[first].register_forward_pre_hook(lambda _, args: (hidden_BRH, *args[1:]))
    below = [layers[index] for index in range(first)]
    for layer in below:
        layer.forward = lambda hidden_states, *args, **kwargs: hidden_states
    try:
        yield
    finally:
        handle.remove()
        for layer in below:
            del layer.forward
