"""The agent: an observation becomes a prompt, sampled tokens become an action."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

from .config import AgentConfig
from .engine import Engine, TransformersEngine
from .policy import Base


class Agent:
    """Engine, tokenizer and prompt of one model. Models without a chat template get the plain text."""

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, config: AgentConfig):
        self.engine, self.tokenizer, self.config = engine, tokenizer, config

    def prompt_ids(self, observation: str) -> list[int]:
        """Token ids of the prompt, ready for the reply."""
        text = self.config.prompt.format(observation=observation)
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(text)
        messages = [{"role": "user", "content": text}]
        return cast("list[int]", self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    def action(self, token_ids: Sequence[int]) -> str:
        """The reply as text, special tokens left out."""
        return cast("str", self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def make_agent(base: Base, config: AgentConfig) -> Agent:
    """An agent on the base's model, in process: it sees every later change of the model's weights at once."""
    return Agent(TransformersEngine(base.model, base.end_ids, config.max_batch), base.tokenizer, config)


def derive_seed(*parts: object) -> int:
    """63 bits from a hash of the parts: seeds that depend on what they are for and on nothing else."""
    return int.from_bytes(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:8], "big") >> 1
