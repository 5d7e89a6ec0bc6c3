"""The agent: observations become prompts, sampled tokens become actions.

An agent plays many episodes at once, and a `Dialogue` is its side of one of them. The loop in episodes.py asks it for a prompt, gives
the prompt to the agent's engine, and hands the reply back for an action.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from transformers import PreTrainedTokenizerBase

from ..common.errors import UserError
from ..envs import make
from ..envs.config import EnvConfig
from .config import AgentConfig, history
from .engine import Completion, Engine, FinishReason, Request, TransformersEngine
from .length import TOKENLESS, UNLIMITED, context_of, left_for_prompts, with_length
from .policy import Base
from .vllm_engine import VllmEngine, in_process, on_server

PROMPTS = Path(__file__).parent / "prompts"
ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL | re.IGNORECASE)
MARK = "\u2402reply\u2403"  # stands for a reply where a chat template is asked what comes after one


class Dialogue(Protocol):
    """The agent's side of one episode."""

    session: str | None
    """The engine session that keeps what was computed of it; None where turns have prompts of their own."""

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        """Token ids of the prompt that answers the observation; None where it is longer than the model takes."""
        ...

    def say(self, reply: Completion) -> tuple[str, str]:
        """The reply as text, and the action that it stands for."""
        ...


class Agent:
    """Engine, tokenizer and prompt of one model. Models without a chat template get the plain text.

    prompt: template of the user message, with {observation}, and {task}, {history}, {admissible} where an environment has them.
    history: how many past turns a prompt shows, each step a prompt of its own; or "full": one conversation that grows.
    context: most tokens of a prompt.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        config: AgentConfig,
        prompt: str = "{observation}",
        history: int | Literal["full"] = 0,
        context: int = UNLIMITED,
    ):
        self.engine, self.tokenizer, self.config = engine, tokenizer, config
        self.prompt, self.history, self.context = prompt, history, context

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
        return Window(self, self.history) if isinstance(self.history, int) else Conversation(self, f"{item}/{seed}")

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt with this user message, ready for the reply."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(text)
        messages = [{"role": "user", "content": text}]
        return cast("list[int]", self._apply_template(messages, return_dict=False))

    def encode_next(self, text: str, ended: bool) -> list[int]:
        """Token ids of what stands between a reply and the next one: its end, unless it was sampled (`ended`), and the user's message."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(f"\n{text}\n", add_special_tokens=False)
        messages = [{"role": "user", "content": "0"}, {"role": "assistant", "content": MARK}, {"role": "user", "content": text}]
        rendered = cast("str", self._apply_template(messages, tokenize=False))
        glue = rendered.rpartition(MARK)[2]
        if ended and self.tokenizer.eos_token and glue.startswith(end := cast("str", self.tokenizer.eos_token)):
            glue = glue.removeprefix(end)
        return self.tokenizer.encode(glue, add_special_tokens=False)

    def _apply_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)
        except Exception as error:  # a template is a program of whoever made the model
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            raise UserError(f"model.path: the chat template of the model fails on a prompt ({reason}); take another template") from error

    def text(self, token_ids: Sequence[int]) -> str:
        """The reply as text, special tokens left out."""
        return cast("str", self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


class Window:
    """Each step has a prompt of its own, which shows the last `turns` pairs of observation and action (as GiGPO's authors do)."""

    session: str | None = None

    def __init__(self, agent: Agent, turns: int):
        self.agent, self.turns = agent, turns
        self.past: list[tuple[str, str]] = []
        self.task: str | None = None

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        self.task = self.task or info.get("task", observation)
        if self.past:
            seen, action = self.past[-1]
            self.past[-1] = seen, played(action, info)
        self.observation, self.info = observation, info
        for shown in range(min(self.turns, len(self.past)), -1, -1):  # the oldest turns are left out where the prompt gets too long
            past = self.past[len(self.past) - shown :]
            ids = self.agent.encode(fill(self.agent.prompt, observation, info, self.task or "", past))
            if len(ids) <= self.agent.context:
                return ids
        return None

    def say(self, reply: Completion) -> tuple[str, str]:
        text = self.agent.text(reply.token_ids)
        self.past.append((self.observation, action := parse_action(text, self.info)))
        return text, action


class Conversation:
    """One conversation that grows: every prompt goes on from the tokens before it, and none is ever tokenised again."""

    def __init__(self, agent: Agent, session: str):
        self.agent = agent
        self.session: str | None = session
        self.ids: list[int] = []
        self.ended = True

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        self.info = info
        if not self.ids:
            self.ids = self.agent.encode(fill(self.agent.prompt, observation, info, info.get("task", observation)))
        else:
            more = f"\nYou can: {listed(info)}" if "admissible" in info else ""
            self.ids += self.agent.encode_next(observation + more, self.ended)
        return list(self.ids) if len(self.ids) <= self.agent.context else None

    def say(self, reply: Completion) -> tuple[str, str]:
        self.ids += reply.token_ids
        self.ended = reply.finish is FinishReason.STOP
        text = self.agent.text(reply.token_ids)
        return text, parse_action(text, self.info)


def fill(prompt: str, observation: str, info: Mapping[str, Any], task: str, past: Iterable[tuple[str, str]] = ()) -> str:
    """The prompt template with everything in its place; `past` are the pairs of observation and action to show."""
    history = "".join(f"Observation: {seen}\nAction: {done}\n" for seen, done in past)
    return prompt.format(observation=observation, task=task, history=history, admissible=listed(info))


def listed(info: Mapping[str, Any]) -> str:
    return ", ".join(info.get("admissible", ()))


def parse_action(reply: str, info: Mapping[str, Any]) -> str:
    """Where the environment names the possible actions, the last <action>..</action>, or what follows the thoughts; else the reply."""
    if "admissible" not in info:
        return reply
    found = ACTION.findall(reply)
    return (found[-1] if found else reply.rpartition("</think>")[2]).strip()


def played(action: str, info: Mapping[str, Any]) -> str:
    """The action as the environment played it, which may spell it otherwise than the reply did."""
    told = info.get("played")
    return told if isinstance(told, str) else action


def make_agent(base: Base, config: AgentConfig, env: EnvConfig) -> Agent:
    """An agent on the base's model as it is now, for one kind of environment; tell its engine (`sync`) when the model's weights change.

    Raises UserError where a reply as long as `max_tokens` leaves no token for the prompt, and as `make_engine` does.
    """
    config = with_length(config, base.model, env)
    engine = make_engine(base, config)
    longest = context_of(base.model)
    if isinstance(engine, VllmEngine):
        longest = min(longest, engine.backend.max_len)
    longest = left_for_prompts(longest, config.reply_length)
    context = min(longest, config.max_prompt or longest)
    prompt = config.prompt or default_prompt(env.id)
    return Agent(engine, base.tokenizer, config, prompt, history(config.history, env.id), context)


def make_engine(base: Base, config: AgentConfig) -> Engine:
    """What `agent.engine` names. Raises UserError where there is no vLLM, or no server."""
    if config.engine == "transformers":
        return TransformersEngine(base.model, base.end_ids, config.max_batch, config.kv_cache_gib)
    if config.engine == "vllm":
        return in_process(base, config.max_batch, config.kv_cache_gib)
    return on_server(base, config.engine, config.max_batch)


def default_prompt(env_id: str) -> str:
    """The template for an environment: its file in agents/prompts, else the observation alone."""
    path = PROMPTS / f"{env_id.rpartition('/')[2]}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else "{observation}"


def derive_seed(*parts: object) -> int:
    """63 bits from a hash of the parts: seeds that depend on what they are for and on nothing else."""
    return int.from_bytes(hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()[:8], "big") >> 1


# Baselines that need no model: they answer without an engine's tokens, and everything else is as with a model.


class Scripted:
    """Plays by rule: `act(item, seed)` gives a function from the admissible actions and the number of the turn to an action."""

    def __init__(self, name: str, act: Callable[[str, int], Callable[[Sequence[str], int], str]]):
        self.engine, self.config, self.prompt = Silent(), TOKENLESS, f"({name})"
        self._act = act

    def begin(self, item: str, seed: int) -> Dialogue:
        return Script(self._act(item, seed))


class Script:
    session: str | None = None

    def __init__(self, act: Callable[[Sequence[str], int], str]):
        self._act, self._turn, self._admissible = act, 0, ()

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        self._admissible = info.get("admissible", ())
        return []

    def say(self, reply: Completion) -> tuple[str, str]:
        action = self._act(self._admissible, self._turn)
        self._turn += 1
        return action, action


class Silent:
    """The engine of who needs none."""

    returns_tokens = False

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        yield from (Completion(index, [], [], FinishReason.STOP) for index, _ in enumerate(requests))

    def end_session(self, session: str) -> None:
        pass

    def sync(self, changed: Iterable[str] | None = None) -> None:
        pass


def random_agent(env: EnvConfig, split: str) -> Scripted:
    """Any of the admissible actions, all as likely. Its steps are refused where the environment names none."""

    def act(item: str, seed: int) -> Callable[[Sequence[str], int], str]:
        rng = random.Random(seed)

        def choose(admissible: Sequence[str], turn: int) -> str:
            if not admissible:
                raise UserError(f"{env.id}: names no admissible actions, so the random agent can not choose; take another policy")
            return rng.choice(admissible)

        return choose

    return Scripted("random", act)


def gold_agent(env: EnvConfig, split: str) -> Scripted:
    """The actions that the environment itself gives as a solution. Raises UserError where it gives none."""
    game = make(env, split)
    if not game.has_wrapper_attr("gold"):
        raise UserError(f"{env.id}: gives no gold actions; take another policy")

    def act(item: str, seed: int) -> Callable[[Sequence[str], int], str]:
        actions = game.get_wrapper_attr("gold")(item)
        return lambda admissible, turn: actions[turn] if turn < len(actions) else ""

    return Scripted("gold", act)


Player = Agent | Scripted
"""Who plays: a model, or a rule."""
BASELINES: dict[str, Callable[[EnvConfig, str], Scripted]] = {"random": random_agent, "gold": gold_agent}
