"""What the learner must come to: samples of a model, and the gradient of a loss taken one row at a time, nothing shared."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import torch

from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.policy import Base
from onelayer.trainers.config import TrainerConfig
from onelayer.trainers.forward import Pack
from onelayer.trainers.learner import Learner, Totals
from onelayer.trainers.rows import TrainingRow, weighted

MAX_TOKENS = 24


def sampled_rows(base: Base, groups: int = 6, group_size: int = 4, longest: int = 13) -> list[TrainingRow]:
    """Rows of real samples, with advantages of which a third are zero and logprobs that are off enough to be clipped."""
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(3, 300) for _ in range(rng.randint(1, longest))) for _ in range(groups)]
    requests = [Request(p, 17 * index, Sampling(MAX_TOKENS)) for index, p in enumerate(p for p in prompts for _ in range(group_size))]
    completions = sorted(TransformersEngine(base.model, base.end_ids).generate(requests), key=lambda completion: completion.index)
    return weighted(
        [
            TrainingRow(
                list(request.prompt_ids),
                completion.token_ids,
                [True] * len(completion.token_ids),
                [logprob + rng.uniform(-0.4, 0.4) for logprob in completion.logprobs],
                [rng.choice([-1.3, 0.0, 0.8])] * len(completion.token_ids),
                [False] * len(completion.token_ids),
                item=f"item-{index // group_size}",
                group=index // group_size,
                episode=index,
                step=0,
            )
            for index, (request, completion) in enumerate(zip(requests, completions, strict=True))
        ],
        TrainerConfig(),
        MAX_TOKENS,
    )


class OffPolicyLearner(Learner):
    """A learner whose policy before the update gave the tokens the rows' own log-probabilities, as if steps had been taken since."""

    def backward(self, pack: Pack, totals: Totals) -> None:
        for bucket in pack.buckets:
            bucket.old_N = bucket.sampler_N
        super().backward(pack, totals)


def row_logprobs(model: torch.nn.Module, row: TrainingRow) -> torch.Tensor:
    """Log-probability of each of the row's tokens [R]."""
    ids, targets = torch.tensor([row.prompt_ids + row.token_ids]), torch.tensor(row.token_ids)[:, None]
    return model(ids).logits[0, len(row.prompt_ids) - 1 : -1].log_softmax(-1).gather(1, targets)[:, 0]


def plain_gradient(
    model: torch.nn.Module, rows: Sequence[TrainingRow], loss: Callable[[torch.Tensor, TrainingRow], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Gradient of the sum of `loss(logprob_R, row)` over the rows, on a copy of the whole model."""
    model = copy.deepcopy(model)
    model.requires_grad_(True)
    model.zero_grad()
    for row in rows:
        loss(row_logprobs(model, row), row).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float = 1e-5) -> None:
    for name, gradient in found.items():
        atol = max(1e-6, relative * expected[name].abs().max().item())  # a gradient is a sum of many, large and small
        assert torch.allclose(gradient, expected[name], atol=atol, rtol=1e-4), (name, (gradient - expected[name]).abs().max())
