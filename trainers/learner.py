"""The learner: rows in, optimiser steps on the trained set out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from ..agents.decoder import decoder_layers
from ..agents.length import with_length
from ..agents.trained_sets import TrainedSet
from ..common.errors import UserError
from ..common.seeds import derive_seed
from . import head
from .config import Config
from .forward import Bucket, Pack, default_tokens, hidden_states, packs
from .loss import bounded, clipped_surrogate, k3, sequence_mean
from .ranks import ONE_PROCESS, Ranks
from .rows import TrainingRow, minibatches
from .sharded import optimizer_of

MOST_SKIPPED = 10
"""Optimiser steps in a row whose gradient was not finite, after which a run stops."""


class Learner:
    """The model under training: turns rows into optimiser steps on the trained set, and on nothing else."""

    def __init__(self, model: PreTrainedModel, trained: TrainedSet, config: Config, ranks: Ranks = ONE_PROCESS):
        self.model, self.trained, self.settings, self.ranks = model, trained, config.trainer, ranks
        self.max_tokens = with_length(config.agent, model, config.env).reply_length
        self.temperature, self.step = config.agent.temperature, 0
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        for parameter in trained.parameters.values():
            parameter.requires_grad_(True)
        # The reference policy differs from the policy in the trained set alone: that is all of it that is kept.
        self.reference = {name: p.detach().clone() for name, p in trained.parameters.items()} if self.settings.kl_coef else {}
        self.optimizer = optimizer_of(trained, self.model, self.settings, ranks)
        inside = 0 < trained.first_layer < len(decoder_layers(model))
        self.inputs_of = trained.first_layer if self.settings.hand_over and inside and ranks.size == 1 else None
        """The layer whose input an update can take from the rollout; of several ranks, each updates other groups than it has played."""
        self.tokens_per_forward = self.settings.tokens_per_forward or default_tokens(self.model)
        self.skipped = 0

    def update(self, rows: Sequence[TrainingRow]) -> dict[str, float | None]:
        """`epochs` passes over the rows in `minibatches` optimiser steps each. All ranks are given the same rows.

        Returns metrics averaged over the tokens of the rows that were not skipped; None where all were. Raises UserError where the
        gradient has not been finite for `MOST_SKIPPED` optimiser steps in a row.
        """
        settings = self.settings
        parts = minibatches(rows, settings, self.max_tokens, derive_seed(settings.seed, self.step, "minibatches"))
        kept = [[row for row in part if row.has_signal or settings.kl_coef or not settings.skip_zero_rows] for part in parts]
        prepared = [packs(self.ranks.share(part), self.tokens_per_forward, self.model.device) for part in kept]
        tokens = sum(pack.tokens for part in prepared for pack in part)
        handed_over = sum(pack.tokens for part in prepared for pack in part if pack.handed_over)
        totals, norms = Totals(), []
        if settings.epochs * len(parts) > 1:
            for pack in (pack for part in prepared for pack in part):
                self.keep_old(pack)
        for epoch in range(settings.epochs):
            for part in prepared:
                for pack in part:
                    self.backward(pack, totals)
                    if epoch + 1 == settings.epochs:
                        pack.forget_inputs()
                norms.append(self.optimizer.step())
        self.step += 1
        finite = [norm for norm in norms if math.isfinite(norm)]
        self.skipped = 0 if finite else self.skipped + len(norms)
        if self.skipped >= MOST_SKIPPED:
            raise UserError(
                f"step {self.step - 1}: the gradient was not finite in the last {self.skipped} optimiser steps, none of which was taken; "
                "lower trainer.lr, or compute with model.dtype=float32"
            )
        return (
            dict.fromkeys(("clip_share", "entropy", "sampler_kl"))
            | Totals.sum(self.ranks.gather(totals)).means()
            | {"grad_norm": float(np.mean(finite)) if finite else None, "skipped_updates": len(norms) - len(finite)}
            | {"rows_updated": sum(len(part) for part in kept)}
            | {"tokens_updated": sum(self.ranks.gather(tokens)), "tokens_handed_over": handed_over}
        )

    def backward(self, pack: Pack, totals: Totals) -> None:
        """Add the gradient of one pack's part of the loss to that of the trained set."""
        references = self.reference_logprobs(pack) if self.settings.kl_coef else [None] * len(pack.buckets)
        for (bucket, hidden_NH), reference_N in zip(self._hidden_states(pack), references, strict=True):
            # The ratio of a sequence needs all of its tokens before the gradient of any; before the first step it is 1.
            old_N = bucket.old_N if self.settings.ratio == "sequence" else None
            means_N = None if old_N is None else self._mean_log_ratios(bucket, old_N, hidden_NH)
            loss = partial(self.token_loss, bucket, reference_N, means_N, totals)
            head.backward(self.model, hidden_NH, bucket.target_N, self.temperature, loss)

    def token_loss(
        self,
        bucket: Bucket,
        reference_N: torch.Tensor | None,
        means_N: torch.Tensor | None,
        totals: Totals,
        chunk: slice,
        logprob_C: torch.Tensor,
        entropy_C: torch.Tensor,
    ) -> torch.Tensor:
        """The part of the loss that a chunk of a bucket's tokens has, a scalar."""
        settings, now_C = self.settings, logprob_C.detach()
        old_C = now_C if bucket.old_N is None else bucket.old_N[chunk]
        advantage_C, weight_C = bucket.advantage_N[chunk], bucket.weight_N[chunk]
        log_ratio_C = bounded(logprob_C - old_C)
        if means_N is not None:
            log_ratio_C = means_N[chunk] + (log_ratio_C - log_ratio_C.detach())
        sampler_C = bounded(old_C - bucket.sampler_N[chunk])
        if settings.importance_cap is not None:
            # Truncated importance sampling (Yao et al. 2025): where the engine's probabilities differ from the trainer's, the weight of
            # each token is multiplied with min(p_trainer / p_engine, cap), both before the update.
            totals.add("importance", sampler_C.exp())
            weight_C = weight_C * sampler_C.exp().clamp(max=settings.importance_cap)
        low, high = settings.clip, settings.clip_high or settings.clip
        loss = clipped_surrogate(log_ratio_C, advantage_C, weight_C, low, high, settings.dual_clip)
        if reference_N is not None:
            kl_C = k3(logprob_C, reference_N[chunk])
            loss = loss + settings.kl_coef * (bucket.weight_N[chunk] * kl_C).sum()
            totals.add("kl", kl_C.detach())
        with torch.no_grad():
            outside_C = torch.where(advantage_C > 0, log_ratio_C > np.log1p(high), log_ratio_C < np.log1p(-low))
            totals.add("clip_share", outside_C & (advantage_C != 0))
            totals.add("entropy", entropy_C)
            totals.add("sampler_kl", sampler_C.exp() - sampler_C - 1)
        return loss

    @torch.no_grad()
    def keep_old(self, pack: Pack) -> None:
        """Keep each token's log-probability under the policy before the update, against which ratios are taken from then on.

        The engine's own is not the same number: in bfloat16 its sums are rounded in another order.
        """
        for bucket, hidden_NH in self._hidden_states(pack):
            bucket.old_N = head.logprobs_of(self.model, hidden_NH, bucket.target_N, self.temperature)

    @torch.no_grad()
    def reference_logprobs(self, pack: Pack) -> list[torch.Tensor]:
        """Log-probabilities [N] of each bucket under the base, whose trained set takes the policy's place for one pass."""
        swap(self.trained.parameters, self.reference)
        try:
            return [
                head.logprobs_of(self.model, hidden_NH, bucket.target_N, self.temperature)
                for bucket, hidden_NH in self._hidden_states(pack)
            ]
        finally:
            swap(self.trained.parameters, self.reference)

    def _mean_log_ratios(self, bucket: Bucket, old_N: torch.Tensor, hidden_NH: torch.Tensor) -> torch.Tensor:
        logprob_N = head.logprobs_of(self.model, hidden_NH, bucket.target_N, self.temperature)
        return sequence_mean(bounded(logprob_N - old_N), bucket.row_N)

    def _hidden_states(self, pack: Pack) -> Iterator[tuple[Bucket, torch.Tensor]]:
        settings = self.settings
        first = self.trained.first_layer
        return hidden_states(self.model, pack, first, reuse=settings.several_passes, recompute=settings.checkpoint_layers)

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

    def add(self, name: str, value_C: torch.Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float(value_C.sum())
        self.counts[name] = self.counts.get(name, 0) + len(value_C)

    @classmethod
    def sum(cls, parts: Sequence[Totals]) -> Totals:
        """The totals over the tokens of all parts."""
        found = cls()
        for part in parts:
            for name, total in part.sums.items():
                found.sums[name] = found.sums.get(name, 0.0) + total
                found.counts[name] = found.counts.get(name, 0) + part.counts[name]
        return found

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}
