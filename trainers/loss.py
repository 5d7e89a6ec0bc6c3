"""The loss and what is reported beside it. Pure functions over tensors [N] of one token each."""

from __future__ import annotations

import torch

LARGEST_LOG_RATIO = 20.0


def clipped_surrogate(
    log_ratio_N: torch.Tensor,
    advantage_N: torch.Tensor,
    weight_N: torch.Tensor,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> torch.Tensor:
    """- sum of weight x min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = p / p_old; a scalar.

    Schulman et al. 2017, "PPO", eq. 7; with two bounds Yu et al. 2025, "DAPO", eq. 10. `dual` bounds what a negative advantage can
    cost, however likely the token has become: max(.., dual A) (Ye et al. 2020, "Mastering Complex Control in MOBA Games", eq. 5).
    """
    ratio_N = log_ratio_N.exp()
    gain_N = torch.minimum(ratio_N * advantage_N, ratio_N.clamp(1 - low, 1 + high) * advantage_N)
    if dual is not None:
        gain_N = torch.where(advantage_N < 0, torch.maximum(gain_N, dual * advantage_N), gain_N)
    return -(weight_N * gain_N).sum()


def sequence_mean(log_ratio_N: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """Each token's log ratio replaced by the mean over its row (`row_N`), without a gradient.

    Zheng et al. 2025, "GSPO", eq. 7; put in the place of a token's value with the gradient of its own it is eq. 14 (GSPO-token). With one
    advantage and one weight a row the gradient is that of the mean itself; in a conversation, whose steps may have different ones, each
    advantage moves the tokens of its own step alone.
    """
    rows = int(row_N.max()) + 1 if len(row_N) else 0
    sum_B = log_ratio_N.new_zeros(rows).index_add(0, row_N, log_ratio_N.detach())
    return (sum_B / torch.bincount(row_N, minlength=rows).clamp(min=1))[row_N]


def bounded(log_ratio_N: torch.Tensor) -> torch.Tensor:
    """A log ratio within +-`LARGEST_LOG_RATIO`, so that its exponential stays finite."""
    return log_ratio_N.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def k3(logprob_N: torch.Tensor, reference_N: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(policy || reference) per token, never negative: q/p - log(q/p) - 1 (Schulman 2020, "k3")."""
    log_ratio_N = bounded(reference_N - logprob_N)
    return log_ratio_N.exp() - log_ratio_N - 1
