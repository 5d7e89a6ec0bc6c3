"""`onelayer env`: environments, built in and your own."""

from __future__ import annotations

import keyword
import sys
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..common.documentation import page
from ..common.text import counted, printable
from .arguments import AsJson, Overrides, print_json

if TYPE_CHECKING:
    import gymnasium as gym

    from ..envs.config import EnvConfig

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="List, check and play environments; write one of your own.")

ENV = typer.Argument(metavar="ENV", help="NAME or NAME/SPLIT: a suite, a .jsonl file, or an id (package.module:namespace/Name-v0)")
OTHERS = """\
others
  reasoning_gym:TASK      procedural tasks of reasoning-gym  train, validation, test                     pip install 'onelayer[reasoning]'
  package.module:me/Name-v0    your own environment: `onelayer env new NAME` writes one. How it works:
                          {page}"""
TEMPLATES = Path(__file__).parent / "templates"


@app.command("list")
def list_environments(as_json: AsJson = False) -> None:
    """List the environments that are built in, their suites, and what each needs.

    \b
    Example:
      onelayer env list
    """
    from ..envs.config import BUILT_IN

    if as_json:
        print_json([{"environment": id, "title": kind.TITLE, "suites": kind.SUITES} for id, kind in BUILT_IN.items()])
        return
    for id, kind in BUILT_IN.items():
        print(f"{id}: {kind.TITLE}")
        for one in kind.SUITES:
            print(f"  {one.names:23} {one.what:34} {one.splits:43} {one.needs}".rstrip())
        print()
    print(OTHERS.format(page=page("adding-an-environment")))


@app.command("check")
def check_environment(
    env: Annotated[str, ENV],
    overrides: Overrides = None,
    items: Annotated[int, typer.Option(min=1, metavar="N", help="items that each check plays")] = 20,
    as_json: AsJson = False,
) -> None:
    """Find out whether an environment keeps the contract that training and evaluation rely on.

    ENV without a split means its split test. The exit code is 1 where a check fails.

    \b
    Examples:
      onelayer env check arithmetic
      onelayer env check riddles:riddles/Riddles-v0/train --items 100
      onelayer env check functions env.max_turns=3
    """
    from rich.markup import escape

    from ..common.console import Console
    from ..envs import load
    from ..envs.check_process import check_apart
    from ..envs.config import BuiltIn

    config, split = _compose(env, overrides)
    if isinstance(config, BuiltIn) and not config.suite.endswith(".jsonl"):
        load(config, split)  # a suite that there is none of is a mistake in the command; a file may be what is checked
    marks = {True: "[green]ok    [/]", False: "[bold red]FAILED[/]", None: "[yellow]-     [/]"}
    console, findings = Console(soft_wrap=True, highlight=False, emoji=False, quiet=as_json), []
    for finding in check_apart(config, split, items):
        findings.append(finding)
        console.print(f"{marks[finding.ok]} {finding.name:12} {escape(printable(finding.message))}")
    failed = sum(finding.ok is False for finding in findings)
    if as_json:
        print_json({"environment": config.id, "failed": failed, "findings": findings})
    console.print(f"{counted(failed, 'check')} failed" if failed else escape(f"{config.id} keeps the contract"))
    if failed:
        raise typer.Exit(1)


@app.command("play")
def play_environment(
    env: Annotated[str, ENV],
    overrides: Overrides = None,
    item: Annotated[str | None, typer.Option(metavar="ID", help="the item to play  [default: one drawn at random]")] = None,
    gold: Annotated[bool, typer.Option("--gold", help="let the gold actions play, where the environment has them")] = False,
) -> None:
    """Play one item yourself, in the terminal.

    A line is an action. For an action of several lines, write <<< on a line of its own before it and >>> on one after it. Ctrl-D gives up.

    \b
    Examples:
      onelayer env play alfworld/train
      onelayer env play humaneval+ --item HumanEval/0
      onelayer env play alfworld --gold
    """
    from ..common.errors import UserError
    from ..envs import make
    from ..envs.pool_worker import describe

    config, split = _compose(env, overrides)
    try:
        _play(config, make(config, split), item, gold)
    except SystemExit as error:
        raise UserError(f"{config.id}: it ended its process ({describe(error)}); let it raise an error instead") from error


def _play(config: EnvConfig, game: gym.Env[str, str], item: str | None, gold: bool) -> None:
    from ..common.errors import UserError

    observation, info = game.reset(options={"item": item} if item else None)
    ready = list(game.get_wrapper_attr("gold")(info["item"])) if gold and game.has_wrapper_attr("gold") else []
    if gold and not ready:
        raise UserError(f"{config.id}: names no gold actions for {info.get('item', 'this item')}; play it yourself, without --gold")
    _show(f"[{info['item']}]" if "item" in info else "", observation, info)
    if not gold and len(form := _gold(game, _another(game, info))) == 1:
        print(f"An action that solves another item:\n{form[0]}")
    id, total, ended = info.get("item"), 0.0, False
    while not ended:
        try:
            action = ready.pop(0) if ready else _read()
        except EOFError:
            break
        if gold:
            print(f"> {action}")
        observation, reward, terminated, truncated, info = game.step(action)
        if isinstance(played := info.get("played"), str):
            print(f"played as: {played}")
        total, ended = total + float(reward), terminated or truncated
        _show(f"reward {reward:g}" if reward or ended else "", "" if terminated else observation, {} if ended else info)
    solved = info.get("verdict") == "correct" if "verdict" in info else total >= 1
    if not (ended and solved) and (right := _gold(game, id)):
        print("gold:", *right, sep="\n")
    print(f"{'solved' if ended and solved else 'not solved'}, reward {total:g}" + (f", {info['verdict']}" if "verdict" in info else ""))


def _gold(game: gym.Env[str, str], item: str | None) -> list[str]:
    """The gold actions of an item as text for the terminal; none where the environment names none."""
    actions = list(game.get_wrapper_attr("gold")(item)) if item and game.has_wrapper_attr("gold") else []
    return ["\n".join(map(printable, action.split("\n"))) for action in actions]


def _another(game: gym.Env[str, str], info: dict) -> str | None:
    """An item of the split that is not played; None where none is known."""
    ids = game.get_wrapper_attr("items") if game.has_wrapper_attr("items") else ()
    return next((id for id in ids if isinstance(id, str) and id != info.get("item")), None)


@app.command("new")
def new_environment(
    name: Annotated[str, typer.Argument(metavar="NAME", help="name of the package and its folder, for example riddles")],
    turns: Annotated[
        bool, typer.Option("--turns", help="a class with reset and step, for several turns; else a function that grades")
    ] = False,
) -> None:
    """Write an environment of your own: a small package with a test, to be filled in.

    \b
    Examples:
      onelayer env new riddles
      onelayer env new maze --turns
    """
    from ..common.errors import UserError
    from ..common.files import check_new, write_atomically

    if not name.isidentifier() or not name.islower():
        raise UserError(f"{name!r} cannot name a package; take lower-case letters, digits and _")
    directory = Path(name)
    check_new(directory)
    if taken := _taken(name):
        raise UserError(f"{name!r} is {taken}; take another name")
    id = f"{name}:{name}/{''.join(word.capitalize() for word in name.split('_'))}-v0"
    for source, target in (
        ("turns.py" if turns else "graded.py", f"{name}.py"),
        ("test.py", f"test_{name}.py"),
        ("pyproject.toml", "pyproject.toml"),
    ):
        text = (TEMPLATES / f"{source}.txt").read_text(encoding="utf-8")
        write_atomically(directory / target, text.replace("NAME", name).replace("ENV_ID", id).replace("SHORT_ID", id.partition(":")[2]))
    print(f"{directory}/{name}.py is the environment. Fill it in, then:")
    print(f"  pip install --editable {directory}\n  onelayer env check {id}\n  onelayer env play {id}")


def _taken(name: str) -> str:
    """What a new package of this name would clash with; empty where the name is free."""
    if keyword.iskeyword(name):
        return "a keyword of Python, which cannot be imported"
    if name in sys.stdlib_module_names:
        return "a module of Python's standard library, which would be imported in its place"
    installed = find_spec(name)
    invalidate_caches()  # in which the package that is about to be written is missing
    return "a package that is installed already, and would be imported in its place" if installed else ""


@app.command("generate")
def generate_games(
    env: Annotated[str, typer.Argument(metavar="ENV", help="alfworld")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="a new directory, for ALFWORLD_DATA")],
    train: Annotated[int, typer.Option(min=0, metavar="N", help="games to train on")] = 512,
    valid: Annotated[int, typer.Option(min=0, metavar="N", help="games of valid_seen and of valid_unseen")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="seed of the generator")] = 0,
    scene: Annotated[Literal["full", "small"], typer.Option(help="all receptacles of a floor plan, or few")] = "full",
) -> None:
    """Write generated ALFWorld games as files in the official layout, so that other tools can play them.

    \b
    Example:
      onelayer env generate alfworld --out games --train 100 --valid 20
    """
    from rich.progress import Progress

    from ..common.console import Console
    from ..common.errors import UserError
    from ..envs.alfworld.sources import generate

    if env != "alfworld":
        raise UserError(f"{env}: no games to generate; it can be alfworld")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("generating, each game proven by a walkthrough")
        sizes = {"train": train, "valid_seen": valid, "valid_unseen": valid}
        written = generate(out, sizes, seed, scene, lambda done, total: progress.update(task, completed=done, total=total))
    print(f"{out}: {', '.join(f'{count} {split}' for split, count in written.items())}")
    print(
        f"to play them: ALFWORLD_DATA={out.absolute()} onelayer env play alfworld-official/train, or any tool that plays alfworld's games"
    )


def _compose(env: str, overrides: list[str] | None) -> tuple[EnvConfig, str]:
    from .config import compose_suite

    config, split = compose_suite(env, overrides or [])
    return config.env, split


def _read() -> str:
    line = input("> " if sys.stdin.isatty() else "")
    if line.strip() != "<<<":
        return line
    lines = []
    while (line := input()).strip() != ">>>":
        lines.append(line)
    return "\n".join(lines)


def _show(head: str, observation: str, info: dict) -> None:
    for text in (head, observation):
        if text:
            print(text)
    if admissible := info.get("admissible"):
        print("You can:", ", ".join(admissible))
