"""Patches: the weights that a run changed, tied to the base they belong to.

A patch is one safetensors file. Its metadata holds the base's fingerprint and the trained set; its tensors bear the
model's parameter names and the trainer's float32 values, so that a base and its patches are the policy, exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..envs.errors import UserError
from ..envs.files import check_new, make_writable, write_atomically
from .policy import Base

FORMAT = "onelayer-patch-1"


@dataclass(frozen=True)
class Patch:
    """Changed weights by parameter name."""

    base: str
    """Fingerprint of the base that they belong to."""
    trained_set: str
    weights: dict[str, torch.Tensor]
    sha256: str = ""
    """Of the file it was read from."""


def write(path: Path, patch: Patch) -> str:
    """Write the patch, whole or not at all; returns the file's SHA-256. Equal patches give equal bytes."""
    # One metadata key: safetensors keeps its metadata in a hash map, so several would come out in any order.
    header = json.dumps({"format": FORMAT, "base": patch.base, "trained_set": patch.trained_set})
    weights = {name: weight.detach().to("cpu", torch.float32).contiguous() for name, weight in patch.weights.items()}
    data = save(weights, metadata={"onelayer": header})
    write_atomically(path, data)
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Patch:
    """Read a patch. Raises UserError for a file that is missing, damaged or not a patch."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("onelayer", "{}"))
            if header.get("format") != FORMAT:
                raise UserError(f"{path}: not a patch of this program (expected format {FORMAT})")
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such patch; a run writes it as patch.safetensors in its directory") from error
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a patch: {error}") from error
    return Patch(header["base"], header["trained_set"], weights, hashlib.sha256(path.read_bytes()).hexdigest())


@torch.no_grad()
def apply(base: Base, patches: Sequence[Patch]) -> None:
    """Turn the base's model into the policy. Raises UserError for a patch of another base, or two that overlap."""
    parameters = dict(base.model.named_parameters())
    applied: dict[str, str] = {}
    for patch in patches:
        if patch.base != base.fingerprint:
            raise UserError(
                f"patch {patch.trained_set} belongs to base {patch.base[:12]}, this base is {base.fingerprint[:12]}; "
                "give --model the base it was trained on"
            )
        for name, weight in patch.weights.items():
            if name in applied:
                raise UserError(f"patches {applied[name]} and {patch.trained_set} both change {name}; a policy takes disjoint patches")
            if name not in parameters or parameters[name].shape != weight.shape:
                raise UserError(f"patch {patch.trained_set}: {name} has no counterpart of shape {tuple(weight.shape)} in the model")
            applied[name] = patch.trained_set
            parameters[name].copy_(weight)


@contextmanager
def applied(base: Base, patches: Sequence[Patch]) -> Iterator[None]:
    """The policy inside the `with`, the base again after it."""
    parameters = dict(base.model.named_parameters())
    before = {name: parameters[name].detach().clone() for patch in patches for name in patch.weights if name in parameters}
    try:
        apply(base, patches)
        yield
    finally:
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)


def export(base: Base, patches: Sequence[Patch], output: Path) -> None:
    """Write base and patches as one model directory that plain `transformers` loads.

    Raises UserError where `output` holds something already or can not be written.
    """
    check_new(output)
    apply(base, patches)
    make_writable(output)
    base.model.save_pretrained(output)
    base.tokenizer.save_pretrained(output)
