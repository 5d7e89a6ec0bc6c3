"""A model in one GGUF file: its weights and its tokenizer as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, quants
from transformers import Qwen2Config, Qwen2ForCausalLM

from onelayer.agents.config import ModelConfig
from onelayer.agents.packed import PackedWeight
from onelayer.agents.policy import load_base
from onelayer.common.errors import UserError

TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
"""Modules of a layer, and what llama.cpp calls them."""
CHARACTERS = [chr(code) for code in range(ord("!"), ord("~") + 1)]


def written(path: Path, kind: GGMLQuantizationType = GGMLQuantizationType.F16) -> Qwen2ForCausalLM:
    """A random Qwen2 of two layers, its matrices written as `kind`, and what it was before."""
    tokens = [*CHARACTERS, "Ġ", "Ċ", "ab", "<|endoftext|>"]
    torch.manual_seed(0)
    shape = Qwen2Config(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokens),
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    model = Qwen2ForCausalLM(shape).half()
    writer = GGUFWriter(path, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(tokens) - 1)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if values.ndim == 1:
            writer.add_tensor(told(name), values.astype("float32"))
        else:
            writer.add_tensor(told(name), quants.quantize(values.astype("float32"), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def told(name: str) -> str:
    """llama.cpp's name of a weight."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, number, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{number}.{TENSORS[module]}.{kind}"


def test_weights_and_tokens_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    model = written(path)
    base = load_base(ModelConfig(path=str(path)))
    found = dict(base.model.named_parameters())
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(found[name], weight.float()) for name, weight in model.named_parameters())
    assert base.tokenizer.decode(base.tokenizer.encode("abba\n", add_special_tokens=False)) == "abba\n"
    assert base.tokenizer.convert_ids_to_tokens(base.tokenizer.encode("ab", add_special_tokens=False)) == ["ab"]


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    written(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UserError, match=r"small\.gguf"):
        load_base(ModelConfig(path=str(path)))


@pytest.mark.parametrize("kind", [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q5_0])
def test_the_blocks_of_a_file_are_kept(kind: GGMLQuantizationType, tmp_path: Path) -> None:
    path = tmp_path / "blocks.gguf"
    written(path, kind)
    model = ModelConfig(path=str(path), dtype="bfloat16", device="cpu")
    plain, base = load_base(model), load_base(model.model_copy(update={"quantization": "gguf"}))
    packed = {name: weight for name, weight in base.model.named_parameters() if isinstance(weight, PackedWeight)}
    assert len(packed) == 2 + 2 * 7
    assert all(torch.equal(weight.dense(), plain.model.get_parameter(name)) for name, weight in packed.items())
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, plain.model(ids).logits)
    with pytest.raises(UserError, match=r"model\.quantization"):
        load_base(ModelConfig(quantization="gguf"))
