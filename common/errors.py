"""The error that a user can correct, and the stop that a user asked for."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(ValueError):
    """Bad input from outside: the message names the cause, the place and the remedy in one line; the command line exits with 2."""


class NotAtHand(UserError):
    """Data that is not on this machine: what only looks at a recipe can go on without it."""


class Interrupted(Exception):
    """Work was asked to stop, and what is done is kept; the command line exits with 128 plus the signal."""

    def __init__(self, number: int, kept: str, command: Sequence[object]):
        """kept: what is there, and where. command: what goes on from there."""
        super().__init__(f"stopped by {signal.Signals(number).name}: {kept}; continue with: {shlex.join(map(str, command))}")
        self.signal, self.exit_code = number, 128 + number


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong in a file, as `key: message`."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(map(str, problem["loc"]))[:200]  # which is the file's, and may be of any length
    return f"{key}: {problem['msg']}" if key else problem["msg"]
