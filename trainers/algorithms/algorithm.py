"""What every algorithm says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from .steps import FloatArray, Steps


@dataclass(frozen=True)
class Batch:
    """How much an optimiser step learns from; what its loss may be divided by."""

    rows: int
    """Sequences: steps with a prompt of their own, or whole conversations."""
    tokens: int
    """Sampled tokens that are learned from."""
    episodes: int
    max_tokens: int
    """The longest reply that the agent may give."""


class Algorithm(BaseModel):
    """One algorithm; its fields are its keys, at the defaults of its authors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    TRAINER: ClassVar[Mapping[str, object]] = {}
    """Keys of `trainer` whose defaults are others under this algorithm."""

    def check(self) -> None:
        """Raises UserError where it cannot be used here."""

    def advantages(self, steps: Steps) -> FloatArray:
        """The advantage of each of the N steps of a rollout [N]."""
        raise NotImplementedError

    def divisor(self, batch: Batch, tokens: int) -> int:
        """What the loss of each token is divided by; the batch's loss is then the plain sum. tokens: those of its own row."""
        raise NotImplementedError


def sequence_mean(batch: Batch, tokens: int) -> int:
    """The mean over the tokens of a row, then over the rows (DeepSeekMath, arXiv:2402.03300, eq. 3)."""
    return batch.rows * tokens


def token_mean(batch: Batch, tokens: int) -> int:
    """The mean over all tokens of the batch (DAPO, arXiv:2503.14476, eq. 12)."""
    return batch.tokens


def constant(batch: Batch, tokens: int) -> int:
    """The sum over the tokens, over a constant (Dr. GRPO, arXiv:2503.20783): nothing that was sampled, neither tokens nor turns."""
    return batch.episodes * batch.max_tokens


DIVISORS = {"sequence_mean": sequence_mean, "token_mean": token_mean, "constant": constant}
"""By the value of the key `loss_weights`, where an algorithm has one."""
LOSS_WEIGHTS = (
    "sequence_mean: over the tokens of a sequence, then over sequences; token_mean: over all tokens; "
    "constant: the sum over tokens, divided by episodes x agent.max_tokens"
)
