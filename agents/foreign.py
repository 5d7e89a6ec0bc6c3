"""Models that were trained elsewhere become patches: compared with their base, and written piece by piece (`onelayer import`)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..common.errors import UserError
from ..common.files import atomically
from ..common.progress import progress
from . import adapter, patch
from .checkpoint import Checkpoint, Weights, directory_of, pieces, skeleton
from .config import ModelConfig
from .model_difference import ModelDifference, check_alike, check_formats, difference
from .patch import Origin, Patch
from .trained_sets import TrainedSet, select
from .trained_sets.cover import cover

ALIGNED = 8
"""Bytes that the header of a safetensors file is a multiple of."""


@dataclass(frozen=True)
class Claim:
    """Whether a model was trained in one set alone."""

    trained_set: str
    outside: list[str]
    """Weights that are not in the set, and differ."""
    part: list[str]
    """Weights of the set that do not differ."""

    @property
    def proven(self) -> bool:
        return not self.outside


@dataclass(frozen=True)
class Foreign:
    """A base and a model that was trained of it elsewhere, compared."""

    model: PreTrainedModel
    """The base without its weights."""
    trained: Weights
    factors: Mapping[str, adapter.Factors] | None
    """Of an adapter; None: a whole model."""
    found: ModelDifference
    notes: list[str]
    """What else a user must know."""

    @property
    def trained_set(self) -> str:
        """What the change amounts to. Raises UserError where it is no set that a patch can hold."""
        if self.factors is not None:
            return adapter.spec_of(self.model, self.factors)
        names = [change.name for change in self.found.changes]
        if (spec := cover(self.model, names)) is None:
            raise UserError(
                f"{names[0]} and {len(names) - 1} others differ, some of them outside the decoder, where no trained set reaches"
            )
        return spec

    def claim(self, spec: str) -> Claim:
        """Whether every weight that differs is of this set. Raises UserError for a set that cannot be told from the weights."""
        trained = select(self.model, spec)
        if trained.places:
            raise UserError(f"--claims {spec}: single entries are drawn by this program alone; claim the layers that they lie in")
        if spec.startswith("lora:") and self.factors is None:
            raise UserError(f"--claims {spec}: a merged model does not tell the rank; give the adapter's directory, or claim whole weights")
        held = trained.weights().keys()
        differing = [change.name for change in self.found.changes]
        outside = [name for name in differing if name not in held]
        if not outside and spec.startswith("lora:") and adapter.contents(self.model, spec, self.factors or {}) is None:
            outside = differing  # of a larger rank than claimed
        return Claim(spec, outside, sorted(held - set(differing)))

    def write(self, path: Path, spec: str, origin: Origin) -> str:
        """Write the patch of a set that holds all changes; returns its SHA-256."""
        if self.factors is not None:
            held = adapter.contents(self.model, spec, self.factors)
            assert held is not None, f"{spec} does not hold the adapter"
            return patch.write(path, Patch(self.found.fingerprint, spec, held, origin=origin))
        return write_whole(path, self.found.fingerprint, select(self.model, spec), self.trained, origin)


def compare(config: ModelConfig, trained: str) -> Foreign:
    """Compare a model with its base. config: of the base. trained: a directory or hub name of a model or of an adapter.

    Raises UserError where one cannot be read, the two are not one model but for their weights, or do not differ.
    """
    base_place, place = directory_of(config.path, "--base"), directory_of(trained, "--model")
    model = skeleton(base_place, config)
    base = Checkpoint(base_place, model)
    factors, weights, notes = None, base, list[str]()
    if adapter.is_adapter(place):
        factors = adapter.read_factors(place, model)
        weights = adapter.Adapter(base, factors)
    else:
        skeleton(place, config)  # of its own configuration: what its files hold is looked at before it is read
        weights = Checkpoint(place, model)
        check_alike(base_place, place, config)
        if more := [name for name in weights.unused if name not in base.unused]:
            raise UserError(f"{place}: holds {more[0]} and {len(more) - 1} others that the base has no weight for; give the right --base")
        check_formats(base, weights, config.dtype)
        notes = _other_texts(base_place, place)
    found = difference(model, base, weights)
    if not found.changes:
        raise UserError(f"{trained}: every weight is that of the base; there is nothing to import")
    return Foreign(model, weights, factors, found, notes)


def _other_texts(base: Path, trained: Path) -> list[str]:
    """What of the trained model's files decides prompts and tokens, and differs from the base's, which is what a patch is played with."""
    names = ("tokenizer.json", "chat_template.jinja")
    pairs = [(name, base / name, trained / name) for name in names if (base / name).is_file() and (trained / name).is_file()]
    return [
        f"{name} differs from the base's: the patch is evaluated with that of the base"
        for name, one, two in pairs
        if one.read_bytes() != two.read_bytes()
    ]


def write_whole(path: Path, base: str, trained: TrainedSet, weights: Weights, origin: Origin) -> str:
    """Write a patch of whole weights, of which a piece at a time is in memory; returns its SHA-256. The bytes are those that `patch.write`
    makes of the same patch."""
    shapes = trained.shapes
    with atomically(path) as temporary, temporary.open("wb") as file, progress("writing the patch", len(shapes), every=5) as shown:
        found = hashlib.sha256()

        def write(data: bytes | memoryview) -> None:
            file.write(data)
            found.update(data)

        write(_header({"onelayer": patch.metadata(base, trained.spec, origin)}, shapes))
        for name in sorted(shapes):
            shown.note(name)
            for start, stop in pieces(math.prod(shapes[name])):
                write(weights.read(name, start, stop).float().numpy().data)
            shown.advance()
        file.flush()
    return found.hexdigest()


def _header(told: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The beginning of a safetensors file of float32 tensors, in the order of their names."""
    entries: dict[str, object] = {"__metadata__": dict(told)}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + math.prod(shapes[name]) * torch.float32.itemsize
        entries[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text
