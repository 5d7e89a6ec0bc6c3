"""Environments from outside: a user's own, and the tasks of reasoning-gym."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import gymnasium as gym

from ..common.documentation import page
from ..common.errors import UserError
from .config import OtherConfig
from .items import Item, Split
from .pool_worker import describe

HELP = f"{page('adding-an-environment')} shows how"
gym.register("onelayer/ReasoningGym-v0", entry_point="onelayer.envs.reasoning:ReasoningGymEnv")


def make(config: OtherConfig, split: str) -> gym.Env[str, str]:
    """The environment of `config.id`. Raises UserError where it cannot be imported, found or made."""
    module, _, name = config.id.partition(":")
    options: dict[str, Any] = {"split": split, **config.options}
    if module == "reasoning_gym":
        name, options["task"] = "onelayer/ReasoningGym-v0", name
    else:
        imported(module)
    try:
        return gym.make(name, disable_env_checker=True, **options)
    except gym.error.Error as error:
        raise UserError(f"{config.id}: Gymnasium does not make it ({error}); is it registered when {module} is imported?") from error
    except SystemExit as error:
        raise UserError(f"{config.id}: it ends the process when it is made ({describe(error)}); let it raise an error instead") from error
    except TypeError as error:
        raise UserError(f"{config.id}: its constructor refuses {', '.join(options)} ({error}); {HELP}") from error


def load(config: OtherConfig, split: str) -> Split:
    """The items that the environment enumerates. Raises UserError as `make` does, and where it does not enumerate them."""
    return _load(config.model_dump_json(), split)


@functools.lru_cache(maxsize=32)
def _load(config_json: str, split: str) -> Split:
    config = OtherConfig.model_validate_json(config_json)
    env = make(config, split)
    try:
        return Split(f"{config.id}/{split}", items_of(env, config.id))
    finally:
        env.close()


def items_of(env: gym.Env[Any, Any], name: str) -> tuple[Item, ...]:
    """The items of any environment, from its `items`: a mapping of ids to contents, or just the ids.

    Raises UserError where it has none, where an id is not text or comes twice, and where a content is not JSON.
    """
    try:
        listed = env.get_wrapper_attr("items")
    except AttributeError as error:
        raise UserError(f"{name}: it has no attribute `items` (a list of ids, or a mapping of ids to contents); {HELP}") from error
    contents = dict(listed) if isinstance(listed, Mapping) else {item: item for item in listed}
    if not contents or len(contents) != len(listed):
        raise UserError(f"{name}: its `items` are {'empty' if not contents else 'not all different'}; {HELP}")
    return tuple(_item(id, content, name) for id, content in contents.items())


def _item(id: Any, content: Any, name: str) -> Item:
    if isinstance(content, Item):
        return content
    if not isinstance(id, str):
        raise UserError(f"{name}: the id {id!r} in its `items` is not text; {HELP}")
    try:
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: the content of item {id!r} is not JSON ({error}); {HELP}") from error
    kind = content.get("type") if isinstance(content, Mapping) else None
    return Item(id, text, "", {"type": kind} if isinstance(kind, str) else {})


def imported(module: str) -> ModuleType:
    """A user's module, installed or in the current folder. Raises UserError where it cannot be imported."""
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # not before: a project's folder would hide the package that is installed from it
            return imported(module)
        where = "is its package installed, or are you in its folder?" if error.name and module.startswith(error.name) else "install it"
        raise UserError(f"{module}: cannot be imported ({error}); {where}") from error
    except (Exception, SystemExit) as error:  # the user's own code
        raise UserError(f"{module}: cannot be imported ({type(error).__name__}: {error}); correct it") from error
    if getattr(found, "__file__", None) is None:
        raise UserError(f"{module}: only a folder of that name is found; is its package installed, or are you in its folder?")
    return found
