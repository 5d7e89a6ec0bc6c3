"""Tiny random models of the families that users bring, and the shipped tokenizer."""

from __future__ import annotations

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
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

FEW = SIZES | {"num_hidden_layers": 4}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MORE_FAMILIES: dict[str, dict[str, object]] = {  # by model type; what differs from FEW
    "gemma3_text": {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2, "query_pre_attn_scalar": 8},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 256},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "glm4": {},
    "granite": {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "attention_multiplier": 0.2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {"num_experts": 4, "shared_expert_intermediate_size": 16, **EXPERTS},
    "qwen3_moe": {"num_experts": 4, **EXPERTS},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 9},
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
        "first_k_dense_replace": 1,
        **EXPERTS,
    },
    "gemma4_text": {  # large weights would make rounding errors of 3e-5
        "vocab_size_per_layer_input": 320,
        "hidden_size_per_layer_input": 8,
        "sliding_window": 9,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "initializer_range": 0.05,
    },
}
UNFIT: dict[str, dict[str, object]] = {  # models with a state or a mask of their own
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "expand": 2},
    "rwkv": {"attention_hidden_size": 32, "context_length": 256},
    "bloom": {"n_layer": 4, "n_head": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "qwen3_next": {"num_experts": 4, "layer_types": ["linear_attention", "full_attention"] * 2, **EXPERTS},
    "jamba": {"num_experts": 2, "mamba_d_state": 4, "use_mamba_kernels": False},
    "phi3": {
        "original_max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4},
    },
}


def random_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """One of `MORE_FAMILIES` or `UNFIT`, by its model type."""
    torch.manual_seed(seed)
    more = (MORE_FAMILIES | UNFIT)[model_type]
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**FEW, **more}))
    return model.eval()


def random_base(family: str, seed: int = 0) -> Base:
    torch.manual_seed(seed)
    model: PreTrainedModel = random_model(family, seed) if family in MORE_FAMILIES else FAMILIES[family]().eval()
    if family.startswith("gemma2"):
        model.set_attn_implementation("eager")  # its capped logits have no fused kernel
    return Base(model, AutoTokenizer.from_pretrained(tiny.PATH), weight_hashes(model))
