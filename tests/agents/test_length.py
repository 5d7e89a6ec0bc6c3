"""How long a reply may be where the recipe does not say: by model and suite, and never so long that no prompt fits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config

from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.length import context_of, with_length
from onelayer.agents.policy import load_base
from onelayer.common.errors import UserError
from onelayer.envs.config import ALFWorldConfig, CodeConfig, EnvConfig, MathConfig, OtherConfig


def model(context: int, hidden: int = 512) -> PreTrainedModel:
    """A model of some 20 million parameters (hidden 512) without weights."""
    sizes: Any = {
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "intermediate_size": hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
    }
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(Qwen2Config(**sizes, num_key_value_heads=8, max_position_embeddings=context))


@pytest.mark.parametrize(
    ("env", "length"),
    [
        (MathConfig(), 512),
        (MathConfig(suite="gsm8k"), 512),
        (MathConfig(suite="math500"), 2048),
        (MathConfig(suite="mine.jsonl"), 512),
        (CodeConfig(suite="humaneval+"), 768),
        (ALFWorldConfig(), 512),
        (OtherConfig(id="reasoning_gym:chain_sum"), 512),
    ],
)
def test_the_suite_decides_for_a_real_model_and_a_line_is_enough_for_a_tiny_one(env: EnvConfig, length: int) -> None:
    assert with_length(AgentConfig(), model(32_768), env).max_tokens == length
    assert with_length(AgentConfig(), None, env).max_tokens == length  # an endpoint
    assert with_length(AgentConfig(), model(32_768, hidden=64), env).max_tokens == 40
    assert with_length(AgentConfig(max_tokens=7), model(32_768), env).max_tokens == 7


def test_the_longest_of_several_suites_counts_and_half_the_context_is_left_for_the_prompt() -> None:
    assert with_length(AgentConfig(), model(32_768), MathConfig(suite="gsm8k"), MathConfig(suite="aime24")).max_tokens == 2048
    assert with_length(AgentConfig(), model(1024), MathConfig(suite="math500")).max_tokens == 512
    assert with_length(AgentConfig(), model(64, hidden=64), MathConfig()).max_tokens == 32


def test_a_reply_that_leaves_no_token_for_the_prompt_is_refused() -> None:
    base = load_base(ModelConfig())
    assert (context_of(base.model), make_agent(base, AgentConfig(), MathConfig()).config.max_tokens) == (2048, 40)
    assert make_agent(base, AgentConfig(max_tokens=2047), MathConfig()).context == 1
    for length in (2048, 3072):
        with pytest.raises(UserError, match=rf"^agent.max_tokens is {length}, and the model takes 2048 tokens.*; set it to 1024 or less"):
            make_agent(base, AgentConfig(max_tokens=length), MathConfig())
