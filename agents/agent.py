"""The agent: observations become prompts, sampled tokens become actions.

An agent plays many episodes at once, and a `Dialogue` is its side of one of them. The loop in episodes.py asks it for a prompt, gives
the prompt to the agent's engine, and hands the reply back for an action.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

from ..envs.config import EnvConfig
from .baselines import Scripted
from .chat import Chat
from .config import AgentConfig, EndpointConfig, history
from .dialogue import Conversation, Dialogue, Window
from .ends import Ends, ends_of
from .engine import Engine
from .engines import make_engine
from .length import UNLIMITED, left_for_prompts, with_length
from .openai_engine import OpenAIEngine, TextTokenizer
from .policy import Base
from .prompts import default_prompt


class Agent:
    """Engine, tokenizer and prompt of one model.

    prompt: template of the user message, with {observation}, and {task}, {history}, {admissible} where an environment has them.
    history: how many past turns a prompt shows, each step a prompt of its own; or "full": one conversation that grows.
    context: most tokens of a prompt. ends: what ends a reply.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        config: AgentConfig,
        prompt: str = "{observation}",
        history: int | Literal["full"] = 0,
        context: int = UNLIMITED,
        ends: Ends | None = None,
    ):
        self.engine, self.tokenizer, self.config = engine, tokenizer, config
        self.chat, self.prompt, self.history, self.context = Chat(tokenizer, config, ends), prompt, history, context

    @property
    def prompt_limit(self) -> str:
        """Why a prompt may not be longer, and what to do: the end of a message."""
        if self.config.max_prompt is not None and self.config.max_prompt <= self.context:
            return f"agent.max_prompt, {self.config.max_prompt} tokens; raise it, or shorten agent.prompt"
        return (
            f"the {self.context} tokens that the model takes beside a reply of agent.max_tokens ({self.config.max_tokens}); "
            "lower it, or take a model with a longer context, or shorten agent.prompt"
        )

    def begin(self, item: str, seed: int) -> Dialogue:
        """A new episode; `seed` is its sampling seed."""
        if isinstance(self.history, int):
            return Window(self.chat, self.prompt, self.context, self.history)
        return Conversation(self.chat, self.prompt, self.context, f"{item}/{seed}")


Player = Agent | Scripted
"""Who plays: a model, or a rule."""


def make_agent(base: Base, config: AgentConfig, env: EnvConfig) -> Agent:
    """An agent on the base's model as it is now, for one kind of environment; tell its engine (`load`) when the model's weights change.

    Raises UserError where a reply as long as `max_tokens` leaves no token for the prompt, and as `make_engine` does.
    """
    config = with_length(config, base.model, env)
    ends = ends_of(base, config.stop)
    Chat(base.tokenizer, config, ends).check()
    return agent_on(make_engine(base, config), base.tokenizer, config, env, ends)


def endpoint_agent(endpoint: EndpointConfig, model: str, config: AgentConfig, env: EnvConfig) -> Agent:
    """An agent whose replies come from an endpoint, for one kind of environment; its tokens are characters.

    Raises UserError for what an endpoint cannot do.
    """
    return agent_on(OpenAIEngine(endpoint, model, config), cast("Any", TextTokenizer()), with_length(config, None, env), env)


def agent_on(engine: Engine, tokenizer: PreTrainedTokenizerBase, config: AgentConfig, env: EnvConfig, ends: Ends | None = None) -> Agent:
    """An agent on an engine, as its configuration and the environment have it."""
    longest = left_for_prompts(engine.context, config.reply_length)
    prompt = config.prompt or default_prompt(env.id)
    return Agent(engine, tokenizer, config, prompt, history(config.history, env.id), min(longest, config.max_prompt or longest), ends)


def at_limit(agent: Agent, max_tokens: int, env: EnvConfig, engine: Engine | None = None) -> Agent:
    """The same agent with replies of up to so many tokens. engine: another one in place of its own.

    Raises UserError where such a reply leaves no token for the prompt.
    """
    config = agent.config.model_copy(update={"max_tokens": max_tokens})
    return agent_on(engine or agent.engine, agent.tokenizer, config, env, agent.chat.ends)
