"""Configuration of the environments: which problems, from where, how hard; and of the processes that step them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Union

from pydantic import BaseModel, Discriminator, Field, JsonValue, Tag, field_validator

from .alfworld.config import ALFWorldConfig
from .code.config import CodeConfig
from .environment import BuiltIn, Environment
from .math.config import MathConfig

BUILT_IN: dict[str, type[BuiltIn]] = {
    "onelayer/Math-v0": MathConfig,
    "onelayer/Code-v0": CodeConfig,
    "onelayer/ALFWorld-v0": ALFWorldConfig,
}
"""The built-in environments by their Gymnasium ids: a package each beside this module."""


class OtherConfig(Environment, extra="forbid", frozen=True):
    """Any other environment: one of your own, or a task of reasoning-gym."""

    SOURCE: ClassVar = "other"
    id: str = Field(description="package.module:namespace/Name-v0 (the module that registers it, and its id), or reasoning_gym:TASK")
    options: dict[str, JsonValue] = Field(default={}, description="further keywords of its constructor, besides split")

    @field_validator("id")
    @classmethod
    def _names_a_module(cls, id: str) -> str:
        module, colon, name = id.partition(":")
        if not (module and colon and name):
            raise ValueError(
                f"no environment {id!r}; there are {', '.join(BUILT_IN)}, package.module:namespace/Name-v0 and reasoning_gym:TASK"
            )
        return id


def model_of(env: object) -> type[Environment]:
    """The class that describes an environment, by the `id` in its mapping; without one it is MathConfig."""
    name = env.get("id", "onelayer/Math-v0") if isinstance(env, dict) else getattr(env, "id", None)
    return BUILT_IN.get(name, OtherConfig) if isinstance(name, str) else OtherConfig


if TYPE_CHECKING:
    EnvConfig = BuiltIn | OtherConfig
else:
    _kinds = [*BUILT_IN.values(), OtherConfig]
    EnvConfig = Annotated[
        Union[tuple(Annotated[kind, Tag(kind.__name__)] for kind in _kinds)],  # noqa: UP007 (made from the table)
        Discriminator(lambda env: model_of(env).__name__),
    ]
    """What `env` in a recipe may be; its `id` says which."""


class PoolConfig(BaseModel, extra="forbid", frozen=True):
    """The processes that step environments, and when one counts as broken."""

    workers: int | None = Field(
        default=None, ge=0, le=1024, description="worker processes; 0 steps in this process; null: 0 for onelayer/Math-v0, else one a core"
    )
    step_seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False, description="a reset or step that takes longer has hung")
    memory_gib: float = Field(default=4.0, gt=0, allow_inf_nan=False, description="a worker that takes more memory has a leak")
