"""Base models: loading them, and the hashes that tell one from another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..common import hub
from ..common.errors import UserError
from . import tiny
from .config import ModelConfig
from .decoder import decoder_layers
from .digests import KnownDigests
from .gguf_blocks import keep_blocks
from .model_files import check_device, check_files, check_template
from .packed import PackedWeight, is_packed, quantise
from .supported import check_supported
from .trained_sets import TrainedSet

CACHED_KERNELS = "64"
"""Kernels for bfloat16 on a CPU that oneDNN, and PyTorch's layer over it, keep for shapes seen before. The default of both is 1024, which
took half a gigabyte after a few updates with replies of many lengths, and saved no time."""
HASHED_AT_ONCE = 2**15  # numbers, few enough for a processor's cache and for one thread


@dataclass(frozen=True)
class Base:
    """A model as it was loaded, before anything is trained or patched."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hashes: dict[str, str]
    """SHA-256 of every parameter and buffer, by name."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and hashes: what a patch is tied to."""
        return fingerprint(self.hashes)

    @property
    def quantized(self) -> bool:
        """Whether weights of it are kept packed."""
        return is_packed(self.model)

    @property
    def end_ids(self) -> set[int]:
        """Every token that ends a reply: the tokenizer's and the generation configuration's."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = configured if isinstance(configured, list) else [configured]
        return {token for token in [*ids, self.tokenizer.eos_token_id] if token is not None}


def load_base(config: ModelConfig) -> Base:
    """Load model and tokenizer and hash every weight. Raises UserError where there is no such model, or one that cannot be used here."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, CACHED_KERNELS)  # read when the first kernel is made
    path = str(tiny.PATHS.get(config.path, config.path))
    gguf = path.endswith(".gguf")
    if not (Path(path).is_file() if gguf else Path(path).is_dir()) and (gguf or path.startswith((".", "/", "~")) or path.count("/") != 1):
        bases = ", ".join(tiny.PATHS)
        raise UserError(
            f"model.path: no model {path!r}; give {bases}, a directory with a config.json, a .gguf file, or a hub name OWNER/NAME"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is wrong is told in one line below
    device = check_device(config.device)
    if config.quantization == "gguf" and not gguf:
        raise UserError("model.quantization: gguf keeps the blocks of a .gguf file, and model.path names none; take nf4 or int8")
    source, options = (str(Path(path).parent), {"gguf_file": Path(path).name}) if gguf else (path, {})
    try:
        if not gguf and not Path(path).is_dir():
            hub.settle()
        elif not gguf:
            check_files(Path(path), config.trust_remote_code)
        model, loading = cast(
            "tuple[PreTrainedModel, dict[str, Any]]",
            AutoModelForCausalLM.from_pretrained(
                source,
                dtype=getattr(torch, config.dtype),
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
                **options,
                **({"quantization_config": GgufConfig(dequantize=True)} if gguf else {}),
            ),
        )
        missing = sorted(loading["missing_keys"])
        model.to(device)  # pyright: ignore[reportArgumentType] (its wrapper hides the signature)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code, **options)
    except ImportError as error:
        raise UserError(f"model.path: {path} cannot be read without further packages; pip install 'onelayer[gguf]'") from error
    except UserError:
        raise
    except Exception as error:  # what the files of others make transformers raise may be anything
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.path: {path!r} brings Python code of its own, which is not run; take a model whose class transformers has, or "
                "set model.trust_remote_code=true if you trust its authors"
            ) from error
        raise UserError(f"model.path: cannot load {path!r} ({type(error).__name__}: {' '.join(str(error).split())[:300]})") from error
    if missing:
        raise UserError(f"model.path: {path} is without {len(missing)} of the weights of its configuration ({missing[0]}); fetch it again")
    check_template(tokenizer)
    if gguf:
        _forget_quantization(model)
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the others leave the cap out: another model than its weights were trained as (Gemma 2)
    model.eval()
    decoder_layers(model)
    if config.quantization == "gguf":
        keep_blocks(model, Path(path))
    elif config.quantization:
        quantise(model, config.quantization)
    check_supported(model)
    return Base(model, tokenizer, _digests(model, config, path))


def _digests(model: PreTrainedModel, config: ModelConfig, path: str) -> dict[str, str]:
    """`weight_hashes` of a model as it was loaded, which are known where it has been loaded before."""
    place = Path(path) if Path(path).exists() else hub.snapshot(path)
    if place is None:
        return weight_hashes(model)
    known = KnownDigests(place, model.dtype, config.quantization, model.device.type)
    found = known.read(list(_hashed(model)))
    if found is None:
        known.write(found := weight_hashes(model))
    return found


def _forget_quantization(model: PreTrainedModel) -> None:
    """The weights of a GGUF file are plain numbers once they are loaded: let the model be saved as any other."""
    vars(model).pop("hf_quantizer", None)
    vars(model)["is_quantized"] = False
    vars(model.config).pop("quantization_config", None)


def weight_hashes(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, str]:
    """SHA-256 of each weight's float32 values, by name; the same for a bfloat16 checkpoint loaded in either format. A packed weight's
    is that of its bytes as they are stored."""
    state = _hashed(model)
    names = list(state if names is None else names)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return dict(zip(names, threads.map(tensor_hash, [state[name] for name in names]), strict=True))


def _hashed(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that is hashed: parameters, and buffers of numbers."""
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {**dict(model.named_parameters()), **buffers}


def tensor_hash(tensor: torch.Tensor) -> str:
    """A part at a time: a copy of the whole in float32 would be the largest tensor in memory."""
    if isinstance(tensor, PackedWeight):
        return tensor.digest()
    found = begun_hash(tuple(tensor.shape))
    add_to_hash(found, tensor.detach().flatten())
    return found.hexdigest()


def begun_hash(shape: tuple[int, ...]) -> hashlib._Hash:
    """The hash of a tensor of this shape, before the first of its values."""
    return hashlib.sha256(str(shape).encode())


def add_to_hash(found: hashlib._Hash, values: torch.Tensor) -> None:
    """Add the next values of a flattened tensor, as float32."""
    for part in values.split(HASHED_AT_ONCE):
        found.update(part.to("cpu", torch.float32).contiguous().numpy().data)


def part_hashes(trained: TrainedSet) -> dict[str, str]:
    """SHA-256 of the weights that a set holds in part, by name, with the trained entries taken for zero."""
    hashes = {}
    for name, places in trained.places.items():
        values = trained.parameters[name].detach().clone()
        values.view(-1)[places] = 0
        hashes[name] = tensor_hash(values)
    return hashes


def fingerprint(hashes: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items())).encode()).hexdigest()
