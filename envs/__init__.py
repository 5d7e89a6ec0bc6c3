"""Gymnasium environments: items, graders, data. Knows nothing of models or torch.

The contract that every environment keeps, the built-in ones too, is in docs/adding-an-environment.md.
"""

from __future__ import annotations

import gymnasium as gym

from ..common.errors import UserError
from . import other
from .config import ALFWorldConfig, CodeConfig, EnvConfig, FieldMapping, MathConfig, OtherConfig
from .items import Item, Split
from .math.sources import check_disjoint

__all__ = [
    "EnvConfig",
    "FieldMapping",
    "Item",
    "MathConfig",
    "Split",
    "UserError",
    "check_disjoint",
    "is_built_in",
    "load",
    "make",
    "parse_suite",
]

gym.register("onelayer/Math-v0", entry_point="onelayer.envs.math.env:MathEnv")
gym.register("onelayer/Code-v0", entry_point="onelayer.envs.code.env:CodeEnv")
gym.register("onelayer/ALFWorld-v0", entry_point="onelayer.envs.alfworld.env:ALFWorldEnv")

SPLITS = ("train", "validation", "test", "all", "valid_seen", "valid_unseen")
CODE_SUITES = ("functions", "humaneval+", "mbpp+")
ALFWORLD_SUITES = {"alfworld": "generated", "alfworld-official": "official"}


def make(config: EnvConfig, split: str) -> gym.Env[str, str]:
    """The environment that `config` describes, playing the items of `split`. Raises UserError for data that cannot be used."""
    if isinstance(config, OtherConfig):
        return other.make(config, split)
    settings = {name: getattr(config, name) for name in type(config).model_fields if name != "id"}
    return gym.make(config.id, disable_env_checker=True, split=split, **settings)


def load(config: EnvConfig, split: str) -> Split:
    """The items of one split. Cached: the same configuration gives the same object. Raises UserError as `make` does."""
    if isinstance(config, MathConfig):
        from .math import sources as math

        return math.load(config, split)
    if isinstance(config, CodeConfig):
        from .code import sources as code

        return code.load(config, split)
    if isinstance(config, ALFWorldConfig):
        from .alfworld import sources as alfworld

        return alfworld.load(config, split)
    return other.load(config, split)


def is_built_in(config: EnvConfig) -> bool:
    """Whether all that a configuration names comes with this package or has a fixed source: no module, file or data set of others."""
    if isinstance(config, MathConfig):
        from .math.sources import SUITES

        return config.suite in ("arithmetic", *SUITES)
    return config.suite in CODE_SUITES if isinstance(config, CodeConfig) else isinstance(config, ALFWorldConfig)


def parse_suite(text: str, env: EnvConfig | None = None) -> tuple[EnvConfig, str]:
    """`NAME` or `NAME/SPLIT` as (configuration, split); without a split it is test.

    NAME is a suite of a built-in environment, a .jsonl file, hub:OWNER/NAME, `alfworld`, `alfworld-official`, or the id of any
    other environment. What else `env` sets is kept where NAME is of the same environment. A .jsonl file is one of code where `env` is, or
    where its columns are; hub:OWNER/NAME where it is known as one; and either of them as code:NAME.
    """
    env = env or MathConfig()
    name, _, split = text.rpartition("/")
    if not (name and split in SPLITS):
        name, split = text, "test"
    if name in ALFWORLD_SUITES:
        kind, change = ALFWorldConfig, {"suite": ALFWORLD_SUITES[name]}
    elif name.startswith("code:") and (name.startswith("code:hub:") or name.endswith(".jsonl")):
        kind, change = CodeConfig, {"suite": name.removeprefix("code:")}
    elif name in CODE_SUITES or _is_code(name, env):
        kind, change = CodeConfig, {"suite": name}
    elif ":" in name and not name.startswith("hub:") and not name.endswith(".jsonl"):
        kind, change = OtherConfig, {"id": name}
    else:
        kind, change = MathConfig, {"suite": name}
    same = isinstance(env, kind) and (kind is not OtherConfig or env.id == name)
    return (env.model_copy(update=change) if same else kind(**change)), split  # type: ignore[arg-type]


def _is_code(name: str, env: EnvConfig) -> bool:
    from .code.columns import is_code

    file = name.endswith(".jsonl")
    return (file and isinstance(env, CodeConfig)) or ((file or name.startswith("hub:")) and is_code(name))
