"""Makes the engine that `agent.engine` names: one of the table `ENGINES`, or a user's own."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ..common.documentation import page
from ..common.errors import UserError
from ..envs.other import imported
from .config import ENGINES, AgentConfig, engine_row
from .engine import Engine
from .policy import Base

CONTRACT = ("returns_tokens", "context", "generate", "end_session", "load")
"""What every engine has; `Engine` says what each is."""


def make_engine(base: Base, config: AgentConfig) -> Engine:
    """The engine on the base's model as it is now. Raises UserError where there is no such engine, or it cannot run the model."""
    if (row := engine_row(config.engine)) is None:
        return _own(base, config)
    if base.quantized and row != "transformers":
        raise UserError(f"agent.engine={config.engine} loads a model of its own, not the one that model.quantization packs; leave one out")
    module, _, function = ENGINES[row].partition(":")
    return getattr(import_module(f".{module}", __package__), function)(base, config)


def _own(base: Base, config: AgentConfig) -> Engine:
    """A user's own engine: `Class(base, config)`."""
    module, _, name = config.engine.partition(":")
    make = getattr(imported(module), name, None)
    if not callable(make):
        raise UserError(f"agent.engine: {module} has no class {name}; give package.module:Class")
    try:
        engine = cast("Engine", make(base, config))
    except UserError:
        raise
    except Exception as error:  # the user's own code
        raise UserError(f"agent.engine: {config.engine} cannot be made ({type(error).__name__}: {error}); correct it") from error
    if missing := [one for one in CONTRACT if not hasattr(engine, one)]:
        raise UserError(f"agent.engine: {config.engine} has no {', '.join(missing)}; {page('adding-an-engine')} says what an engine has")
    return engine
