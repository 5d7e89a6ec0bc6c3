"""How the tokens of an evaluation are drawn."""

from __future__ import annotations

from ..agents.engine import Sampling
from .config import EvalConfig
from .records import Decoding


def sampling_of(config: EvalConfig, decoding: Decoding, max_tokens: int) -> Sampling:
    """The likeliest tokens for greedy replies; for others as the configuration says."""
    if decoding is Decoding.GREEDY:
        return Sampling(max_tokens, temperature=0.0)
    return Sampling(max_tokens, config.temperature, config.top_p, config.top_k)
