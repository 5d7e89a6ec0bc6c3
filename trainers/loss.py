"""The loss and what is reported beside it. Pure functions over tensors [B, R] of one token each."""

from __future__ import annotations

import torch


def clipped_surrogate(
    log_ratio_BR: torch.Tensor,
    advantage_BR: torch.Tensor,
    weight_BR: torch.Tensor,
    low: float = 0.2,
    high: float = 0.2,
    dual: float | None = None,
) -> torch.Tensor:
    """- sum of weight x min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = p / p_old; a scalar.

    Schulman et al. 2017, "PPO", eq. 7; with two bounds Yu et al. 2025, "DAPO", eq. 10. `dual` bounds what a negative advantage can
    cost, however likely the token has become: max(.., dual A) (Ye et al. 2020, "Mastering Complex Control in MOBA Games", eq. 5).
    """
    ratio_BR = log_ratio_BR.exp()
    gain_BR = torch.minimum(ratio_BR * advantage_BR, ratio_BR.clamp(1 - low, 1 + high) * advantage_BR)
    if dual is not None:
        gain_BR = torch.where(advantage_BR < 0, torch.maximum(gain_BR, dual * advantage_BR), gain_BR)
    return -(weight_BR * gain_BR).sum()


def sequence_log_ratio(log_ratio_BR: torch.Tensor, mask_BR: torch.Tensor) -> torch.Tensor:
    """In place of every token's own log ratio the mean over its row, with the gradient of its own.

    Zheng et al. 2025, "GSPO", eq. 7 and 14 (GSPO-token). With one advantage and one weight a row the gradient is that of the mean itself;
    in a conversation, whose steps may have different ones, each advantage moves the tokens of its own step alone.
    """
    length_B1 = mask_BR.sum(1, keepdim=True).clamp(min=1)
    mean_B1 = (log_ratio_BR * mask_BR).sum(1, keepdim=True) / length_B1
    return mean_B1.detach() + (log_ratio_BR - log_ratio_BR.detach())


def k3(logprob_BR: torch.Tensor, reference_BR: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(policy || reference) per token, never negative: q/p - log(q/p) - 1 (Schulman 2020, "k3")."""
    log_ratio_BR = reference_BR - logprob_BR
    return log_ratio_BR.exp() - log_ratio_BR - 1


def token_logprobs(logits_BRV: torch.Tensor, target_BR: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probability of each target, in nats, under softmax(logits / temperature)."""
    scaled_BRV = logits_BRV.float() / temperature
    return scaled_BRV.gather(-1, target_BR[..., None])[..., 0] - scaled_BRV.logsumexp(-1)


@torch.no_grad()
def entropy(logits_BRV: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropy in nats of each token's distribution [B, R]."""
    logprob_BRV = (logits_BRV.float() / temperature).log_softmax(-1)
    return -(logprob_BRV.exp() * logprob_BRV).sum(-1)
