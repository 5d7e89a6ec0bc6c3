"""Last hidden states of rows under the model being trained, with everything that is constant computed once.

Three savings, none of which changes a gradient: a prompt is encoded once for all responses to it (gradients of all flow
through its keys and values); responses of similar length share a pass; and the layers below the trained ones, whose output
is a constant of the batch, run once however many passes follow (epochs, the reference), or not at all where the rollout has
handed over what they gave.

Memory is bounded in tokens: a pass holds the activations of its pack's prompts and of one bucket of responses, whose backward pass ends
before the next bucket begins.

Shape letters: P prompts, B rows, T prompt columns, R response columns, N sampled tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ..agents.decoder import decoder_layers
from ..agents.layer_inputs import padded, recorded
from ..agents.prefix import PrefixCache, continue_prompts, encode_prompts, width_of
from .rows import TrainingRow

Output = TypeVar("Output")

ACTIVATION_BYTES = 2**30
"""What the activations of a pass may take where the recipe does not say how many tokens it has."""
FEWEST_TOKENS, MOST_TOKENS = 256, 16384


@dataclass
class Bucket:
    """Rows of similar response length, right-padded to R, and their sampled tokens in one list.

    What the loss sees is [N]: `at_N` is the place of each sampled token in the flattened [B, R], `row_N` its row.
    """

    prompt_B: torch.Tensor
    input_BR: torch.Tensor
    at_N: torch.Tensor
    row_N: torch.Tensor
    target_N: torch.Tensor
    sampler_N: torch.Tensor
    """Log-probability under the engine's distribution, when it was sampled."""
    advantage_N: torch.Tensor
    weight_N: torch.Tensor
    old_N: torch.Tensor | None = None
    """Log-probability under the trainer's own policy before the batch's first optimiser step; None: there has been none since."""


@dataclass
class Pack:
    """Rows that share a pass over their distinct prompts, and buckets of responses that follow one after another."""

    prompts: list[tuple[int, ...]]
    buckets: list[Bucket]
    constants: list[torch.Tensor] = field(default_factory=list)
    """Inputs of the lowest trained layer, one a pass (the prompts', then each bucket's), once they are known."""
    handed_over: list[list[Sequence[torch.Tensor]]] = field(default_factory=list)
    """The same as the rollout handed them over: for each pass the rows, not yet padded. Empty where a row has none."""
    tokens: int = 0
    """Of all rows, each with its prompt."""

    @property
    def widths(self) -> list[int]:
        """Columns of each pass."""
        return [width_of(self.prompts), *(bucket.input_BR.shape[1] for bucket in self.buckets)]

    def forget_inputs(self) -> None:
        self.constants.clear()
        self.handed_over.clear()


def default_tokens(model: PreTrainedModel) -> int:
    """Tokens of a pass whose activations take about `ACTIVATION_BYTES` when every layer carries gradients, a power of two.

    A decoder layer keeps some ten tensors of the hidden size and five of the feed-forward size for each token.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    tokens = ACTIVATION_BYTES // (config.num_hidden_layers * (10 * hidden + 5 * wide) * model.dtype.itemsize)
    return min(MOST_TOKENS, max(FEWEST_TOKENS, 1 << (max(1, tokens).bit_length() - 1)))


def packs(rows: Sequence[TrainingRow], tokens_per_pass: int, device: torch.device) -> list[Pack]:
    """Whole groups together where that is possible: the padded prompts of a pack take at most half of the tokens of a pass, and a bucket
    what they leave. A prompt or response that is longer stands alone."""
    found: list[list[TrainingRow]] = [[]]
    prompts: set[tuple[int, ...]] = set()
    for row in sorted(rows, key=lambda row: (row.group, row.episode, row.step)):
        more = prompts | {tuple(row.prompt_ids)}
        if found[-1] and _padded(more) > tokens_per_pass // 2:
            found.append([])
            more = {tuple(row.prompt_ids)}
        prompts = more
        found[-1].append(row)
    return [_pack(members, tokens_per_pass, device) for members in found if members]


def _padded(prompts: set[tuple[int, ...]]) -> int:
    return len(prompts) * max(map(len, prompts))


def _pack(rows: Sequence[TrainingRow], tokens_per_pass: int, device: torch.device) -> Pack:
    """Responses in buckets of lengths up to a power of two, the shorter ones first."""
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(tuple(row.prompt_ids) for row in rows))}
    room = max(tokens_per_pass - _padded(set(prompts)), tokens_per_pass // 2)
    buckets: list[list[TrainingRow]] = []
    for row in sorted(rows, key=lambda row: len(row.token_ids)):
        length = len(row.token_ids)
        same = buckets and (len(buckets[-1][0].token_ids) - 1).bit_length() == (length - 1).bit_length()
        if same and (len(buckets[-1]) + 1) * length <= room:
            buckets[-1].append(row)
        else:
            buckets.append([row])
    inputs = {tuple(row.prompt_ids): row.inputs for row in rows if row.inputs}
    handed_over = [[row.inputs.rest_RH for row in members if row.inputs] for members in buckets]
    if list(map(len, handed_over)) == list(map(len, buckets)):
        handed_over = [[(inputs[prompt].prompt_TH,) for prompt in prompts], *handed_over]
    else:
        handed_over = []
    tokens = sum(len(row.prompt_ids) + len(row.token_ids) for row in rows)
    return Pack(list(prompts), [_bucket(members, prompts, device) for members in buckets], handed_over=handed_over, tokens=tokens)


def _bucket(rows: Sequence[TrainingRow], prompts: dict[tuple[int, ...], int], device: torch.device) -> Bucket:
    width = max(len(row.token_ids) for row in rows)
    sampled = [(index, column) for index, row in enumerate(rows) for column, mine in enumerate(row.sampled) if mine]

    def of_tokens(values: Callable[[TrainingRow], Sequence[float]]) -> torch.Tensor:
        columns = [values(row) for row in rows]
        return torch.tensor([columns[index][column] for index, column in sampled], dtype=torch.float32, device=device)

    inputs = ([row.prompt_ids[-1], *row.token_ids[:-1]] for row in rows)
    return Bucket(
        torch.tensor([prompts[tuple(row.prompt_ids)] for row in rows], device=device),
        torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in inputs], device=device),
        torch.tensor([index * width + column for index, column in sampled], dtype=torch.long, device=device),
        torch.tensor([index for index, _ in sampled], dtype=torch.long, device=device),
        torch.tensor([rows[index].token_ids[column] for index, column in sampled], dtype=torch.long, device=device),
        of_tokens(lambda row: row.logprobs),
        of_tokens(lambda row: row.advantages),
        of_tokens(lambda row: row.weights),
    )


def hidden_states(
    model: PreTrainedModel, pack: Pack, first_layer: int, *, reuse: bool = False, recompute: bool = False
) -> Iterator[tuple[Bucket, torch.Tensor]]:
    """Each bucket with the decoder's last hidden states [N, H] at its sampled tokens.

    The caller runs a bucket's backward pass before it asks for the next one. What all buckets together ask of the prompts flows through
    the prompts' own pass after the last of them.

    What the rollout has handed over of `first_layer` is where every call starts. reuse: where there is none, keep in the pack what enters
    that layer; later calls start there. recompute: keep one hidden state a layer and token of the layers that carry gradients, and compute
    the rest again in the backward pass.
    """
    layers = decoder_layers(model)
    reuse = reuse and 0 < first_layer < len(layers)
    known = reuse and bool(pack.constants)

    def start(index: int) -> AbstractContextManager[None]:
        if pack.handed_over:
            hidden_BRH = padded(pack.handed_over[index], pack.widths[index], model.device, left=index == 0)
            return _resume(layers, first_layer, hidden_BRH)
        if known:
            return _resume(layers, first_layer, pack.constants[index])
        return recorded(layers[first_layer], pack.constants) if reuse else nullcontext()

    def run(index: int, forward: Callable[[], Output]) -> Output:
        with _recomputed(layers[first_layer:]) if recompute and torch.is_grad_enabled() else nullcontext(), start(index):
            return forward()

    prompts = run(0, lambda: encode_prompts(model, pack.prompts))
    cut = _cut(prompts.cache)
    for index, bucket in enumerate(pack.buckets, start=1):
        hidden_BRH = run(index, lambda bucket=bucket: continue_prompts(model, prompts, bucket.prompt_B, bucket.input_BR))
        yield bucket, hidden_BRH.flatten(0, 1).index_select(0, bucket.at_N)
        del hidden_BRH
    asked = [(states, leaf.grad) for states, leaf in cut if leaf.grad is not None]
    if asked:
        torch.autograd.backward([states for states, _ in asked], [grad for _, grad in asked])


def _cut(cache: PrefixCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Put leaves in place of the keys and values that carry gradients, so that buckets can go backward one at a time; returns the pairs."""
    pairs = []
    for held in (cache.keys, cache.values):
        for layer, states in held.items():
            if states.requires_grad:
                held[layer] = states.detach().requires_grad_()
                pairs.append((states, held[layer]))
    return pairs


@contextmanager
def _resume(layers: nn.ModuleList, first: int, hidden_BRH: torch.Tensor) -> Iterator[None]:
    """Let the model start at layer `first` with this input: the layers below pass through what they get."""
    handle = layers[first].register_forward_pre_hook(lambda _, args: (hidden_BRH, *args[1:]))
    try:
        with _replaced(layers[:first], lambda layer: lambda hidden_states, *args, **kwargs: hidden_states):
            yield
    finally:
        handle.remove()


def _recomputed(layers: nn.ModuleList) -> AbstractContextManager[None]:
    """Let each layer keep its input alone, and compute the rest again when its gradient is asked for."""

    def wrapped(layer: nn.Module) -> Callable[..., torch.Tensor]:
        forward = layer.forward
        return lambda *args, **kwargs: checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return _replaced(layers, wrapped)


@contextmanager
def _replaced(layers: nn.ModuleList, forward_of: Callable[[nn.Module], Callable[..., torch.Tensor]]) -> Iterator[None]:
    for layer in layers:
        layer.forward = forward_of(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
