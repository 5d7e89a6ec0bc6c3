"""Frozen weights that stay quantised in memory, and are unpacked a part at a time wherever they are used.

A packed weight is a tensor of the weight's shape and format. What computes with it gets the unpacked values, so that everything else here
takes it for a weight as any other: linear maps and embeddings unpack a few rows at a time, and again in the backward pass, so that the
unpacked weight is never held. What is trained is unpacked for the run (`unpacked`), and has float32 masters as always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_map
from transformers import PreTrainedModel

from ..common.errors import UserError

UNPACKED_AT_ONCE = 2**23
"""Values of a weight that are unpacked together."""
NF4_BLOCK = 64


@dataclass(frozen=True)
class Codec:
    """How values are packed. Every part has a row for each row of the weight."""

    name: str
    unpack: Callable[[tuple[torch.Tensor, ...], int, torch.dtype], torch.Tensor]
    """Parts, columns and format to the values [rows, columns]."""


class PackedWeight(torch.Tensor):
    """A weight [rows, columns] that is kept packed, and cannot be written to."""

    codec: Codec
    parts: tuple[torch.Tensor, ...]

    @staticmethod
    def __new__(cls, codec: Codec, parts: tuple[torch.Tensor, ...], columns: int, dtype: torch.dtype) -> PackedWeight:
        shape = (len(parts[0]), columns)
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=parts[0].device, requires_grad=False)

    def __init__(self, codec: Codec, parts: tuple[torch.Tensor, ...], columns: int, dtype: torch.dtype):
        self.codec, self.parts, self.columns = codec, parts, columns

    @property
    def packed_bytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def rows(self, chosen: slice | torch.Tensor) -> torch.Tensor:
        """The values of some rows."""
        return self.codec.unpack(tuple(part[chosen] for part in self.parts), self.columns, self.dtype)

    def row_chunks(self) -> Iterator[slice]:
        size = max(1, UNPACKED_AT_ONCE // self.columns)
        return (slice(start, start + size) for start in range(0, len(self.parts[0]), size))

    def dense(self) -> torch.Tensor:
        """All values, as a plain tensor."""
        return torch.cat([self.rows(chunk) for chunk in self.row_chunks()])

    def digest(self) -> str:
        """SHA-256 of the shape, the codec's name and the bytes as they are stored."""
        found = hashlib.sha256(f"{tuple(self.shape)} {self.codec.name}".encode())
        for part in self.parts:
            found.update(part.contiguous().view(torch.uint8).numpy(force=True).data)
        return found.hexdigest()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is F.linear and isinstance(args[1], PackedWeight):
                return _Linear.apply(args[0], args[1], *args[2:], *(kwargs or {}).values())
            if func is F.embedding and isinstance(args[1], PackedWeight):
                return args[1].rows(args[0].flatten()).unflatten(0, args[0].shape)
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return PackedWeight(args[0].codec, args[0].parts, args[0].columns, args[0].dtype)
        if func._schema.is_mutable:
            raise RuntimeError(f"{func}: a packed weight cannot be written to")
        args, kwargs = tree_map(lambda one: one.dense() if isinstance(one, PackedWeight) else one, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Linear(torch.autograd.Function):
    """x W^T + b, with no unpacked W among what is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None = None) -> torch.Tensor:
        ctx.weight = weight
        chunks = list(weight.row_chunks())
        if len(chunks) == 1:
            return F.linear(x, weight.rows(chunks[0]), bias)
        found = x.new_empty(*x.shape[:-1], len(weight))
        for chunk in chunks:
            found[..., chunk] = F.linear(x, weight.rows(chunk), None if bias is None else bias[chunk])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        first, *others = ctx.weight.row_chunks()
        found = gradients[0][..., first] @ ctx.weight.rows(first)
        for chunk in others:
            found += gradients[0][..., chunk] @ ctx.weight.rows(chunk)
        return found, None, None


def _unpack_nf4(parts: tuple[torch.Tensor, ...], columns: int, dtype: torch.dtype) -> torch.Tensor:
    library = import_module("bitsandbytes.functional")
    codes, largest = parts
    shape = torch.Size((len(codes), columns))
    state = library.QuantState(largest.flatten(), shape, blocksize=NF4_BLOCK, quant_type="nf4", dtype=dtype)
    return library.dequantize_4bit(codes.reshape(-1, 1), state)


def _unpack_int8(parts: tuple[torch.Tensor, ...], columns: int, dtype: torch.dtype) -> torch.Tensor:
    codes, scale = parts
    return (codes * scale).to(dtype)


NF4, INT8 = Codec("nf4", _unpack_nf4), Codec("int8", _unpack_int8)


def pack_nf4(weight: torch.Tensor) -> PackedWeight | None:
    """4-bit normal floats with a float32 scale for each 64 values (Dettmers et al. 2023, "QLoRA"), by bitsandbytes; None for a weight whose
    rows are not whole blocks."""
    library = import_module("bitsandbytes.functional")
    if weight.shape[1] % NF4_BLOCK:
        return None
    codes, state = library.quantize_4bit(weight.detach().contiguous(), blocksize=NF4_BLOCK, quant_type="nf4")
    return PackedWeight(NF4, (codes.reshape(len(weight), -1), state.absmax.reshape(len(weight), -1)), weight.shape[1], weight.dtype)


def pack_int8(weight: torch.Tensor) -> PackedWeight | None:
    """Integers from -127 to 127 with a float32 scale for each row."""
    scale = weight.detach().float().abs().amax(1, keepdim=True).clamp(min=1e-30) / 127
    return PackedWeight(INT8, ((weight.detach() / scale).round().to(torch.int8), scale), weight.shape[1], weight.dtype)


QUANTISED = {"nf4": pack_nf4, "int8": pack_int8}


def quantise(model: PreTrainedModel, kind: str) -> None:
    """Pack the weights of all linear maps and embeddings. Raises UserError without the package that does it.

    Experts that a layer keeps in one tensor, norms and biases stay as they are, and so do weights that do not fit the format.
    """
    try:
        packed = {name: QUANTISED[kind](weight) for name, weight in matrices(model).items()}
    except ImportError as error:
        raise UserError(f"model.quantization={kind} needs bitsandbytes; pip install 'onelayer[quantized]'") from error
    put(model, {name: weight for name, weight in packed.items() if weight is not None})


def matrices(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The weights of linear maps and embeddings, by name, shared ones once."""
    of = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear | nn.Embedding)}
    return {name: weight for name, weight in model.named_parameters() if id(weight) in of}


def put(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> dict[str, nn.Parameter]:
    """Put tensors in the place of parameters, wherever a module holds these; returns the new ones by name."""
    old = dict(model.named_parameters())
    new = {
        name: weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False) for name, weight in weights.items()
    }
    by_id = {id(old[name]): parameter for name, parameter in new.items()}
    for module in model.modules():
        for key, parameter in module._parameters.items():
            if id(parameter) in by_id:
                module._parameters[key] = by_id[id(parameter)]
    return new


def unpack(model: PreTrainedModel, names: Iterable[str]) -> dict[str, nn.Parameter]:
    """Let the packed ones of these parameters be plain tensors from now on; returns the packed ones, which `put` puts back."""
    wanted = set(names)
    packed: dict[str, nn.Parameter] = {}
    for name, weight in model.named_parameters():
        if name in wanted and isinstance(weight, PackedWeight):
            packed[name] = weight
            put(model, {name: weight.dense()})
    return packed


@contextmanager
def unpacked(model: PreTrainedModel, parameters: dict[str, nn.Parameter]) -> Iterator[None]:
    """Inside the `with` packed ones of these parameters are plain tensors, in the model and in `parameters`; after it they are as before,
    whatever became of the plain ones."""
    packed = unpack(model, parameters)
    plain = dict(model.named_parameters())
    parameters |= {name: plain[name] for name in packed}
    try:
        yield
    finally:
        put(model, packed)
        parameters |= packed


def packed_size(kind: str, weight: torch.Tensor) -> int:
    """Bytes that a matrix would take."""
    rows, columns = weight.shape
    if kind == "nf4":
        return weight.nbytes if columns % NF4_BLOCK else rows * (columns // 2 + 4 * columns // NF4_BLOCK)
    return rows * (columns + 4)


def is_packed(model: nn.Module) -> bool:
    return any(isinstance(weight, PackedWeight) for weight in model.parameters())


def weight_bytes(model: nn.Module) -> int:
    """Memory of the parameters as they are kept."""
    return sum(weight.packed_bytes if isinstance(weight, PackedWeight) else weight.nbytes for weight in model.parameters())
