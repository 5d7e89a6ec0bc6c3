"""Log-probabilities of chosen tokens, and gradients through them, without the logits of a batch.

The head of a language model turns each hidden state into as many numbers as the vocabulary has tokens, which for a batch is far more
than everything else in memory. Here it is applied to a few tokens at a time: their log-probabilities, entropy, loss and the gradient of
their hidden states are computed together, and their logits are gone before those of the next tokens are made. A loss that is a sum over
tokens has the same gradient as on the whole batch.

Shape letters: N sampled tokens of a bucket, C tokens of a chunk, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import PreTrainedModel

from ..agents.prefix import head_logits

CHUNK_BYTES = 64 * 2**20
"""Size of a chunk's logits in float32; a few tensors of this size are alive at a time."""


class _TokenLogprobs(torch.autograd.Function):
    """Log-probability of the targets under softmax(logits / temperature), and the entropy, which carries no gradient."""

    @staticmethod
    def forward(ctx: Any, logits_CV: torch.Tensor, target_C: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        logprob_CV = logits_CV.float()
        if temperature != 1:
            logprob_CV = logprob_CV / temperature
        logprob_CV = logprob_CV.log_softmax(-1)
        chosen_C = logprob_CV.gather(-1, target_C[:, None])[:, 0]
        probability_CV = logprob_CV.exp()
        entropy_C = -logprob_CV.mul_(probability_CV).sum(-1)
        ctx.probability_CV, ctx.target_C, ctx.temperature, ctx.dtype = probability_CV, target_C, temperature, logits_CV.dtype
        ctx.mark_non_differentiable(entropy_C)
        return chosen_C, entropy_C

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        grad_C = gradients[0] / ctx.temperature
        grad_CV = ctx.probability_CV.mul_(-grad_C[:, None])  # in place: it is used once
        grad_CV[torch.arange(len(grad_C), device=grad_C.device), ctx.target_C] += grad_C
        return grad_CV.to(ctx.dtype), None, None


def token_logprobs(logits_CV: torch.Tensor, target_C: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of its distribution, softmax(logits / temperature); both [C], in nats.

    Its gradient may be asked for once.
    """
    logprob_C, entropy_C = _TokenLogprobs.apply(logits_CV, target_C, temperature)
    return logprob_C, entropy_C


@torch.no_grad()
def logprobs_of(model: PreTrainedModel, hidden_NH: torch.Tensor, target_N: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities [N] of the targets after the decoder's last hidden states, without a gradient."""
    found_N = torch.empty(len(target_N), device=hidden_NH.device)
    for chunk in _chunks(model, len(target_N)):
        found_N[chunk], _ = token_logprobs(head_logits(model, hidden_NH[chunk]), target_N[chunk], temperature)
    return found_N


TokenLoss = Callable[[slice, torch.Tensor, torch.Tensor], torch.Tensor]
"""The loss of the tokens in a slice of N, a scalar, from their log-probabilities and entropies."""


def backward(model: PreTrainedModel, hidden_NH: torch.Tensor, target_N: torch.Tensor, temperature: float, loss: TokenLoss) -> None:
    """Add the gradient of the sum of `loss` over all tokens to that of whatever the hidden states and the head depend on."""
    grad_NH = torch.zeros_like(hidden_NH)
    for chunk in _chunks(model, len(target_N)):
        hidden_CH = hidden_NH[chunk].detach().requires_grad_(hidden_NH.requires_grad)
        logprob_C, entropy_C = token_logprobs(head_logits(model, hidden_CH), target_N[chunk], temperature)
        loss(chunk, logprob_C, entropy_C).backward()
        if hidden_CH.grad is not None:
            grad_NH[chunk] = hidden_CH.grad
    if hidden_NH.requires_grad:
        hidden_NH.backward(grad_NH)


def _chunks(model: PreTrainedModel, count: int) -> Iterator[slice]:
    head = model.get_output_embeddings()
    size = max(1, CHUNK_BYTES // (4 * model.config.get_text_config().vocab_size))
    if head is not None and head.weight.requires_grad:  # each chunk adds a gradient as large as the head: fewer of them
        size *= 8
    return (slice(start, start + size) for start in range(0, count, size))
