"""Configuration of `onelayer/ALFWorld-v0`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from ..environment import BuiltIn, Environment, SuiteListing

NAMED = {"alfworld": "generated", "alfworld-official": "official"}
"""The suites by their names on the command line."""


class ALFWorldConfig(BuiltIn, extra="forbid", frozen=True):
    """`onelayer/ALFWorld-v0`: household tasks as text games."""

    CLASS: ClassVar = "alfworld.env:ALFWorldEnv"
    SOURCE: ClassVar = "alfworld.sources"
    TITLE: ClassVar = "household tasks as text games (make alfworld)"
    SUITES: ClassVar = (
        SuiteListing("alfworld", "generated games", "train, validation, valid_seen, valid_unseen"),
        SuiteListing("alfworld-official", "the published games", "train, validation, valid_seen, valid_unseen", "ALFWORLD_DATA"),
    )
    SPLITS: ClassVar = ("train", "validation", "valid_seen", "valid_unseen")
    GENERATED: ClassVar = "generated"
    DOMAIN: ClassVar = "alfworld"
    HISTORY: ClassVar = 2

    id: Literal["onelayer/ALFWorld-v0"] = Field(default="onelayer/ALFWorld-v0", description="the Gymnasium id")
    suite: Literal["generated", "official"] = Field(
        default="generated", description="games that this package generates, or the official ones under ALFWORLD_DATA"
    )
    size: int | None = Field(default=None, ge=1, description="take the first N games (null: all; generated: 512 to train, 128 else)")
    scene: Literal["full", "small"] = Field(
        default="full", description="generated: all receptacles of a floor plan, or few, for prompts half as long"
    )
    seed: int = Field(default=0, ge=0, description="generated: seed of the generator")
    max_steps: int = Field(default=50, ge=1, description="commands an episode may take")
    strict: bool = Field(
        default=False,
        description="take a command letter by letter, as alfworld does; else one that is spelled otherwise, as in `Go to shelf 1`, is "
        "taken for the possible command that it comes to, where there is exactly one",
    )

    @classmethod
    def named(cls, name: str, env: Environment) -> Mapping[str, object] | None:
        return {"suite": NAMED[name]} if name in NAMED else None

    @classmethod
    def trained_on(cls, env: Mapping[str, object]) -> str:
        return "ALFWorld" if env.get("suite") == "generated" else f"ALFWorld {env.get('suite')}"

    @property
    def has_fixed_source(self) -> bool:
        return True

    @property
    def turns(self) -> int:
        return self.max_steps
