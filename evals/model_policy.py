"""A model with patches, as an evaluation records it."""

from __future__ import annotations

from collections.abc import Sequence

from ..agents.decoder import decoder_layers
from ..agents.flops import multiplied
from ..agents.patch import Patch
from ..agents.policy import Base
from ..agents.trained_sets import select
from .records import PolicyInfo
from .trained import Trained, TrainedElsewhere


def model_policy(base: Base, model: str, patches: Sequence[Patch], trained: Sequence[Trained | None]) -> PolicyInfo:
    """A base with patches applied. model: as the recipe names it; trained: for each patch what is known of its training."""
    return PolicyInfo(
        name=" + ".join(_policy_name(*of) for of in zip(patches, trained, strict=True)) or "base",
        model=model,
        base=base.fingerprint,
        patches=[patch.sha256 for patch in patches],
        trained=list(trained),
        elsewhere=[_elsewhere(base, patch) for patch in patches] if any(patch.origin for patch in patches) else [],
        parameters=multiplied(base.model),
        layers=len(decoder_layers(base.model)),
    )


def _elsewhere(base: Base, patch: Patch) -> TrainedElsewhere | None:
    """What is known of a patch that was made of a model trained elsewhere; None for any other."""
    if patch.origin is None:
        return None
    trained = select(base.model, patch.trained_set)
    return TrainedElsewhere(
        model=patch.origin.model,
        note=patch.origin.note,
        trained_set=patch.trained_set,
        parameters=trained.count,
        total_parameters=trained.total,
    )


def _policy_name(patch: Patch, trained: Trained | None) -> str:
    if patch.origin:
        return f"{patch.trained_set} of {patch.origin.model}, trained elsewhere"
    return f"{patch.trained_set} at step {trained.step}" if trained and trained.step else patch.trained_set
