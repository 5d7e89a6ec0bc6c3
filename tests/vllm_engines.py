"""Engines on vLLM for the tests in tests/vllm."""

from __future__ import annotations

from collections.abc import Callable

from onelayer.agents.config import AgentConfig
from onelayer.agents.policy import Base
from onelayer.agents.vllm_engine import VllmEngine, in_process, on_server

MakeEngine = Callable[[Base], VllmEngine]


def here(base: Base) -> VllmEngine:
    """vLLM in this process."""
    return in_process(base, AgentConfig(engine="vllm", max_batch=64, kv_cache_gib=0.25))


def at(base: Base, url: str) -> VllmEngine:
    """vLLM on a server."""
    return on_server(base, AgentConfig(engine=url, max_batch=64))
