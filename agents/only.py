"""One trained set of a model for whatever trainer comes next: all else is frozen, and proven unmoved when the training is over.

layer = only(model, "layer:13")
GRPOTrainer(model, ..., callbacks=[layer.callback()]).train()
layer.check()
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, TrainerCallback

from ..common.errors import UserError
from .policy import weight_hashes
from .trained_sets import TrainedSet, select
from .trained_sets.low_rank import LowRankSet

SHOWN_NAMES = 8


class Only:
    """A model of which one set is to be trained."""

    def __init__(self, model: PreTrainedModel, trained: TrainedSet):
        self.model, self.trained = model, trained
        before = weight_hashes(model)
        self.frozen = {name: found for name, found in before.items() if name not in trained.parameters}
        """SHA-256 of every parameter and buffer that is not to move, by name."""
        self._before = {name: before[name] for name in trained.parameters}

    def check(self) -> list[str]:
        """The names of the set's parameters that have moved since. Raises UserError where anything else has."""
        try:
            now = weight_hashes(self.model, self.frozen)
        except KeyError as error:
            raise UserError(
                f"{error.args[0]} is gone from the model, so nothing is proven; give only() the model as it is trained"
            ) from error
        if moved := [name for name, found in self.frozen.items() if now[name] != found]:
            raise UserError(f"{self.trained.spec} was to be trained alone, and {_counted(moved, len(now))} moved, too: {_shown(moved)}")
        after = weight_hashes(self.model, self._before)
        return [name for name, found in self._before.items() if after[name] != found]

    def check_gradients(self) -> None:
        """Raises UserError where anything outside of the set is trainable again, as after a trainer that prepares the model itself."""
        trainable = [name for name, one in self.model.named_parameters() if one.requires_grad and name not in self.trained.parameters]
        if trainable:
            raise UserError(f"{self.trained.spec} is to be trained alone, and these are trainable, too: {_shown(trainable)}")

    def callback(self) -> TrainerCallback:
        """For Trainer of Transformers and the trainers of TRL: what is trainable is checked at the start, and what moved at the end."""
        return _Checks(self)


class _Checks(TrainerCallback):
    def __init__(self, only: Only):
        self.only = only

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.only.check_gradients()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.only.check()


def only(model: PreTrainedModel, trained_set: str) -> Only:
    """Freeze everything in a model but a trained set (docs/trained-sets.md), which is found by module identity.

    Raises UserError for a set that the model does not have, and for one that is not made of whole parameters.
    """
    trained = select(model, trained_set)
    if trained.places or isinstance(trained, LowRankSet):
        kind = (
            "adapters: give the trainer a peft configuration" if not trained.places else "single entries, which onelayer train alone trains"
        )
        raise UserError(f"only({trained_set!r}): this set is made of {kind}")
    model.requires_grad_(False)
    for parameter in trained.parameters.values():
        parameter.requires_grad_(True)
    return Only(model, trained)


def _counted(names: list[str], total: int) -> str:
    return f"{len(names)} of the {total} other weights"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")
