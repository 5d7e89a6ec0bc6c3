"""Low-rank adapters that peft saved, as weights of the model beside which they were trained, and as the factors of a patch.

What only adds a product to linear maps of decoder layers is taken: LoRA, of any rank and scale, the same for all maps or not. Others
(DoRA, biases, whole modules, embeddings) change weights in other ways, and come in as a merged model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedModel

from ..common.errors import UserError, first_problem
from ..common.reading import read_json_object
from .checkpoint import StoredTensor, Weights, stored_tensors
from .decoder import decoder_layers
from .trained_sets import select
from .trained_sets.changes import LEFT, RIGHT
from .trained_sets.low_rank import AdaptedWeight, LowRankSet, maps

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LARGEST_CONFIG = 1 << 20  # bytes
FACTOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])\.weight")
PLAIN_PATTERN = re.compile(r"\^?[\w.]+")
MERGE = "merge it where it was made (model.merge_and_unload(), then save_pretrained) and import the merged model"


class _Config(BaseModel):
    """Of adapter_config.json what the product depends on, and what would change weights in another way."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    peft_type: str
    lora_alpha: float = Field(default=8, gt=0, allow_inf_nan=False)
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None
    trainable_token_indices: Any = None

    def alpha(self, module: str) -> float:
        """Of a map, by the name of its module; peft takes the keys for the ends of names."""
        ends = (key for key in self.alpha_pattern or {} if f".{module}".endswith("." + key.removeprefix("^")))
        return (self.alpha_pattern or {}).get(next(ends, ""), self.lora_alpha)


@dataclass(frozen=True)
class Factors:
    """What is added to a weight: the product of left [..., M, R] and right [..., R, N]."""

    left: torch.Tensor
    right: torch.Tensor

    def padded(self, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a larger rank, with the same product."""
        more = rank - self.right.shape[-2]
        return torch.nn.functional.pad(self.left, (0, more)), torch.nn.functional.pad(self.right, (0, 0, 0, more))


@dataclass
class Adapter:
    """The weights of a model with an adapter's products added to them, in float32. It can be read as a checkpoint is."""

    base: Weights
    factors: Mapping[str, Factors]
    """By the name of the weight."""
    _last: tuple[str, torch.Tensor] = field(default=("", torch.empty(0)), repr=False)
    """The product that was read last, which is wanted piece by piece."""

    @property
    def formats(self) -> Mapping[str, torch.dtype]:
        return {name: torch.float32 if name in self.factors else kept for name, kept in self.base.formats.items()}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        before = self.base.read(name, start, stop)
        if name not in self.factors:
            return before
        if self._last[0] != name:
            self._last = name, (self.factors[name].left @ self.factors[name].right).flatten()
        return before.float() + self._last[1][start:stop]


def is_adapter(directory: Path) -> bool:
    return (directory / CONFIG).exists()


def read_factors(directory: Path, model: PreTrainedModel) -> dict[str, Factors]:
    """The factors of an adapter by the name of the weight. Raises UserError for one that is damaged, does not fit the model, or does more
    than adding products to linear maps of decoder layers."""
    config = _read_config(directory)
    tensors = stored_tensors(directory)
    found: dict[str, dict[str, StoredTensor]] = {}
    for key, stored in tensors.items():
        match = FACTOR.fullmatch(key)
        if match is None:
            raise UserError(f"{directory / WEIGHTS}: {key} is no factor of a linear map; {MERGE}")
        found.setdefault(match[1], {})[match[2]] = stored
    if not found:
        raise UserError(f"{directory / WEIGHTS}: holds no factors; name the directory that peft saved")
    fitting = {one.owner: one for one in maps(model, range(len(decoder_layers(model))), 1) if one.weight.ndim == 2}
    if odd := next((owner for owner in found if owner not in fitting), None):
        raise UserError(f"{directory / WEIGHTS}: {odd} is no linear map of a decoder layer of the base; give the right --base, or {MERGE}")
    return {fitting[owner].name: _factors(directory, pair, fitting[owner], config) for owner, pair in found.items()}


def _factors(directory: Path, pair: Mapping[str, StoredTensor], one: AdaptedWeight, config: _Config) -> Factors:
    """A and B as a patch holds them. Raises UserError where they do not fit the map, or are not finite."""
    shapes = {part: stored.shape for part, stored in pair.items()}
    inputs, outputs = one.down.shape[1], one.up.shape[0]
    ranks = shapes.get("A", ())[:1], shapes.get("B", ())[1:]
    if ranks[0] != ranks[1] or shapes != {"A": (*ranks[0], inputs), "B": (outputs, *ranks[0])} or len(shapes["A"]) != 2:
        raise UserError(
            f"{directory / WEIGHTS}: the factors of {one.owner} have the shapes {shapes}, and it maps {inputs} to {outputs} numbers"
        )
    down, up = (pair[part].read(0, math.prod(shapes[part])).float().view(shapes[part]) for part in ("A", "B"))
    if not (down.isfinite().all() and up.isfinite().all()):
        raise UserError(f"{directory / WEIGHTS}: the factors of {one.owner} are not finite (NaN or infinity); take an earlier checkpoint")
    alpha = config.alpha(one.owner) * (math.sqrt(len(down)) if config.use_rslora else 1)
    return Factors(*one.factors(down, up, alpha))


def _read_config(directory: Path) -> _Config:
    path = directory / CONFIG
    try:
        config = _Config.model_validate(read_json_object(path, LARGEST_CONFIG))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; bring the file back") from error
    more = {
        f"peft_type {config.peft_type}": config.peft_type != "LORA",
        "use_dora": config.use_dora,
        f"bias {config.bias}": config.bias != "none",
        "modules_to_save": bool(config.modules_to_save),
        "trainable_token_indices": bool(config.trainable_token_indices),
        "a pattern in alpha_pattern": not all(map(PLAIN_PATTERN.fullmatch, config.alpha_pattern or {})),
    }
    if odd := next((name for name, there in more.items() if there), None):
        raise UserError(f"{path}: {odd}: it does more than adding a product to linear maps; {MERGE}")
    return config


def spec_of(model: PreTrainedModel, factors: Mapping[str, Factors]) -> str:
    """The smallest set `lora:R` that holds them: of the largest rank, on the maps and the layers that any of them is of."""
    rank = max(one.right.shape[-2] for one in factors.values())
    depth = len(decoder_layers(model))
    by_layer = {index: maps(model, [index], 1) for index in range(depth)}
    layers = [index for index, there in by_layer.items() if any(one.name in factors for one in there)]
    inside = [one for index in layers for one in by_layer[index]]
    named = list(dict.fromkeys(one.map for one in inside if one.name in factors))
    part = "" if {one.map for one in inside} == set(named) else "." + ",".join(named)
    place = "" if len(layers) == depth else f"@layer{'s' if len(layers) > 1 else ''}:{','.join(map(str, layers))}"
    return f"lora:{rank}{part}{place}"


def contents(model: PreTrainedModel, spec: str, factors: Mapping[str, Factors]) -> dict[str, torch.Tensor] | None:
    """What a patch of this set holds: the factors, zeros where a map has none; None where the set is no `lora:R` that holds them all."""
    trained = select(model, spec)
    if not isinstance(trained, LowRankSet):
        return None
    there = {one.name for one in trained.adapted}
    if factors.keys() - there or any(one.right.shape[-2] > trained.rank for one in factors.values()):
        return None
    found: dict[str, torch.Tensor] = {}
    for one in trained.adapted:
        rows, columns = one.weight.shape[-2:]
        none = Factors(torch.zeros(*one.weight.shape[:-2], rows, 1), torch.zeros(*one.weight.shape[:-2], 1, columns))
        left, right = factors.get(one.name, none).padded(trained.rank)
        found |= {one.name + LEFT: left, one.name + RIGHT: right}
    return found
