"""What every environment says of itself: the keys that a recipe may set, and what else the package must know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel


class Environment(BaseModel, extra="forbid", frozen=True):
    """One environment; its fields are its keys in a recipe."""

    id: str
    SOURCE: ClassVar[str]
    """The module below `envs` whose `load(config, split)` gives the items of a split. Cached: equal configurations give the same object."""
    SPLITS: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    DOMAIN: ClassVar[str] = "other"
    """Under which results stand on the leaderboard."""
    HISTORY: ClassVar[int | Literal["full"]] = "full"
    """How many steps a prompt repeats (`agent.history`): 0 where observations repeat what is needed."""
    IN_PROCESS: ClassVar[bool] = False
    """Whether it is stepped in this process: its steps are quick, and no action can break it."""

    @classmethod
    def trained_on(cls, env: Mapping[str, object]) -> str:
        """The suite in the mapping of a recipe, as its splits name it."""
        return str(env.get("id") or "unknown")


class SuiteListing(NamedTuple):
    """A line of `onelayer env list`."""

    names: str
    what: str
    splits: str
    needs: str = ""
    """Where its data is looked for; empty: it is generated, or the user's own."""
    are_own: bool = False
    """Whether they are files and data sets of the user's own."""


class BuiltIn(Environment, extra="forbid", frozen=True):
    """One that ships with the package; its fields without `id` are the keywords of its constructor."""

    suite: str
    size: int | None = None
    CLASS: ClassVar[str]
    """The module below `envs`, and the class in it."""
    TITLE: ClassVar[str]
    """What is played, in a few words."""
    SUITES: ClassVar[tuple[SuiteListing, ...]]
    GENERATED: ClassVar[str]
    """The suite that is made here, of any size."""

    @classmethod
    def named(cls, name: str, env: Environment) -> Mapping[str, object] | None:
        """The keys that `--suite NAME` stands for, where it means this environment; None where it does not. env: of the recipe."""
        return None

    @classmethod
    def trained_on(cls, env: Mapping[str, object]) -> str:
        return str(env.get("suite"))

    @classmethod
    def suites(cls) -> list[str]:
        """Names of the suites whose data comes with this package or has a fixed source."""
        return [name for one in cls.SUITES if not one.are_own for name in one.names.split(", ")]

    @classmethod
    def listing(cls, suite: str) -> SuiteListing | None:
        """The line that lists a suite; None where no line has its name."""
        return next((one for one in cls.SUITES if suite in one.names.split(", ")), None)

    @property
    def has_fixed_source(self) -> bool:
        """Whether its data comes with this package or has a fixed source: no file or data set of others."""
        return self.suite in self.suites()

    @property
    def turns(self) -> int:
        """The most steps of an episode."""
        raise NotImplementedError
