"""A model before it is loaded: its shape, on a device without memory, and its tokenizer where that is at hand.

What a run would take is asked before weights are fetched, and often on another machine than the one that trains. The shape is then that of
the model's configuration; of the models of the paper (arXiv:2607.01232) a table here has it, so that neither hub nor cache is needed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..common import hub
from ..common.errors import UserError
from . import tiny
from .config import ModelConfig
from .model_files import check_files

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Files of which a model of the hub has one."""


@dataclass(frozen=True)
class Shape:
    """What decides the sizes of a decoder, under the names of its configuration (config.json)."""

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    head_dim: int = 128

    def config(self) -> PreTrainedConfig:
        """The configuration with these sizes."""
        sizes = asdict(self)
        return AutoConfig.for_model(sizes.pop("model_type"), **sizes)


SHAPES = {
    #                                            type     layers hidden    ffn heads kv   vocab  tied   context
    "Qwen/Qwen3-1.7B-Base": Shape("qwen3", 28, 2048, 6144, 16, 8, 151936, True, 32768),
    "Qwen/Qwen3-4B-Base": Shape("qwen3", 36, 2560, 9728, 32, 8, 151936, True, 32768),
    "Qwen/Qwen3-8B-Base": Shape("qwen3", 36, 4096, 12288, 32, 8, 151936, False, 32768),
    "Qwen/Qwen2.5-Math-1.5B": Shape("qwen2", 28, 1536, 8960, 12, 2, 151936, True, 4096),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape("qwen2", 28, 1536, 8960, 12, 2, 151936, True, 32768),
    "Qwen/Qwen2.5-3B-Instruct": Shape("qwen2", 36, 2048, 11008, 16, 2, 151936, True, 32768),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": Shape("qwen2", 28, 3584, 18944, 28, 4, 152064, False, 131072),
}
"""By hub name, as in their config.json. tests/agents/test_shapes.py compares the numbers of parameters with the published ones."""


@dataclass(frozen=True)
class Outline:
    """A model that is not loaded."""

    model: PreTrainedModel
    """On PyTorch's device `meta`, without values."""
    tokenizer: PreTrainedTokenizerBase | None
    """None: it is not at hand."""
    source: str
    """Where the shape is from, in words."""


def is_at_hand(config: ModelConfig) -> bool:
    """Whether the model can be loaded without fetching weights: it ships, or is a path, or its weights are in the hub's cache here."""
    from huggingface_hub import try_to_load_from_cache

    if not _is_hub_name(config.path):
        return True
    return any(isinstance(try_to_load_from_cache(config.path, name), str) for name in WEIGHTS)


def outline(config: ModelConfig) -> Outline:
    """The model's shape, without weights: from its directory or the cache, else from `SHAPES`, else its config.json from the hub.

    Raises UserError where the shape cannot be had.
    """
    logging.set_verbosity_error()
    path = str(tiny.PATHS.get(config.path, config.path))
    source, options = (str(Path(path).parent), {"gguf_file": Path(path).name}) if path.endswith(".gguf") else (path, {})
    if path in SHAPES and not is_at_hand(config):
        shape, where = SHAPES[path].config(), "the package's table of shapes"
    else:
        where = "the hub" if _is_hub_name(path) else path
        try:
            hub.settle() if _is_hub_name(path) else None if options else check_files(Path(path), config.trust_remote_code)
            shape = AutoConfig.from_pretrained(source, trust_remote_code=config.trust_remote_code, **options)
        except UserError:
            raise
        except Exception as error:  # what the files of others make transformers raise may be anything
            known = ", ".join(SHAPES)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise UserError(f"model.path: the shape of {path!r} is not at hand ({reason}); it is known of {known}") from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape, dtype=getattr(torch, config.dtype), trust_remote_code=config.trust_remote_code)
    return Outline(model.eval(), _tokenizer(source, options, config), where)


def _is_hub_name(path: str) -> bool:
    return path not in tiny.PATHS and not path.endswith(".gguf") and not Path(path).is_dir()


def _tokenizer(source: str, options: dict[str, str], config: ModelConfig) -> PreTrainedTokenizerBase | None:
    if _is_hub_name(source):
        hub.settle()
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=config.trust_remote_code, **options)
    except (OSError, ValueError):  # not in the cache, and the hub does not answer
        return None
