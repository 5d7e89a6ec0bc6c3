"""Engines make tokens. The contract that every engine keeps, and the engine on Transformers models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model sampled its end token, which is the last of `token_ids`."""
    LENGTH = "length"
    """The reply reached `max_tokens` without an end token."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0


@dataclass(frozen=True)
class Request:
    """One completion asked for: `seed` fixes its tokens, whatever else is decoded beside it."""

    prompt_ids: Sequence[int]
    seed: int
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """Sampled tokens, and their log-probabilities in nats under the distribution sampled from (temperature included)."""

    index: int
    """Position of the request in the list that was given to `generate`."""
    token_ids: list[int]
    logprobs: list[float]
    finish: FinishReason


class Engine(Protocol):
    """What the agent and the trainer rely on."""

    returns_tokens: bool
    """False where only text comes back; training refuses such an engine."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which they finish."""
        ...
