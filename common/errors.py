"""The error that a user can correct."""

from __future__ import annotations

from pydantic import ValidationError


class UserError(ValueError):
    """Bad input from outside: the message names the cause, the place and the remedy in one line; the command line exits with 2."""


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong in a file, as `key: message`."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(map(str, problem["loc"]))[:200]  # which is the file's, and may be of any length
    return f"{key}: {problem['msg']}" if key else problem["msg"]
