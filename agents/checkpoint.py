"""The weights of a model's directory, read a piece at a time: a model of any size takes the memory of its largest tensor at most.

`skeleton` is the model without its weights: it tells which parameters there are, which are one (tied), and in which layer they lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..common import hub
from ..common.errors import UserError
from ..common.reading import open_regular, read_json_object, safetensors_header
from . import tiny
from .config import ModelConfig
from .model_files import LARGEST_JSON, check_files

FORMATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The formats of weights that are read, by the names that safetensors has for them."""
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
PATTERNS = ["*.json", "*.safetensors", "*.jinja"]
"""The files that are fetched from the hub."""
PIECE = 1 << 22
"""Numbers that are read at a time."""


class Weights(Protocol):
    """Tensors that are read a piece at a time."""

    @property
    def formats(self) -> Mapping[str, torch.dtype]:
        """The format that each is kept in, by name."""
        ...

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        """The entries `start` to `stop` of the flattened tensor."""
        ...


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies."""

    file: Path
    format: torch.dtype
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""

    def read(self, start: int, stop: int) -> torch.Tensor:
        """The entries `start` to `stop` of the flattened tensor."""
        data = bytearray((stop - start) * self.format.itemsize)
        with open_regular(self.file) as file:
            file.seek(self.start + start * self.format.itemsize)
            if file.readinto(data) != len(data):
                raise UserError(f"{self.file}: ends before its header says; fetch it again")
        return torch.frombuffer(data, dtype=self.format)


class Checkpoint:
    """The weights of a directory, by the names that a model has for them."""

    def __init__(self, directory: Path, model: PreTrainedModel):
        """model: a `skeleton`. Raises UserError where the weights are not those of the model."""
        self.directory, self._stored = directory, {}
        there, wanted = stored_tensors(directory), _kept(model)
        primary = {id(tensor): name for name, tensor in reversed(wanted.items())}
        aliases = {name: primary[id(tensor)] for name, tensor in wanted.items() if primary[id(tensor)] != name}
        found = {name: key for name in wanted if (key := _key(name, there, model)) is not None}
        for name, tensor in wanted.items():
            same = [name, *(alias for alias, other in aliases.items() if other == name)]
            if name in aliases or not tensor.is_floating_point():
                continue
            key = next((found[one] for one in same if one in found), None)
            if key is None:
                raise UserError(_missing(directory, name, there))
            _check_shape(directory, name, there[key].shape, tuple(tensor.shape))
            self._stored[name] = there[key]
        for alias, name in aliases.items():
            if alias in found and not self._holds(name, there[found[alias]]):
                raise UserError(
                    f"{directory}: {alias} differs from {name}, and config.json makes them one (tie_word_embeddings): a patch cannot hold "
                    "both; set it to false in both models' config.json, where both have a head of their own"
                )
        self.unused = sorted(there.keys() - set(found.values()))
        """Names in the files that the model has no weight for."""

    @property
    def formats(self) -> dict[str, torch.dtype]:
        return {name: stored.format for name, stored in self._stored.items()}

    def read(self, name: str, start: int, stop: int) -> torch.Tensor:
        return self._stored[name].read(start, stop)

    def _holds(self, name: str, other: StoredTensor) -> bool:
        """Whether a tensor has the values of another."""
        mine = self._stored[name]
        return mine.shape == other.shape and all(
            torch.equal(mine.read(*piece).float(), other.read(*piece).float()) for piece in pieces(math.prod(mine.shape))
        )


def pieces(count: int) -> Iterator[tuple[int, int]]:
    """First and last place, exclusive, of the pieces of so many numbers."""
    return ((start, min(start + PIECE, count)) for start in range(0, count, PIECE))


def directory_of(path: str, option: str) -> Path:
    """The directory of a model: one here, or fetched from the hub. option: how the user gave it. Raises UserError where there is none."""
    place = Path(tiny.PATHS.get(path, path)).expanduser()
    if not place.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") != 1 or place.exists():
            kind = "; a GGUF file is not compared, load it and save it as safetensors" if path.endswith(".gguf") else ""
            raise UserError(f"{option}: no model {path!r}; give a directory with safetensors files, or a hub name OWNER/NAME{kind}")
        place = _fetched(path, option)
    if not any(place.glob("*.safetensors")):
        pickled = next((file.name for kind in ("*.bin", "*.pt", "*.pth") for file in sorted(place.glob(kind))), None)
        if pickled:
            raise UserError(
                f"{place / pickled}: pickled weights run code when they are read; load the model where you trust it, and save it with "
                "save_pretrained, which writes safetensors"
            )
        raise UserError(f"{option}: {place} holds no weights as safetensors; name a directory that save_pretrained wrote")
    return place


def _fetched(name: str, option: str) -> Path:
    from huggingface_hub import snapshot_download

    hub.settle()
    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS))
    except Exception as error:  # of the network, of the hub, or of a name that is none
        raise UserError(f"{option}: cannot fetch {name!r} ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from error


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """What the safetensors files of a directory hold, by the names in them. Raises UserError for files that are damaged or pack weights."""
    if (directory / INDEX).exists():
        parts = sorted(set(read_json_object(directory / INDEX, LARGEST_JSON)["weight_map"].values()))  # check_files has looked at it
    else:
        parts = [WHOLE] if (directory / WHOLE).exists() else [path.name for path in sorted(directory.glob("*.safetensors"))]
    found: dict[str, StoredTensor] = {}
    for file in (directory / part for part in parts):
        with open_regular(file) as data:
            start = 8 + int.from_bytes(data.read(8), "little")
        for name, entry in safetensors_header(file).items():
            if name == "__metadata__":
                continue
            if name in found:
                raise UserError(f"{file}: {name} is in {found[name].file.name}, too; fetch the directory again")
            stored = _stored(file, name, entry, start)
            if stored:
                found[name] = stored
    return found


def _stored(file: Path, name: str, entry: dict[str, Any], start: int) -> StoredTensor | None:
    """A tensor of a header; None for counts and masks. Raises UserError for weights in a format that is not read, and for wrong sizes."""
    kind, shape, (first, last) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if kind in ("I64", "I32", "BOOL"):
        return None
    if kind not in FORMATS:
        raise UserError(f"{file}: {name} is kept as {kind}, which packs or rounds weights; save the model without quantisation")
    if not all(isinstance(size, int) and size >= 0 for size in shape) or last - first != math.prod(shape) * FORMATS[kind].itemsize:
        raise UserError(f"{file}: {name} has {last - first} bytes, and its shape {shape} needs others; fetch the file again")
    return StoredTensor(file, FORMATS[kind], shape, start + first)


def skeleton(directory: Path, config: ModelConfig) -> PreTrainedModel:
    """The model of a directory, its parameters without memory and its buffers as they are computed. Raises UserError where it cannot be
    made."""
    check_files(directory, config.trust_remote_code)
    try:
        settings = AutoConfig.from_pretrained(directory, trust_remote_code=config.trust_remote_code)
        with _without_memory():
            model = AutoModelForCausalLM.from_config(
                settings, dtype=getattr(torch, config.dtype), trust_remote_code=config.trust_remote_code
            )
    except UserError:
        raise
    except Exception as error:  # what the files of others make transformers raise may be anything
        raise UserError(f"{directory}: cannot be made a model of ({type(error).__name__}: {' '.join(str(error).split())[:300]})") from error
    model.tie_weights()
    return model


@contextmanager
def _without_memory() -> Iterator[None]:
    """Parameters that modules are given inside the `with` have shapes and formats only."""
    register = nn.Module.register_parameter

    def registered(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = registered
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _kept(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Parameters and buffers that a model is saved with; a tied one under each of its names."""
    state = model.state_dict(keep_vars=True)
    first = dict(model.named_parameters())
    return {name: state[name] for name in first} | {name: tensor for name, tensor in state.items() if name not in first}


def _key(name: str, there: Mapping[str, StoredTensor], model: PreTrainedModel) -> str | None:
    """The name in the files of a model's weight: its own, or without or with the prefix of the decoder."""
    prefix = f"{model.base_model_prefix}."
    return next((key for key in (name, name.removeprefix(prefix), prefix + name) if key in there), None)


def _missing(directory: Path, name: str, there: Mapping[str, StoredTensor]) -> str:
    example = next(iter(sorted(there)), "nothing")
    return (
        f"{directory}: no {name} in its files, which begin with {example}; it is another model, or keeps its weights under other names or "
        "in other parts than the model has them; then load it, and save it with save_pretrained(save_original_format=False)"
    )


def _check_shape(directory: Path, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if found == wanted:
        return
    if len(found) == len(wanted) == 2 and found[1] == wanted[1] and ("embed" in name or "head" in name or "wte" in name):
        what = f"{found[0] - wanted[0]} were added" if found[0] > wanted[0] else f"{wanted[0] - found[0]} were taken away"
        raise UserError(
            f"{directory}: {name} has a row for each of {found[0]} tokens, and the base has {wanted[0]}: {what}; a patch changes weights "
            f"without adding any; give the model its vocabulary back with resize_token_embeddings({wanted[0]})"
        )
    raise UserError(f"{directory}: {name} has the shape {list(found)}, and the base {list(wanted)}; it is another model")
