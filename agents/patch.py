"""Patches: the weights that a run changed, tied to the base they belong to.

A patch is one safetensors file. Its metadata holds the base's fingerprint and the trained set; its tensors bear the
model's parameter names and the trainer's float32 values, so that a base and its patches are the policy, exactly. Where a set is not made of
whole parameters, `trained_sets/changes.py` says what stands there of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..common.errors import UserError, first_problem
from ..common.files import atomically, check_new, make_writable
from ..common.reading import safetensors_header
from .packed import PackedWeight, unpack, unpacked
from .policy import Base
from .trained_sets import select
from .trained_sets.changes import PLACES, by_weight, changed

FORMAT = "onelayer-patch-1"
LONGEST_NAME = 100  # characters of a trained model's name
LARGEST_HEADER = 8 << 20
"""Bytes of the header of the file: about a hundred for each tensor."""


class Origin(BaseModel):
    """What is known of a patch that was made of a model trained elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        min_length=1, max_length=LONGEST_NAME, description="name of the trained model: a hub name, or the last part of its directory"
    )
    note: str = Field(default="", max_length=200, description="how it was trained, in the words of whoever imported it")


@dataclass(frozen=True)
class Patch:
    """Changed weights by parameter name."""

    base: str
    """Fingerprint of the base that they belong to."""
    trained_set: str
    weights: dict[str, torch.Tensor]
    sha256: str = ""
    """Of the file it was read from."""
    origin: Origin | None = None
    """Of what was trained elsewhere; None: trained here."""


def write(path: Path, patch: Patch) -> str:
    """Write the patch, whole or not at all; returns the file's SHA-256. Equal patches give equal bytes."""
    # One metadata key: safetensors keeps its metadata in a hash map, so several would come out in any order.
    header = metadata(patch.base, patch.trained_set, patch.origin)
    weights = {
        name: weight.detach().to("cpu", torch.int64 if name.endswith(PLACES) else torch.float32).contiguous()
        for name, weight in patch.weights.items()
    }
    with atomically(path) as temporary:
        try:
            save_file(weights, temporary, metadata={"onelayer": header})
        except SafetensorError as error:  # its writer reports a full disk in words of its own
            raise UserError(f"{path}: cannot be written ({str(error)[:200]}); choose another place or free this one") from error
        with temporary.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def metadata(base: str, trained_set: str, origin: Origin | None = None) -> str:
    """What the file says of itself, as `_Metadata` reads it."""
    known = {"format": FORMAT, "base": base, "trained_set": trained_set}
    return json.dumps(known | ({"origin": origin.model_dump()} if origin else {}))


class _Metadata(BaseModel):
    """What the file says of itself."""

    format: Literal["onelayer-patch-1"]
    base: str = Field(max_length=64)
    trained_set: str = Field(max_length=1000)
    origin: Origin | None = None


@dataclass(frozen=True)
class Header:
    """What a patch would change: its metadata and the shapes of its tensors, without their values."""

    base: str
    trained_set: str
    shapes: dict[str, tuple[int, ...]]
    origin: Origin | None = None


def read_header(path: Path) -> Header:
    """Read no more than the header of a patch. Raises UserError as `read` does."""
    try:
        safetensors_header(path, LARGEST_HEADER)
        with safe_open(path, framework="pt") as file:
            told = _Metadata.model_validate_json((file.metadata() or {}).get("onelayer", "{}"))
            tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            for name, tensor in tensors.items():
                if tensor.get_dtype() != (wanted := "I64" if name.endswith(PLACES) else "F32"):
                    raise UserError(f"{path}: {name} is of type {tensor.get_dtype()}, and a patch holds it as {wanted} alone")
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such patch; a run writes it as patch.safetensors in its directory") from error
    except ValidationError as error:
        raise UserError(f"{path}: not a patch of this program (expected format {FORMAT}; {first_problem(error)})") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a patch: {error}") from error
    if not shapes:
        raise UserError(f"{path}: a patch without tensors changes nothing; train again")
    return Header(told.base, told.trained_set, shapes, told.origin)


def read(path: Path) -> Patch:
    """Read a patch. Raises UserError for a file that is missing, damaged or not a patch, and for values that are not finite."""
    header = read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in header.shapes}
        with path.open("rb") as data:
            sha256 = hashlib.file_digest(data, "sha256").hexdigest()
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a patch: {error}") from error
    if broken := next((name for name, weight in weights.items() if not weight.isfinite().all()), None):
        raise UserError(f"{path}: {broken} holds values that are not finite (NaN or infinity); train again with a lower learning rate")
    return Patch(header.base, header.trained_set, weights, sha256, header.origin)


def check_set(
    base: Base, name: str, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, torch.Tensor] = MappingProxyType({})
) -> None:
    """A patch holds the tensors of the trained set that it names, and of single entries those of the set. Raises UserError for any other.

    shapes: of all its tensors. weights: its tensors, where they have been read.
    """
    trained = select(base.model, name)
    if dict(shapes) != trained.shapes:
        differ = sorted(shapes.items() ^ trained.shapes.items())[0][0]
        raise UserError(f"patch {name[:100]}: its tensors are not those of that set on this model ({differ[:200]}); train again")
    for weight, places in trained.places.items():
        if weights and not torch.equal(weights[weight + PLACES].cpu(), places.cpu()):
            raise UserError(f"patch {name[:100]}: its entries of {weight} are not those of that set on this model; train again")


@torch.no_grad()
def apply(base: Base, patches: Sequence[Patch]) -> None:
    """Turn the base's model into the policy. Raises UserError for a patch of another base or with other tensors than its trained set has,
    two that overlap, and weights that are not finite with them. Of a quantised base the weights that they change are unpacked."""
    unpack(base.model, {name for patch in patches for name in by_weight(patch.weights)})
    parameters = dict(base.model.named_parameters())
    applied: dict[str, str] = {}
    for patch in patches:
        if patch.base != base.fingerprint:
            raise UserError(
                f"patch {patch.trained_set} belongs to base {patch.base[:12]}, this base is {base.fingerprint[:12]}; "
                "give --model the base it was trained on"
            )
        for name, tensors in by_weight(patch.weights).items():
            if name in applied:
                raise UserError(f"patches {applied[name]} and {patch.trained_set} both change {name}; a policy takes disjoint patches")
            applied[name] = patch.trained_set
            held = {tensor.removeprefix(name): patch.weights[tensor] for tensor in tensors}
            if name not in parameters or (weight := changed(parameters[name], held)) is None:
                shapes = " and ".join(str(tuple(tensor.shape)) for tensor in held.values())
                raise UserError(f"patch {patch.trained_set}: {name} has no counterpart of shape {shapes} in the model")
            parameters[name].copy_(weight)
            if (
                not parameters[name].isfinite().all()
            ):  # values that are finite may have a product that is not, or be too large for the model
                raise UserError(f"patch {patch.trained_set}: {name} is not finite with it; train again with a lower learning rate")
        check_set(base, patch.trained_set, {name: tuple(tensor.shape) for name, tensor in patch.weights.items()}, patch.weights)


@contextmanager
def applied(base: Base, patches: Sequence[Patch]) -> Iterator[None]:
    """The policy inside the `with`, the base again after it."""
    names = {name for patch in patches for name in by_weight(patch.weights)}
    parameters = {name: parameter for name, parameter in base.model.named_parameters() if name in names}
    with unpacked(base.model, parameters), restored(parameters):
        apply(base, patches)
        yield


@contextmanager
def restored(parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Parameters that may change inside the `with` have their values again after it. A copy of them is kept meanwhile; packed ones cannot
    change."""
    before = {name: parameter.detach().clone() for name, parameter in parameters.items() if not isinstance(parameter, PackedWeight)}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)


def export(base: Base, patches: Sequence[Patch], output: Path) -> None:
    """Write base and patches as one model directory that plain `transformers` loads; a quantised base with all weights unpacked.

    Raises UserError where `output` holds something already or cannot be written.
    """
    check_new(output)
    apply(base, patches)
    make_writable(output)
    unpack(base.model, dict(base.model.named_parameters()))
    base.model.save_pretrained(output)
    base.tokenizer.save_pretrained(output)
