"""What every trained set is, whatever its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from .changes import PLACES


@dataclass(frozen=True)
class TrainedSet:
    """The parameters that a run may change, by name, and where the first of them sits in the forward pass."""

    spec: str
    parameters: dict[str, nn.Parameter]
    first_layer: int
    """Lowest decoder layer that holds a trained parameter; every layer below is a constant of the run. 0 with the
    embeddings trained, the number of layers where only the head or the final norm is."""
    total: int
    """Parameters of the whole model."""
    places: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Where only some entries of a parameter are trained: their places in the flattened parameter, in rising order."""

    @property
    def count(self) -> int:
        return sum(len(self.places[name]) if name in self.places else p.numel() for name, p in self.parameters.items())

    @property
    def share(self) -> float:
        return self.count / self.total

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What a patch of the set holds: the shape of each tensor, by name."""
        whole = {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}
        parts = {name: tuple(places.shape) for name, places in self.places.items()}
        return whole | parts | {name + PLACES: shape for name, shape in parts.items()}

    def contents(self, masters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a patch of the set holds: the trained values, and where they belong if that is not the whole of a weight."""
        return {**masters, **{name + PLACES: places for name, places in self.places.items()}}

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The model's own weights that the set changes, as they now are, by the names that they have in the base."""
        return self.parameters

    @contextmanager
    def attached(self, seed: int) -> Iterator[None]:
        """Inside the `with` the model computes with `parameters`, which begin where a run of this seed begins. What a kind puts into the
        model for that is gone after it. Raises UserError where the kind cannot be trained here."""
        yield

    def read(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The trained entries of a tensor of the parameter's shape: all of it, or the chosen places in one list."""
        return tensor.flatten()[self.places[name]] if name in self.places else tensor

    @torch.no_grad()
    def write(self, name: str, values: torch.Tensor) -> None:
        """Put values, as `read` gives them, into the parameter."""
        parameter = self.parameters[name]
        if name in self.places:
            parameter.view(-1)[self.places[name]] = values.to(parameter.dtype)
        else:
            parameter.copy_(values)
