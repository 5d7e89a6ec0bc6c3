"""What enters a decoder layer while tokens are made, handed over to the update.

Below the lowest trained layer a run changes nothing. What entered that layer in the rollout is therefore what the update would compute
again, up to rounding: the update can start there.

Shape letters: B rows, T prompt tokens, R tokens that follow, W columns, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class LayerInputs:
    """Hidden states that entered a decoder layer, one a token, in the model's format and in the host's memory."""

    prompt_TH: torch.Tensor
    """Of the prompt without its last token, one tensor for all replies to it; of the last T of these tokens alone, where the engine had
    the keys and values of those before."""
    rest_RH: tuple[torch.Tensor, ...]
    """Of the prompt's last token and of all that follows but the very last token, in parts one after another."""

    def then(self, step: LayerInputs, between: int) -> LayerInputs | None:
        """With the next step of a conversation, whose prompt has `between` tokens after all that is here; None where it lacks them."""
        if len(step.prompt_TH) < between:
            return None
        return LayerInputs(self.prompt_TH, (*self.rest_RH, step.prompt_TH[-between:], *step.rest_RH))


@dataclass
class InputMemory:
    """Memory for what enters a layer, until the weights change."""

    left: int
    """Bytes."""
    layer: int | None = None
    """The layer that is asked for; None: none is."""

    def keep(self, hidden_TH: torch.Tensor) -> torch.Tensor | None:
        """A copy in the host's memory, while there is some."""
        if hidden_TH.nbytes > self.left:
            return None
        self.left -= hidden_TH.nbytes
        return hidden_TH.to("cpu", copy=True)


def padded(states: Sequence[Sequence[torch.Tensor]], width: int, device: torch.device, *, left: bool = False) -> torch.Tensor:
    """The hidden states [B, W, H] of rows in parts, with zeros after each row, or before it with `left`."""
    like = states[0][0]
    hidden_BWH = torch.zeros(len(states), width, like.shape[-1], dtype=like.dtype, device=device)
    for row, parts in enumerate(states):
        column = width - sum(map(len, parts)) if left else 0
        for part in parts:
            hidden_BWH[row, column : column + len(part)] = part
            column += len(part)
    return hidden_BWH


@contextmanager
def recorded(layer: nn.Module, inputs: list[torch.Tensor]) -> Iterator[None]:
    """Inside the `with`: what enters the layer is appended to `inputs`, a tensor a pass."""
    handle = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    try:
        yield
    finally:
        handle.remove()
