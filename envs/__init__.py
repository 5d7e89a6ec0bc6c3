"""Gymnasium environments: items, graders, data. Knows nothing of models or torch."""

from __future__ import annotations

import gymnasium as gym

from .config import EnvConfig, FieldMapping, MathConfig
from .errors import UserError
from .items import Item, Split
from .math.sources import check_disjoint, load

__all__ = ["EnvConfig", "FieldMapping", "Item", "MathConfig", "Split", "UserError", "check_disjoint", "load", "make", "parse_suite"]

gym.register("onelayer/Math-v0", entry_point="onelayer.envs.math.env:MathEnv")


def make(config: EnvConfig, split: str) -> gym.Env[str, str]:
    """The environment that `config` describes, playing the items of `split`. Raises UserError for data that can not be used."""
    settings = {name: getattr(config, name) for name in type(config).model_fields if name != "id"}
    return gym.make(config.id, disable_env_checker=True, split=split, **settings)


def parse_suite(text: str) -> tuple[MathConfig, str]:
    """`NAME` or `NAME/SPLIT` as (configuration, split); without a split it is test. Names are those of MathConfig.suite."""
    name, _, split = text.rpartition("/")
    if name and split in ("train", "validation", "test", "all"):
        return MathConfig(suite=name), split
    return MathConfig(suite=text), "test"
