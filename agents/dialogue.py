"""The agent's side of an episode: what it hears becomes a prompt, and its reply becomes an action."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from .chat import Chat
from .engine import Completion, FinishReason
from .prompts import fill, listed

ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL | re.IGNORECASE)


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


class Window:
    """Each step has a prompt of its own, which shows the last `turns` pairs of observation and action (as GiGPO's authors do)."""

    session: str | None = None

    def __init__(self, chat: Chat, prompt: str, context: int, turns: int):
        """prompt: template of the user message; context: most tokens of a prompt."""
        self.chat, self.prompt, self.context, self.turns = chat, prompt, context, turns
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
            ids = self.chat.encode(fill(self.prompt, observation, info, self.task or "", past))
            if len(ids) <= self.context:
                return ids
        return None

    def say(self, reply: Completion) -> tuple[str, str]:
        text = self.chat.text(reply.token_ids)
        self.past.append((self.observation, action := parse_action(text, self.info)))
        return text, action


class Conversation:
    """One conversation that grows: every prompt goes on from the tokens before it, and none is ever tokenised again."""

    def __init__(self, chat: Chat, prompt: str, context: int, session: str):
        """prompt: template of the first user message; context: most tokens of a prompt."""
        self.chat, self.prompt, self.context = chat, prompt, context
        self.session: str | None = session
        self.ids: list[int] = []
        self.ended = True

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        self.info = info
        if not self.ids:
            self.ids = self.chat.encode(fill(self.prompt, observation, info, info.get("task", observation)))
        else:
            more = f"\nYou can: {listed(info)}" if "admissible" in info else ""
            self.ids += self.chat.encode_next(observation + more, self.ended)
        return list(self.ids) if len(self.ids) <= self.context else None

    def say(self, reply: Completion) -> tuple[str, str]:
        self.ids += reply.token_ids
        self.ended = reply.finish is FinishReason.STOP
        text = self.chat.text(reply.token_ids)
        return text, parse_action(text, self.info)


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
