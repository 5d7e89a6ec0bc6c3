"""How a model that was trained elsewhere differs from its base, weight by weight, read a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoConfig, PreTrainedModel

from ..common.errors import UserError
from ..common.progress import progress
from .checkpoint import Weights, pieces
from .config import ModelConfig
from .decoder import decoder_layers
from .policy import add_to_hash, begun_hash, fingerprint, tensor_hash
from .weight_change import WeightChange

EXACT = 1024
"""Rows and columns up to which a spectral norm is computed exactly."""
RANK, ROUNDS = 16, 8
"""Of the randomised decomposition that estimates it for larger ones (Halko et al. 2011, arXiv:0909.4061)."""
OF_NO_MATTER = {
    *("_name_or_path", "architectures", "transformers_version", "dtype", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"),
    *("max_position_embeddings", "initializer_range", "attention_dropout", "quantization_config", "vocab_size"),
}
"""Keys of a model's configuration that may differ: what is computed from given tokens does not depend on them, or a shape tells it."""


class TensorChange(BaseModel):
    """A weight that differs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    layer: int | None = Field(description="decoder layer, from 0; null: outside the layers")
    l2: float = Field(ge=0, description="L2 norm of the change")
    base_l2: float = Field(ge=0, description="L2 norm of the base's weight")
    changed: int = Field(ge=0, description="entries with another value than in the base")
    entries: int = Field(ge=1, description="entries of the weight")
    spectral: float | None = Field(ge=0, description="largest singular value of the change; null: not a matrix")


class LayerChange(WeightChange):
    """The changed weights of a decoder layer together, or of what is outside the layers."""

    spectral: float | None = Field(description="the largest of its matrices' spectral norms; null: no matrix of it differs")
    tensors: int = Field(ge=0, description="weights that differ")


@dataclass(frozen=True)
class ModelDifference:
    """What two models differ in."""

    fingerprint: str
    """Of the base, as it is loaded in the format asked for."""
    changes: list[TensorChange]
    """The weights that differ, in the order of the model."""
    layers: list[LayerChange]
    """Layers in which something differs, then what is outside of them. Norms and entries are of all their weights."""
    compared: int
    """Weights in all."""


def check_alike(base: Path, trained: Path, config: ModelConfig) -> None:
    """Both configurations describe one computation. Raises UserError with the first key in which they differ."""
    found = (AutoConfig.from_pretrained(path, trust_remote_code=config.trust_remote_code) for path in (base, trained))
    one, two = (_settings(one.to_dict()) for one in found)
    for key in sorted(one.keys() | two.keys()):
        if one.get(key) != two.get(key):
            values = f"{str(two.get(key))[:60]} in {trained / 'config.json'}, and {str(one.get(key))[:60]} in the base's"
            raise UserError(
                f"{key} is {values}: with it the same weights are another model, which a patch cannot hold; give the right --base"
            )


def _settings(found: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """The keys that matter, those of sections as SECTION.KEY."""
    settings: dict[str, Any] = {}
    for key, value in found.items():
        if key not in OF_NO_MATTER:
            settings |= _settings(value, f"{section}{key}.") if isinstance(value, Mapping) else {f"{section}{key}": value}
    return settings


def check_formats(base: Weights, trained: Weights, dtype: str) -> None:
    """The base under a patch can have the very values of the trained model. Raises UserError where rounding to a shorter format stands
    between them: weights that were not trained would differ, too."""
    shorter = {
        str(trained.formats[name]).removeprefix("torch.")
        for name in base.formats
        if trained.formats[name].itemsize < base.formats[name].itemsize
    } - {dtype}
    if shorter:
        kept = ", ".join(sorted({str(one).removeprefix("torch.") for one in base.formats.values()}))
        raise UserError(
            f"--model is kept in {min(shorter)} and --base in {kept}: rounding alone changes nearly every weight of the base; "
            f"give model.dtype={min(shorter)}, which loads the base in that format, too, or save the trained model in {kept}"
        )


@torch.no_grad()
def difference(model: PreTrainedModel, base: Weights, trained: Weights) -> ModelDifference:
    """Compare every weight. model: a `checkpoint.skeleton` of the base, in the format that the base is to be loaded in.

    A trained model in a shorter format than the base's is compared with the base rounded to that format (`check_formats`). Raises
    UserError for values that are not finite, and where a buffer differs, which a patch cannot hold.
    """
    kept = dict(model.named_parameters()) | {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    computed = {name: tensor for name, tensor in kept.items() if name not in base.formats}  # buffers that no file holds
    hashes = {name: tensor_hash(tensor) for name, tensor in computed.items()}
    place = {id(weight): at for at, layer in enumerate(decoder_layers(model)) for weight in layer.parameters()}
    found: dict[int | None, list[TensorChange]] = {}
    with ThreadPoolExecutor(1) as hashing, progress("comparing weights", len(base.formats), every=5) as shown:
        for name in (name for name in kept if name in base.formats):
            shown.note(name)
            layer = place.get(id(kept[name]))
            hashes[name], change = _compared(name, layer, kept[name], base, trained, hashing)
            if change.changed and not isinstance(kept[name], torch.nn.Parameter):
                raise UserError(f"{name} differs, and it is a buffer of the model, which a patch does not hold; give the right --base")
            found.setdefault(layer, []).append(change)
            shown.advance()
    changes = [change for there in found.values() for change in there if change.changed]
    order = sorted((layer for layer, there in found.items() if any(one.changed for one in there)), key=lambda at: (at is None, at or 0))
    return ModelDifference(fingerprint(hashes), changes, [_together(layer, found[layer]) for layer in order], len(base.formats))


def _compared(
    name: str, layer: int | None, weight: torch.Tensor, base: Weights, trained: Weights, hashing: ThreadPoolExecutor
) -> tuple[str, TensorChange]:
    """SHA-256 of the base's weight as it is loaded, and how the trained one differs."""
    found, waiting = begun_hash(tuple(weight.shape)), Future[None]()
    waiting.set_result(None)
    shorter = trained.formats[name].itemsize < base.formats[name].itemsize
    squares, base_squares, changed = 0.0, 0.0, 0
    moved: torch.Tensor | None = None  # made where something differs: most weights of most models do not
    for start, stop in pieces(weight.numel()):
        before, after = base.read(name, start, stop), trained.read(name, start, stop)
        waiting.result()
        waiting = hashing.submit(add_to_hash, found, before.to(weight.dtype))
        before, after = (before.to(trained.formats[name]) if shorter else before).float(), after.float()
        if not after.isfinite().all():
            raise UserError(f"--model: {name} holds values that are not finite (NaN or infinity); take an earlier checkpoint of it")
        base_squares += before.norm().item() ** 2
        if count := int((after != before).sum()):
            step = after - before
            moved = torch.zeros(weight.numel()) if moved is None else moved
            moved[start:stop] = step
            changed += count
            squares += step.norm().item() ** 2
    waiting.result()
    spectral = None if moved is None or weight.ndim < 2 else spectral_norm(moved.view(weight.shape))
    change = TensorChange(
        name=name,
        layer=layer,
        l2=math.sqrt(squares),
        base_l2=math.sqrt(base_squares),
        changed=changed,
        entries=weight.numel(),
        spectral=spectral,
    )
    return found.hexdigest(), change


def spectral_norm(matrix: torch.Tensor) -> float:
    """The largest singular value, of several matrices [..., M, N] the largest of all; an estimate from below where they are large."""
    if max(matrix.shape[-2:]) <= EXACT:
        return float(torch.linalg.matrix_norm(matrix, 2).max())
    if matrix.ndim > 2:
        return max(map(spectral_norm, matrix))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return float(torch.svd_lowrank(matrix, q=min(RANK, *matrix.shape), niter=ROUNDS)[1][0])


def _together(layer: int | None, tensors: Sequence[TensorChange]) -> LayerChange:
    spectral = [one.spectral for one in tensors if one.spectral is not None]
    return LayerChange(
        layer=layer,
        l2=_root(one.l2 for one in tensors),
        base_l2=_root(one.base_l2 for one in tensors),
        changed=sum(one.changed for one in tensors),
        entries=sum(one.entries for one in tensors),
        spectral=max(spectral, default=None),
        tensors=sum(bool(one.changed) for one in tensors),
    )


def _root(norms: Iterable[float]) -> float:
    return math.sqrt(sum(norm**2 for norm in norms))
