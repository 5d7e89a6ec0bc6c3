"""Tiny random models of the families that users bring, and the shipped tokenizer."""

from __future__ import annotations

import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from onelayer.agents import tiny
from onelayer.agents.policy import Base, weight_hashes

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 12,  # two digits: layer 1 must not be taken for layer 10
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "head_dim": 8,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in SIZES.items() if k != "head_dim"})),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, tie_word_embeddings=True)),
    "mistral, sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=9)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZES)),
    "gemma2, alternating windows": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=9, query_pre_attn_scalar=8)),
}


def random_base(family: str, seed: int = 0) -> Base:
    torch.manual_seed(seed)
    model: PreTrainedModel = FAMILIES[family]().eval()
    if family.startswith("gemma2"):
        model.set_attn_implementation("eager")  # its capped logits have no fused kernel
    return Base(model, AutoTokenizer.from_pretrained(tiny.PATH), weight_hashes(model))
