"""textworld and alfworld as they are: the planner, and the engine that the fast one is compared with and falls back to.

Both keep state in module globals, so one thread at a time may use them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..errors import UserError

VERSIONS = {"alfworld": "0.4.2", "textworld": "1.7.0", "fast_downward_textworld": "20.6.4"}


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
def imported() -> Iterator[None]:
    """Inside, textworld and its planner can be imported and used; they overwrite sys.argv and sys.stdout."""
    check_versions()
    argv, stdout = sys.argv, sys.stdout
    try:
        yield
    finally:
        sys.argv, sys.stdout = argv, stdout
