"""The algorithms: how the rewards of a rollout become an advantage for each of its steps, and what a token then weighs in the loss.

A module each, with the equation, the paper, the code that it was compared with, and the keys that are its own. `trainer.algorithm=gigpo`
is short for `trainer.algorithm={name: gigpo}`; a further algorithm is a module and a row of `ALGORITHMS`. docs/algorithms.md sets them
beside other libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import BeforeValidator, Discriminator, Tag

from .algorithm import Algorithm
from .dr_grpo import DrGRPO
from .gigpo import GiGPO
from .grpo import GRPO
from .own import Own
from .reinforce_pp import ReinforcePP
from .rloo import RLOO

ALGORITHMS: dict[str, type[Algorithm]] = {
    "grpo": GRPO,
    "dr_grpo": DrGRPO,
    "gigpo": GiGPO,
    "rloo": RLOO,
    "reinforce_pp": ReinforcePP,
}


def model_of(algorithm: object) -> type[Algorithm]:
    """The class that describes an algorithm, by its name or the `name` in its mapping; without one it is GRPO."""
    name = algorithm.get("name", "grpo") if isinstance(algorithm, dict) else getattr(algorithm, "name", algorithm)
    return ALGORITHMS.get(name, Own) if isinstance(name, str) else Own


def _named(algorithm: object) -> object:
    """A name stands for the mapping that holds it alone."""
    if isinstance(algorithm, str):
        algorithm = {"name": algorithm}
    if not isinstance(algorithm, dict | Algorithm):
        raise ValueError("write a name, as gigpo, or a mapping of keys with a name")
    name = algorithm.get("name", "grpo") if isinstance(algorithm, dict) else algorithm.name
    if isinstance(name, str) and name not in ALGORITHMS and not all(name.partition(":")):
        raise ValueError(f"no algorithm {name!r}; there are {', '.join(ALGORITHMS)} and package.module:function")
    return algorithm


if TYPE_CHECKING:
    AlgorithmConfig = Algorithm
else:
    _kinds = [*ALGORITHMS.values(), Own]
    AlgorithmConfig = Annotated[
        Union[tuple(Annotated[kind, Tag(kind.__name__)] for kind in _kinds)],  # noqa: UP007 (made from the table)
        Discriminator(lambda algorithm: model_of(algorithm).__name__),
        BeforeValidator(_named),
    ]
    """What `trainer.algorithm` in a recipe may be; its `name` says which."""
