"""The loss and what is reported beside it. Pure functions over tensors [B, R] of one token each."""

from __future__ import annotations

import torch


def clipped_surrogate(
    logprob_BR: torch.Tensor, old_logprob_BR: torch.Tensor, advantage_BR: torch.Tensor, weight_BR: torch.Tensor, clip: float
) -> torch.Tensor:
    """- sum of weight x min(ratio A, clip(ratio) A), ratio = p / p_old (Schulman et al. 2017, "PPO", eq. 7); a scalar."""
    ratio_BR = (logprob_BR - old_logprob_BR).exp()
    clipped_BR = ratio_BR.clamp(1 - clip, 1 + clip)
    return -(weight_BR * torch.minimum(ratio_BR * advantage_BR, clipped_BR * advantage_BR)).sum()


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
