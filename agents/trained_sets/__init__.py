"""Trained sets: what a run may change. A kind of set is one module here and one row of `KINDS`.

A kind makes a `TrainedSet` of the text that names it. From that follows all that others ask: what the optimiser moves, where the backward
pass may stop, what is proven untouched, and what a patch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from ...common.errors import UserError
from . import blocks, entries, low_rank
from .trained_set import TrainedSet

__all__ = ["GRAMMAR", "KINDS", "Kind", "TrainedSet", "select", "select_all"]


@dataclass(frozen=True)
class Kind:
    """A kind of trained set."""

    grammar: str
    """How its sets are written."""
    select: Callable[[PreTrainedModel, str], TrainedSet | None]
    """The set of a model that a text names; None where the text is of another kind."""


KINDS = (
    Kind(blocks.GRAMMAR, blocks.select),
    Kind(entries.GRAMMAR, entries.select),
    Kind(low_rank.GRAMMAR, low_rank.select),
)
GRAMMAR = ", ".join(kind.grammar for kind in KINDS)


def select(model: PreTrainedModel, spec: str) -> TrainedSet:
    """The trained set that `spec` names (see `GRAMMAR`). Raises UserError for an unknown set or a layer that is not there."""
    for kind in KINDS:
        if (found := kind.select(model, spec)) is not None:
            return found
    if blocks.several(model, spec):
        raise UserError(f"trained_set {spec!r} is several sets, and a run trains one; study.trained_sets takes it")
    raise UserError(f"trained_set {spec[:100]!r} is not one of: {GRAMMAR}")


def select_all(model: PreTrainedModel, specs: Sequence[str]) -> list[TrainedSet]:
    """The sets that a study names, in order and each once; `blocks.SEVERAL` stand for several. Raises UserError as `select` does."""
    names = dict.fromkeys(name for spec in specs for name in blocks.several(model, spec) or [spec])
    return [select(model, name) for name in names]
