"""Base models and the parts of them that a run may train.

Parts are found by module identity: `layer:1` is the second module of the decoder's list of layers, and never a match on
a parameter's name (which would take `model.layers.1` for `model.layers.10`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..envs.errors import UserError
from . import tiny
from .config import ModelConfig
from .supported import check_supported

GRAMMAR = "full, layer:N, layers:N,N,..., layer:N.mlp, layer:N.attn, mid:K, embed, head"


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
    def end_ids(self) -> set[int]:
        """Every token that ends a reply: the tokenizer's and the generation configuration's."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = configured if isinstance(configured, list) else [configured]
        return {token for token in [*ids, self.tokenizer.eos_token_id] if token is not None}


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

    @property
    def count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def share(self) -> float:
        return self.count / self.total


def load_base(config: ModelConfig) -> Base:
    """Load model and tokenizer and hash every weight. Raises UserError where there is no such model, or one that cannot be used here."""
    path = str(tiny.PATHS.get(config.path, config.path))
    gguf = path.endswith(".gguf")
    if not (Path(path).is_file() if gguf else Path(path).is_dir()) and (gguf or path.startswith((".", "/", "~")) or path.count("/") != 1):
        bases = ", ".join(tiny.PATHS)
        raise UserError(
            f"model.path: no model {path!r}; give {bases}, a directory with a config.json, a .gguf file, or a hub name OWNER/NAME"
        )
    logging.disable_progress_bar()
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    source, options = (str(Path(path).parent), {"gguf_file": Path(path).name}) if gguf else (path, {})
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, config.dtype),
            trust_remote_code=False,
            **options,
            **({"quantization_config": GgufConfig(dequantize=True)} if gguf else {}),
        )
        model.to(device)  # pyright: ignore[reportArgumentType] (its wrapper hides the signature)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except ImportError as error:
        raise UserError(f"model.path: {path} cannot be read without further packages; pip install 'onelayer[gguf]'") from error
    except (OSError, ValueError, RuntimeError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.path: {path!r} brings Python code of its own, which is never run; take a model whose class transformers has"
            ) from error
        raise UserError(f"model.path: cannot load {path!r}: {' '.join(str(error).split())[:300]}") from error
    if gguf:
        _forget_quantization(model)
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")  # the others leave the cap out: another model than its weights were trained as (Gemma 2)
    model.eval()
    decoder_layers(model)
    check_supported(model)
    return Base(model, tokenizer, weight_hashes(model))


def _forget_quantization(model: PreTrainedModel) -> None:
    """The weights of a GGUF file are plain numbers once they are loaded: let the model be saved as any other."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def multiplied(model: PreTrainedModel, first_layer: int = 0) -> int:
    """Parameters that a token is multiplied with from a decoder layer on, the head included: what counts for FLOPs. Input embeddings
    are looked up, and count only where they are the head's too; of a mixture's experts those count that a token is sent to."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embeddings.weight
    looked_up = 0 if tied else sum(parameter.numel() for parameter in embeddings.parameters())
    layers = list(decoder_layers(model))
    below = sum(parameter.numel() for layer in layers[:first_layer] for parameter in layer.parameters())
    idle = sum(_idle_experts(layer, model.config.get_text_config()) for layer in layers[first_layer:])
    return sum(parameter.numel() for parameter in model.parameters()) - looked_up - below - idle


def _idle_experts(layer: nn.Module, config: PreTrainedConfig) -> int:
    """Parameters of the experts of a layer that a token is not sent to."""
    experts = next(
        (getattr(config, name) for name in ("num_local_experts", "num_experts", "n_routed_experts") if hasattr(config, name)), None
    )
    used = getattr(config, "num_experts_per_tok", None)
    if not experts or not used:
        return 0
    held = [module for name, module in layer.named_modules() if name.rpartition(".")[2] == "experts"]
    return sum(parameter.numel() for module in held for parameter in module.parameters()) * (experts - used) // experts


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's list of layers. Raises UserError for a model that has none."""
    depth = model.config.get_text_config().num_hidden_layers
    found = [module for module in model.get_decoder().modules() if isinstance(module, nn.ModuleList) and len(module) == depth]
    if len(found) != 1:
        raise UserError(
            f"{type(model).__name__} is not a decoder-only model with one list of {depth} layers ({len(found)} such lists found)"
        )
    return found[0]


def select(model: PreTrainedModel, spec: str) -> TrainedSet:
    """The trained set that `spec` names (see `GRAMMAR`). Raises UserError for an unknown set or a layer that is not there."""
    layers = decoder_layers(model)
    modules: Sequence[nn.Module]
    if spec == "full":  # what makes text: a model that also takes pictures keeps its other parts as they are
        head = model.get_output_embeddings()
        modules, first = [model.get_decoder(), *([] if head is None else [head])], 0
    elif spec == "embed":
        modules, first = [model.get_input_embeddings()], 0
    elif spec == "head":
        head = model.get_output_embeddings()
        if head is None:
            raise UserError(f"trained_set {spec!r}: {type(model).__name__} has no head")
        modules, first = [head], len(layers)
        if model.get_input_embeddings().weight is head.weight:
            first = 0  # tied: training the head trains the embeddings
    elif match := re.fullmatch(r"mid:(\d+)", spec):
        size = int(match[1])
        if not 1 <= size <= len(layers):
            raise UserError(f"trained_set {spec!r}: the model has {len(layers)} layers, so K of mid:K is 1 to {len(layers)}")
        first = (len(layers) - size) // 2
        modules = list(layers[first : first + size])
    elif match := re.fullmatch(r"layers?:(\d+(?:,\d+)*)(?:\.(mlp|attn))?", spec):
        indices = [int(number) for number in match[1].split(",")]
        if missing := [index for index in indices if index >= len(layers)]:
            raise UserError(
                f"trained_set {spec!r}: no layer {missing[0]}; the model has {len(layers)} layers, numbered 0 to {len(layers) - 1}"
            )
        if len(set(indices)) != len(indices):
            raise UserError(f"trained_set {spec!r}: a layer is named twice")
        modules = [layer if match[2] is None else _part(layer, match[2]) for layer in (layers[index] for index in indices)]
        first = min(indices)
    else:
        raise UserError(f"trained_set {spec!r} is not one of: {GRAMMAR}")
    chosen = {id(parameter) for module in modules for parameter in module.parameters()}
    named = dict(model.named_parameters())
    return TrainedSet(
        spec,
        {name: parameter for name, parameter in named.items() if id(parameter) in chosen},
        first,
        sum(parameter.numel() for parameter in named.values()),
    )


def _part(layer: nn.Module, part: str) -> nn.Module:
    name = {"mlp": "mlp", "attn": "self_attn"}[part]
    module = getattr(layer, name, None)
    if module is None:
        raise UserError(f"{type(layer).__name__} has no module {name!r}, so .{part} can not be trained on this model")
    return module


def weight_hashes(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, str]:
    """SHA-256 of each weight's float32 values, by name; the same for a bfloat16 checkpoint loaded in either format."""
    state = dict(model.named_parameters()) | {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return {name: tensor_hash(state[name]) for name in (state if names is None else names)}


def tensor_hash(tensor: torch.Tensor) -> str:
    values = tensor.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(str(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()


def fingerprint(hashes: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in sorted(hashes.items())).encode()).hexdigest()
