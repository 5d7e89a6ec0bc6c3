"""textworld and its planner as they are: walkthroughs, and the engine that the fast one is compared with and falls back to.

Both keep state in module globals, so one thread at a time may use them.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ...common.errors import UserError

VERSIONS = {"alfworld": "0.4.2", "textworld": "1.7.0", "fast_downward_textworld": "20.6.4"}
_lock = threading.RLock()
_idle: list[Any] = []  # textworld's environments that no game plays in: each loads its own copy of a library and never lets go of it


@functools.cache
def check_versions() -> None:
    """Raises UserError where a package is missing, or is not of the version that the games were checked with."""
    for package, wanted in VERSIONS.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted:
            raise UserError(
                f"ALFWorld needs {package} {wanted}, and it is {found}: run `make alfworld`, "
                "or pip install --no-deps -r requirements/slim-alfworld.txt"
            )


@contextmanager
def alone() -> Iterator[None]:
    """Inside, textworld and its planner can be imported and used, by one thread; what they change of the process is put back."""
    check_versions()
    with _lock:
        argv, stdout, data = sys.argv, sys.stdout, os.environ.get("ALFWORLD_DATA")
        try:
            yield
        finally:
            sys.argv, sys.stdout = argv, stdout
            if data is None:
                os.environ.pop("ALFWORLD_DATA", None)


def plan(domain: str, problem: str) -> list[tuple[str, ...]]:
    """The cheapest sequence of actions that reaches the goal, each as its name and arguments, in lower case; empty if there is none."""
    with alone():
        planner = importlib.import_module("fast_downward")
        _, translated = planner.pddl2sas(domain, problem, optimize=True)
        library = _library()
        if not library.solve_sas(translated.encode(), False):
            return []
        found = (planner.Operator * library.get_last_plan_length())()
        library.get_last_plan(found)
        return [tuple(operator.name.split()) for operator in found]


@functools.cache
def _library() -> Any:
    return importlib.import_module("fast_downward").load_lib()


class StockPlay:
    """A game played by textworld: what `game.Play` offers, slowly."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        with alone():
            self._environment = _idle.pop() if _idle else _environment()
            weakref.finalize(self, _idle.append, self._environment)
            self._environment.load(data)
            self._tell(self._environment.reset())

    def step(self, command: str) -> None:
        with alone():
            self._tell(self._environment.step(command)[0])

    def _tell(self, state: Any) -> None:
        self.feedback: str = state.feedback
        self.admissible: list[str] = state["admissible_commands"]
        self.won: bool = bool(state["won"])
        self.score = int(state.get("score") or 0)
        self.facts = {(fact.name, tuple(argument.name for argument in fact.arguments)) for fact in state["_facts"]}


def _environment() -> Any:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    return AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)
