"""Tokens drawn from logits: at a temperature, from all tokens or from the likeliest alone."""

from __future__ import annotations

import numpy as np
import torch

SAMPLED_LOGITS = 2**24
"""Logits that tokens are drawn from at a time."""


def uniform(seed_B: np.ndarray, position_B: np.ndarray) -> np.ndarray:
    """One number in [0, 1) per row, a pure function of (seed, position).

    SplitMix64 of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), on the seed's own stream.
    """
    with np.errstate(over="ignore"):
        z = _mix(seed_B.astype(np.uint64)) + (position_B.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        return (_mix(z) >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def sample(
    logits_BV: torch.Tensor,
    temperature_B: torch.Tensor,
    uniform_B: np.ndarray,
    to_some: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [B] drawn by inverting the cumulative distribution (greedy where the temperature is 0), and their logprobs [B].

    to_some: top_p [B] and top_k [B], which greedy rows do not look at; null: every token may be drawn.
    """
    rows = max(1, SAMPLED_LOGITS // logits_BV.shape[1])
    parts = [slice(start, start + rows) for start in range(0, len(logits_BV), rows)]
    drawn = [
        _sample(logits_BV[part].float(), temperature_B[part], uniform_B[part], to_some and (to_some[0][part], to_some[1][part]))
        for part in parts
    ]
    token_B, logprob_B = (torch.cat(column) for column in zip(*drawn, strict=True))
    return token_B, logprob_B


def restrict(logprob_BV: torch.Tensor, top_p_B: torch.Tensor, top_k_B: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the `top_k` likeliest tokens (0: all), and of these of the fewest that have `top_p` together, else -inf.

    First k, then p, as Transformers and vLLM do.
    """
    sorted_BV, order_BV = logprob_BV.sort(dim=-1, descending=True, stable=True)
    rank_V = torch.arange(logprob_BV.shape[1], device=logprob_BV.device)
    sorted_BV = sorted_BV.masked_fill((top_k_B[:, None] > 0) & (rank_V >= top_k_B[:, None]), -torch.inf).log_softmax(-1)
    before_BV = sorted_BV.exp().cumsum(-1, dtype=torch.float64) - sorted_BV.exp()
    sorted_BV = sorted_BV.masked_fill((top_p_B[:, None] < 1) & (rank_V > 0) & (before_BV >= top_p_B[:, None]), -torch.inf)
    return torch.empty_like(sorted_BV).scatter_(-1, order_BV, sorted_BV.log_softmax(-1))


def _sample(
    logits_BV: torch.Tensor, temperature_B: torch.Tensor, uniform_B: np.ndarray, to_some: tuple[torch.Tensor, torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    greedy_B = temperature_B == 0
    logprob_BV = (logits_BV / torch.where(greedy_B, 1.0, temperature_B)[:, None]).log_softmax(-1)
    if greedy_B.all():
        token_B = logits_BV.argmax(-1)
        return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0]
    if to_some is not None:
        logprob_BV = torch.where(greedy_B[:, None], logprob_BV, restrict(logprob_BV, *to_some))
    cumulative_BV = logprob_BV.exp().cumsum(-1, dtype=torch.float64)
    threshold_B1 = torch.from_numpy(uniform_B).to(logits_BV.device)[:, None] * cumulative_BV[:, -1:]
    token_B = torch.searchsorted(cumulative_BV, threshold_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
    token_B = torch.where(greedy_B, logits_BV.argmax(-1), token_B)
    return token_B, logprob_BV.gather(1, token_B[:, None])[:, 0]
