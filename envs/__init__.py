"""Gymnasium environments: items, graders, data. Knows nothing of models or torch.

The contract that every environment keeps, the built-in ones too, is in docs/adding-an-environment.md.
"""

from __future__ import annotations

import re
from importlib import import_module

import gymnasium as gym

from ..common.errors import UserError
from . import other
from .config import BUILT_IN, EnvConfig, MathConfig, OtherConfig
from .items import Item, Split, check_disjoint
from .math.config import FieldMapping

__all__ = [
    "EnvConfig",
    "FieldMapping",
    "Item",
    "MathConfig",
    "Split",
    "UserError",
    "check_disjoint",
    "load",
    "make",
    "most_turns",
    "parse_suite",
]

for _id, _kind in BUILT_IN.items():
    gym.register(_id, entry_point=f"onelayer.envs.{_kind.CLASS}")

SPLITS = {"all", *OtherConfig.SPLITS, *(split for kind in BUILT_IN.values() for split in kind.SPLITS)}


def make(config: EnvConfig, split: str) -> gym.Env[str, str]:
    """The environment that `config` describes, playing the items of `split`. Raises UserError for data that cannot be used."""
    if isinstance(config, OtherConfig):
        return other.make(config, split)
    settings = {name: getattr(config, name) for name in type(config).model_fields if name != "id"}
    return gym.make(config.id, disable_env_checker=True, split=split, **settings)


def load(config: EnvConfig, split: str) -> Split:
    """The items of one split. Cached: the same configuration gives the same object. Raises UserError as `make` does."""
    return import_module(f".{config.SOURCE}", __package__).load(config, split)


def most_turns(config: EnvConfig) -> int:
    """Replies of an episode, at most. Of an environment of others it is the number of steps that it was registered with, else 1."""
    if not isinstance(config, OtherConfig):
        return config.turns
    env = other.make(config, "train")
    try:
        return (env.spec and env.spec.max_episode_steps) or 1
    finally:
        env.close()


def parse_suite(text: str, env: EnvConfig | None = None) -> tuple[EnvConfig, str]:
    """`NAME` or `NAME/SPLIT` as (configuration, split); without a split it is test.

    NAME is what a built-in environment takes for its own (`Environment.named`), the id of any other environment, or a suite, a .jsonl file
    or hub:OWNER/NAME of math. What else `env` sets is kept where NAME is of the same environment. Raises UserError for a split that
    no suite has.
    """
    env = env or MathConfig()
    name, _, split = text.rpartition("/")
    if not (name and split in SPLITS):
        name, split = text, "test"
    claims = ((kind, change) for kind in BUILT_IN.values() if (change := kind.named(name, env)) is not None)
    if (claim := next(claims, None)) is not None:
        kind, change = claim
    elif ":" in name and not name.startswith("hub:") and not name.endswith(".jsonl"):
        kind, change = OtherConfig, {"id": name}
    elif re.fullmatch(r"[\w+-]+/[a-z_]+", name):
        suite, _, last = name.partition("/")
        listed = (kind.listing(suite) for kind in BUILT_IN.values())
        there = next((one.splits for one in listed if one), ", ".join(OtherConfig.SPLITS))
        raise UserError(f"{name}: {suite} has no split {last!r}; it has {there}")
    else:
        kind, change = MathConfig, {"suite": name}
    same = isinstance(env, kind) and (kind is not OtherConfig or env.id == name)
    return (env.model_copy(update=change) if same else kind(**change)), split  # type: ignore[arg-type]
