"""onelayer: layer-wise reinforcement learning of language-model agents, measured honestly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agents.only import only

__all__ = ["only"]


def __getattr__(name: str) -> object:
    """`only` is imported when it is asked for: it brings torch, which commands and environments do without."""
    if name != "only":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .agents.only import only

    return only
