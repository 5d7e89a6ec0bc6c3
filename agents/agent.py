"""The agent: an observation becomes a prompt, sampled tokens become an action."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from transformers import PreTrainedTokenizerBase

from ..envs.config import EnvConfig
from .config import AgentConfig
from .engine import Engine, TransformersEngine
from .policy import Base

PROMPTS = Path(__file__).parent / "prompts"


class Agent:
    """Engine, tokenizer and prompt of one model. Models without a chat template get the plain text.

    prompt: template of the user message, with {observation}.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, config: AgentConfig, prompt: str = "{observation}"):
        self.engine, self.tokenizer, self.config, self.prompt = engine, tokenizer, config, prompt

    def prompt_ids(self, observation: str) -> list[int]:
        """Token ids of the prompt, ready for the reply."""
        text = self.prompt.format(observation=observation)
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(text)
        messages = [{"role": "user", "content": text}]
        return cast("list[int]", self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    def action(self, token_ids: Sequence[int]) -> str:
        """The reply as text, special tokens left out."""
        return cast("str", self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


def make_agent(base: Base, config: AgentConfig, env: EnvConfig) -> Agent:
    """An agent on the base's model, in process, for one kind of environment: it sees every later change of the model's weights at once."""
    engine = TransformersEngine(base.model, base.end_ids, config.max_batch)
    return Agent(engine, base.tokenizer, config, config.prompt or default_prompt(env.id))


def default_prompt(env_id: str) -> str:
    """The template for an environment: its file in agents/prompts, else the observation alone."""
    path = PROMPTS / f"{env_id.rpartition('/')[2]}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else "{observation}"


def derive_seed(*parts: object) -> int:
    """63 bits from a hash of the parts: seeds that depend on what they are for and on nothing else."""
    return int.from_bytes(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:8], "big") >> 1
