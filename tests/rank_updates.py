"""Updates from recorded rollouts at one rank of several, or in one process; run as a program it is one of several ranks.

RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python rank_updates.py OUTPUT SPEC...
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch
from families import random_base
from reference_update import sampled_rows
from torch.distributed.tensor import DTensor

from onelayer.agents.trained_sets import select
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.launch import joined
from onelayer.trainers.learner import Learner
from onelayer.trainers.ranks import ONE_PROCESS, Ranks

STEPS = 5
SETTINGS = {"kl_coef": 0.1, "epochs": 2, "minibatches": 2, "lr": 1e-3, "warmup_steps": 0, "tokens_per_forward": 200}
SHARDED = ", sharded"
"""After a set's name: with `trainer.shard`."""


class RecordingLearner(Learner):
    """Adds up the loss of each update."""

    loss = 0.0

    def token_loss(self, *arguments: object) -> torch.Tensor:
        loss = super().token_loss(*arguments)  # pyright: ignore[reportArgumentType]
        self.loss += float(loss.detach())
        return loss


@dataclass
class Updates:
    """What came of some updates of one trained set."""

    gradients: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of the first optimiser step."""
    losses: list[float] = field(default_factory=list)
    metrics: list[dict[str, float | None]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    sent: int = 0
    """Bytes that a rank gave to be added up, in all steps."""
    moments: int = 0
    """Bytes of the moments that a rank holds."""


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What a rank holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """The tensor with the parts of all ranks."""
    assert tensor is not None
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).view(shape).clone()


def updates(spec: str, ranks: Ranks = ONE_PROCESS, shard: bool = False) -> Updates:
    """`STEPS` updates from the same rows, as `SETTINGS` have them."""
    base = random_base("llama")
    rows = sampled_rows(base, group_size=2)
    trained = select(base.model, spec)
    found, before = Updates(), getattr(ranks, "sent", 0)
    with trained.attached(0):
        config = Config(trainer=TrainerConfig.model_validate({"trained_set": spec, "shard": shard, **SETTINGS}))
        learner = RecordingLearner(base.model, trained, config, ranks)
        optimizer, clip = learner.optimizer, learner.optimizer._clip

        def recording() -> float:
            if not found.gradients:
                found.gradients = {name: whole(master.grad, weights[name].shape) for name, master in optimizer.masters.items()}
            return clip()

        weights = optimizer.values()
        optimizer._clip = recording
        for _ in range(STEPS):
            learner.loss = 0.0
            found.metrics.append(learner.update(rows))
            found.losses.append(sum(ranks.gather(learner.loss)))
        found.weights = {name: weight.clone() for name, weight in optimizer.values().items()}
        found.moments = sum(local(held).nbytes for state in optimizer.adamw.state.values() for held in state.values() if held.ndim)
    found.sent = getattr(ranks, "sent", 0) - before
    return found


def main() -> None:
    output, *specs = sys.argv[1:]
    with joined() as ranks:
        found = {spec: vars(updates(spec.removesuffix(SHARDED), ranks, spec.endswith(SHARDED))) for spec in specs}
        if ranks.first:
            torch.save(found, output)


if __name__ == "__main__":
    main()
