"""A user's own algorithm: a function of a module that Python finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue

from ...common.errors import UserError
from .algorithm import DIVISORS, LOSS_WEIGHTS, Algorithm, Batch
from .steps import FloatArray, Steps


class Own(Algorithm):
    """`package.module:function`: a function that takes `Steps` and returns the advantage of each, an array [N]."""

    name: str = Field(description="package.module:function, of a package that is installed or in the current folder")
    options: dict[str, JsonValue] = Field(default={}, description="further keywords of the function")
    loss_weights: Literal["sequence_mean", "token_mean", "constant"] = Field(default="sequence_mean", description=LOSS_WEIGHTS)

    def check(self) -> None:
        self.function()

    def advantages(self, steps: Steps) -> FloatArray:
        """Raises UserError as `function` does, where it raises, and where what comes back is not one finite number for each step."""
        try:
            advantage_N = np.asarray(self.function()(steps, **self.options), dtype=np.float64)
        except UserError:
            raise
        except Exception as error:  # the user's own code
            raise UserError(f"trainer.algorithm {self.name}: raised {type(error).__name__}: {error}; correct the function") from error
        if advantage_N.shape != (len(steps.episode_N),) or not np.isfinite(advantage_N).all():
            raise UserError(
                f"trainer.algorithm {self.name}: must return one finite number for each of {len(steps.episode_N)} steps, returned an array "
                f"of shape {advantage_N.shape}, {np.isfinite(advantage_N).sum()} of its numbers finite"
            )
        return advantage_N

    def divisor(self, batch: Batch, tokens: int) -> int:
        return DIVISORS[self.loss_weights](batch, tokens)

    def function(self) -> Callable[..., Any]:
        """Raises UserError where the module cannot be imported or has no such function."""
        from ...envs.other import imported

        module, _, name = self.name.partition(":")
        found = getattr(imported(module), name, None)
        if not callable(found):
            raise UserError(f"trainer.algorithm {self.name}: {module} has no function {name}")
        return found
