"""The learner: rows in, optimiser steps on the trained set out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ..agents.agent import derive_seed
from ..agents.length import with_length
from ..agents.policy import Base, TrainedSet
from .config import Config
from .forward import Pack, pack_logits, packs
from .loss import clipped_surrogate, entropy, k3, sequence_log_ratio, token_logprobs
from .optimizer import MasterAdamW
from .rows import Row, minibatches


class Learner:
    """The model under training: turns rows into optimiser steps on the trained set, and on nothing else."""

    def __init__(self, base: Base, trained: TrainedSet, config: Config):
        self.model, self.trained, self.settings = base.model, trained, config.trainer
        self.max_tokens = with_length(config.agent, base.model, config.env).reply_length
        self.temperature, self.step = config.agent.temperature, 0
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in trained.parameters.values():
            parameter.requires_grad_(True)
        # The reference policy differs from the policy in the trained set alone: that is all of it that is kept.
        self.reference = {name: p.detach().clone() for name, p in trained.parameters.items()} if self.settings.kl_coef else {}
        self.optimizer = MasterAdamW(trained, self.model, self.settings)

    def update(self, rows: Sequence[Row]) -> dict[str, float | None]:
        """`epochs` passes over the rows in `minibatches` optimiser steps each.

        Returns metrics averaged over the tokens of the rows that were not skipped; None where all were.
        """
        parts = minibatches(rows, self.settings, self.max_tokens, derive_seed(self.settings.seed, self.step, "minibatches"))
        kept = [[row for row in part if row.has_signal or self.settings.kl_coef or not self.settings.skip_zero_rows] for part in parts]
        prepared = [packs(part, self.settings.rows_per_forward, self.model.device) for part in kept]
        totals, norms = Totals(), []
        if self.settings.importance_cap is not None:
            for pack in (pack for part in prepared for pack in part):
                self.correct_sampling(pack, self.settings.importance_cap, totals)
        for _ in range(self.settings.epochs):
            for part in prepared:
                self.optimizer.zero_grad()
                for pack in part:
                    self.loss(pack, totals).backward()
                norms.append(self.optimizer.step())
        self.step += 1
        return (
            dict.fromkeys(("clip_share", "entropy", "sampler_kl"))
            | totals.means()
            | {"grad_norm": float(np.mean(norms)), "rows_updated": sum(len(part) for part in kept)}
            | {"tokens_updated": sum(len(row.prompt_ids) + len(row.token_ids) for part in kept for row in part)}
        )

    def loss(self, pack: Pack, totals: Totals) -> torch.Tensor:
        """One pack's part of the loss, a scalar."""
        settings = self.settings
        references = self.reference_logprobs(pack, self.reuses) if settings.kl_coef else [None] * len(pack.buckets)
        loss = torch.zeros((), device=self.model.device)
        for (bucket, logits_BRV), reference_BR in zip(
            pack_logits(self.model, pack, self.trained.first_layer, self.reuses), references, strict=True
        ):
            logprob_BR = token_logprobs(logits_BRV, bucket.target_BR, self.temperature)
            log_ratio_BR = torch.where(bucket.mask_BR, logprob_BR - bucket.logprob_BR, 0.0)
            ratio_of_BR = sequence_log_ratio(log_ratio_BR, bucket.mask_BR) if settings.ratio == "sequence" else log_ratio_BR
            low, high = settings.clip, settings.clip_high or settings.clip
            loss = loss + clipped_surrogate(ratio_of_BR, bucket.advantage_BR, bucket.weight_BR, low, high, settings.dual_clip)
            if reference_BR is not None:
                kl_BR = k3(logprob_BR, reference_BR)
                loss = loss + settings.kl_coef * (bucket.weight_BR * kl_BR).sum()
                totals.add("kl", kl_BR.detach(), bucket.mask_BR)
            with torch.no_grad():
                outside_BR = torch.where(bucket.advantage_BR > 0, ratio_of_BR > np.log1p(high), ratio_of_BR < np.log1p(-low))
                totals.add("clip_share", outside_BR & (bucket.advantage_BR != 0), bucket.mask_BR)
                totals.add("entropy", entropy(logits_BRV, self.temperature), bucket.mask_BR)
                totals.add("sampler_kl", log_ratio_BR.exp() - log_ratio_BR - 1, bucket.mask_BR)
        return loss

    @torch.no_grad()
    def correct_sampling(self, pack: Pack, cap: float, totals: Totals) -> None:
        """Where the engine's probabilities differ from the trainer's: truncated importance sampling (Yao et al. 2025).

        Ratios are taken against the trainer's own probabilities before the update, and the weight of each token is multiplied with
        min(p_trainer / p_engine, cap).
        """
        for at, (bucket, logits_BRV) in enumerate(pack_logits(self.model, pack, self.trained.first_layer, self.reuses)):
            logprob_BR = token_logprobs(logits_BRV, bucket.target_BR, self.temperature)
            importance_BR = torch.where(bucket.mask_BR, logprob_BR - bucket.logprob_BR, 0.0).exp()
            totals.add("importance", importance_BR, bucket.mask_BR)
            pack.buckets[at] = replace(bucket, logprob_BR=logprob_BR, weight_BR=bucket.weight_BR * importance_BR.clamp(max=cap))

    @property
    def reuses(self) -> bool:
        """Whether a pack's rows run through the model more than once."""
        return self.settings.epochs > 1 or self.settings.kl_coef > 0 or self.settings.importance_cap is not None

    @torch.no_grad()
    def reference_logprobs(self, pack: Pack, reuse: bool) -> list[torch.Tensor]:
        """Log-probabilities [B, R] under the base, whose trained set takes the policy's place for one pass."""
        swap(self.trained.parameters, self.reference)
        try:
            return [
                token_logprobs(logits_BRV, bucket.target_BR, self.temperature)
                for bucket, logits_BRV in pack_logits(self.model, pack, self.trained.first_layer, reuse)
            ]
        finally:
            swap(self.trained.parameters, self.reference)

    def state(self) -> dict[str, object]:
        return {"step": self.step, "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict | None) -> None:
        if state is not None:
            self.step = state["step"]
            self.optimizer.load_state_dict(state["optimizer"])


def swap(parameters: dict[str, torch.nn.Parameter], others: dict[str, torch.Tensor]) -> None:
    """Exchange the values of parameters and tensors, without copying."""
    for name, parameter in parameters.items():
        parameter.data, others[name] = others[name], parameter.data


class Totals:
    """Sums over tokens, by name."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value_BR: torch.Tensor, mask_BR: torch.Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float((value_BR * mask_BR).sum())
        self.counts[name] = self.counts.get(name, 0) + int(mask_BR.sum())

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}
