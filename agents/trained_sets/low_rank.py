"""Low-rank adapters beside the linear maps of decoder layers (Hu et al. 2021, "LoRA", arXiv:2106.09685), through the peft package.

`lora:R` adapts every linear map of every layer, `lora:R@layer:12` or `lora:R@layers:3,4` those of some, and `lora:R.q_proj,v_proj` the
maps of these names. A map's weight W becomes
W + (ALPHA / R) B A: A has R rows and B has R columns, and B begins at zero. A and B are trained, in float32. Experts that a model keeps
in one tensor get factors each. Routers, norms and biases stay as they are.

The set is inert until it is `attached`: then peft's modules stand in the place of the model's own, and put them back in the end.

Shape letters: E experts (1 for a single map), M and N rows and columns of the weight as the model keeps it, R rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...common.errors import UserError
from ..decoder import decoder_layers
from .blocks import indices_of
from .changes import LEFT, RIGHT, added
from .trained_set import TrainedSet

GRAMMAR = "lora:R, lora:R@layer:N, lora:R@layers:N,N,..., lora:R.MAP,MAP,... with or without layers (rank R)"
ALPHA = 32
"""With the scale ALPHA / R about the same learning rate is best for ranks of all sizes (Schulman et al. 2025, "LoRA Without Regret",
https://thinkingmachines.ai/blog/lora/, which takes 32 too)."""


@dataclass(frozen=True)
class AdaptedWeight:
    """A weight and its factors, in the shapes that peft keeps them in."""

    name: str
    owner: str
    """Name of the module that holds the weight."""
    weight: nn.Parameter
    """[M, N] or [E, M, N]."""
    transposed: bool
    """Whether its rows are the inputs, as in GPT-2; else its columns are."""
    down: nn.Parameter
    """A: [E R, inputs]."""
    up: nn.Parameter
    """B: [outputs, R E]."""

    @property
    def map(self) -> str:
        """The last part of its module's name, as q_proj."""
        return self.owner.rpartition(".")[2]

    def factors(self, down: torch.Tensor, up: torch.Tensor, alpha: float = ALPHA) -> tuple[torch.Tensor, torch.Tensor]:
        """What A and B of these values add to the weight: the product of [..., M, R] and [..., R, N], the scale in the first."""
        *experts, rows, columns = self.weight.shape
        count = math.prod(experts)
        down_ERI = down.unflatten(0, (count, -1))
        up_EOR = up.unflatten(1, (-1, count)).permute(2, 0, 1)
        rank = down_ERI.shape[1]
        left_EMR, right_ERN = (down_ERI.mT, up_EOR.mT) if self.transposed else (up_EOR, down_ERI)
        return (left_EMR * (alpha / rank)).reshape(*experts, rows, rank), right_ERN.reshape(*experts, rank, columns)


@dataclass(frozen=True)
class LowRankSet(TrainedSet):
    """Factors beside weights of the model, none of which changes itself."""

    model: PreTrainedModel = field(kw_only=True, repr=False)
    rank: int = field(kw_only=True)
    adapted: tuple[AdaptedWeight, ...] = field(kw_only=True, repr=False)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        contents = self.contents({name: parameter.to("meta") for name, parameter in self.parameters.items()})
        return {name: tuple(tensor.shape) for name, tensor in contents.items()}

    def contents(self, masters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {}
        for one in self.adapted:
            left, right = one.factors(masters[f"{one.name}.lora_A"].detach(), masters[f"{one.name}.lora_B"].detach())
            found |= {one.name + LEFT: left, one.name + RIGHT: right}
        return found

    def weights(self) -> Mapping[str, torch.Tensor]:
        return _Merged({one.name: one for one in self.adapted})

    @contextmanager
    def attached(self, seed: int) -> Iterator[None]:
        """Raises UserError where peft is not installed."""
        self._begin(seed)
        places = {one.owner: self.model.get_submodule(one.owner) for one in self.adapted}
        order = [(module._parameters, list(module._parameters)) for module in places.values()]
        try:
            with torch.random.fork_rng():  # peft draws values of its own, in whose place ours are put
                for one in self.adapted:
                    _put(self.model, one.owner, _adapter(self.model.get_submodule(one.owner), one, self.rank))
            yield
        finally:
            for owner, module in places.items():
                _put(self.model, owner, module)
            for held, names in order:  # peft takes a parameter of experts out for each pass, and puts it back behind the others
                for name in names:
                    held[name] = held.pop(name)

    @torch.no_grad()
    def _begin(self, seed: int) -> None:
        """A as in Hu et al.'s code, uniform within 1 / sqrt(inputs), the same on all devices; B zero."""
        generator = torch.Generator().manual_seed(seed % 2**63)
        for one in self.adapted:
            bound = one.down.shape[1] ** -0.5
            one.down.copy_(torch.empty(one.down.shape).uniform_(-bound, bound, generator=generator))
            one.up.zero_()


class _Merged(Mapping[str, torch.Tensor]):
    """Each adapted weight with what its factors add, computed when it is asked for."""

    def __init__(self, adapted: Mapping[str, AdaptedWeight]):
        self._adapted = adapted

    def __getitem__(self, name: str) -> torch.Tensor:
        one = self._adapted[name]
        return added(one.weight.detach(), *one.factors(one.down.detach(), one.up.detach()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapted)

    def __len__(self) -> int:
        return len(self._adapted)


def select(model: PreTrainedModel, spec: str) -> TrainedSet | None:
    """Raises UserError for a layer or a rank that the model does not have, and for layers in which there is nothing to adapt."""
    match = re.fullmatch(r"lora:(\d{1,9})(?:\.(\w+(?:,\w+)*))?(?:@layers?:(\d{1,9}(?:,\d{1,9})*))?", spec)
    if match is None:
        return None
    rank, layers, widest = int(match[1]), decoder_layers(model), model.config.get_text_config().hidden_size
    if not 1 <= rank <= widest:
        raise UserError(f"trained_set {spec!r}: a rank is 1 to {widest}, the hidden size of the model")
    indices = indices_of(match[3], spec, len(layers)) if match[3] else list(range(len(layers)))
    there = maps(model, indices, rank)
    if not there:
        raise UserError(f"trained_set {spec!r}: these layers of {type(model).__name__} have no linear maps that peft could adapt")
    wanted = match[2].split(",") if match[2] else {one.map for one in there}
    if unknown := [name for name in wanted if all(name != one.map for one in there)]:
        names = ", ".join(dict.fromkeys(one.map for one in there))
        raise UserError(f"trained_set {spec!r}: no map {unknown[0]!r} in these layers; they have {names}")
    adapted = tuple(one for one in there if one.map in wanted)
    parameters = {f"{one.name}.{part}": factor for one in adapted for part, factor in (("lora_A", one.down), ("lora_B", one.up))}
    total = sum(parameter.numel() for parameter in model.parameters())
    return LowRankSet(spec, parameters, min(indices), total, model=model, rank=rank, adapted=adapted)


def maps(model: PreTrainedModel, layers: Iterable[int], rank: int) -> list[AdaptedWeight]:
    """Every linear map of these layers, with factors that are zero."""
    chosen = {id(module) for index in layers for module in decoder_layers(model)[index].modules()}
    return [
        _adapted(module, owner, name, weight, rank)
        for owner, module in model.named_modules()
        if id(module) in chosen
        for name, weight in module.named_parameters(recurse=False)
        if _is_map(module, name, weight)
    ]


def _is_map(module: nn.Module, name: str, weight: nn.Parameter) -> bool:
    """Whether tokens are multiplied with it: the weight of a linear map, or of the experts of a layer in one tensor."""
    if isinstance(module, nn.Linear | Conv1D):
        return name == "weight"
    return weight.ndim == 3 and not isinstance(module, nn.Conv1d)


def _adapted(module: nn.Module, owner: str, name: str, weight: nn.Parameter, rank: int) -> AdaptedWeight:
    *experts, rows, columns = weight.shape
    transposed, count = isinstance(module, Conv1D) or bool(getattr(module, "is_transposed", False)), math.prod(experts)
    inputs, outputs = (rows, columns) if transposed else (columns, rows)
    down, up = (
        nn.Parameter(torch.zeros(*shape, device=weight.device), requires_grad=False)
        for shape in ((count * rank, inputs), (outputs, rank * count))
    )
    return AdaptedWeight(f"{owner}.{name}", owner, weight, transposed, down, up)


def _adapter(module: nn.Module, one: AdaptedWeight, rank: int) -> nn.Module:
    """peft's module around `module`, with our factors. It is made for this module, where peft's own search would go by names, and takes the
    dense maps of a layer for experts where both bear the same name. Raises UserError without the release of peft that takes these
    arguments."""
    adapter: Any
    try:
        from peft import LoraConfig
        from peft.tuners.lora.layer import Linear, ParamWrapper

        config = LoraConfig(r=rank, lora_alpha=ALPHA, fan_in_fan_out=isinstance(module, Conv1D))
        if one.weight.ndim == 2:
            adapter = Linear(module, "default", config, rank, ALPHA)
        else:
            adapter = ParamWrapper(module, "default", one.name.rpartition(".")[2], config, rank, ALPHA)
    except (ImportError, TypeError) as error:  # other releases take other arguments
        raise UserError("trained_set lora:R is trained through peft 0.21, which is not installed; pip install 'onelayer[lora]'") from error
    adapter.lora_A["default"].weight, adapter.lora_B["default"].weight = one.down, one.up
    return adapter


def _put(model: PreTrainedModel, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
