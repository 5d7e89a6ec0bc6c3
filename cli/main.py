"""The command `onelayer`.

The verbs import the packages when they run, so that help comes at once and `doctor` works on a broken installation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from ..common import documentation
from ..common.text import printable
from ..trainers.launch import launched
from . import env, grade, runs
from .arguments import NOTE
from .compare import compare
from .doctor import doctor
from .estimate import estimate
from .eval import evaluate
from .export import export
from .imported import import_model
from .leaderboard import leaderboard
from .study import study
from .submit import submit
from .terminal import escaping
from .train import train
from .verify import verify
from .view import view

INTERRUPTED = 130
LONGEST = 2000  # characters of a message, which may quote a file

app = typer.Typer(
    help="Train single layers of a language model with reinforcement learning, train all parameters, and compare the results.",
    epilog="Start with `onelayer study quickstart`. `onelayer VERB --help` explains a verb, with examples. "
    f"Documentation: {documentation.FOLDER}",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"onelayer {version('onelayer')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version and exit")] = False,
) -> None:
    """Train single layers of a language model with reinforcement learning, train all parameters, and compare the results."""


app.command("study", epilog=NOTE)(study)
app.command("train", epilog=NOTE)(train)
app.command("estimate", epilog=NOTE)(estimate)
app.command("eval", epilog=NOTE)(evaluate)
app.command("compare")(compare)
app.command("leaderboard")(leaderboard)
app.command("submit")(submit)
app.command("verify")(verify)
app.command("view")(view)
app.command("export")(export)
app.command("import")(import_model)
app.add_typer(grade.app, name="grade", no_args_is_help=False)
app.add_typer(env.app, name="env", no_args_is_help=False)
app.add_typer(runs.app, name="runs", no_args_is_help=False)
app.command("doctor")(doctor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    A user's mistake is one line on stderr and 2, an interruption one line and 128 plus the signal; anything else is a
    defect and keeps its traceback.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if "" in words:
        _say("an argument is empty; leave it out, or give it a value")
        return 2
    if launched() > 1 and words[0] != "train":
        _say(f"torchrun starts `onelayer train` alone; start `onelayer {words[0]}` without it (study takes --parallel N)")
        return 2
    with escaping():
        return _run(words)


def _run(words: list[str]) -> int:
    try:
        code = app(words, prog_name="onelayer", standalone_mode=False, obj=words) or 0
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            _say("interrupted")
    except Exception as error:
        problem = _one_line(error)
        if problem is None:
            raise
        message, code = problem
        _say(message)
    return code


def _one_line(error: Exception) -> tuple[str, int] | None:
    """What to tell the user and the exit code; None for a defect."""
    from ..common.errors import UserError

    if isinstance(error, UserError):
        return str(error), 2
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        return f"{error.format_message().rstrip('.')} (see {context.command_path if context else 'onelayer'} --help)", 2
    if isinstance(code := getattr(error, "exit_code", None), int):  # trainers.run.Interrupted, not imported because torch comes with it
        return str(error), code
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}", 2
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("onelayer"):
        return f"the package {error.name} is missing; `onelayer doctor` names the command that brings it", 2
    return None


def _say(message: str) -> None:
    line = printable(" ".join(message.split()))
    print("onelayer:", line if len(line) <= LONGEST else f"{line[:LONGEST]}...", file=sys.stderr)
