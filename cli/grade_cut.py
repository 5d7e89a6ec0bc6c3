"""`onelayer grade cut`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import AsJson, print_json

if TYPE_CHECKING:
    from ..agents.policy import Base
    from ..evals.records import Evaluation
    from ..trainers.config import Config


def grade_cut(
    directories: Annotated[list[Path], typer.Argument(metavar="DIR", help="evaluations, or directories that hold some, as a study")],
    limits: Annotated[str, typer.Option(metavar="N,N", help="most tokens of a reply, for example 32,64,96")],
    model: Annotated[
        str | None, typer.Option(help="the base, a directory or a hub name, where the configuration names another place")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate at lower limits of tokens: cut the replies on record, and grade them again. Nothing is sampled.

    A reply cut after N tokens is what a limit of N would have sampled. Of each evaluation its limits/N gets the evaluation at that limit.
    The table has pass@1 at every limit and, with the base among the evaluations, how much of each gain comes of shorter replies; with
    `full`, too, C(k). Evaluations that chose a study's learning rate are left out. Only episodes of one turn can be cut.

    \b
    Examples:
      onelayer grade cut runs/base runs/layer3/test --limits 16,24,32
      onelayer grade cut runs/quickstart --limits 16,24,32
    """
    from ..agents.policy import load_base
    from ..common.console import Console
    from ..common.errors import UserError
    from ..evals.records import MANIFEST, read_manifest
    from ..pages.limits import limits_tables
    from ..pages.page import render_tables
    from ..studies.leaderboard.measured import chose_a_rate
    from ..studies.limits import measured_alike
    from ..studies.store import folders
    from ..trainers.config import Config

    wanted = _numbers(limits)
    found = [place for one in directories for place, files in folders(one) if MANIFEST in files and not chose_a_rate(place)]
    if not found:
        raise UserError(f"{', '.join(map(str, directories))}: no complete evaluation here; run `onelayer eval` first")
    bases: dict[str, Base] = {}
    cut: dict[Path, Evaluation] = {}
    for place in found:
        manifest = cut[place] = read_manifest(place)
        config = Config.model_validate(manifest.config)
        if (key := config.model.model_dump_json()) not in bases:
            bases[key] = load_base(config.model.model_copy(update={"path": model}) if model else config.model)
        _cut(place, manifest, config, bases[key], wanted)
    groups = measured_alike(cut)
    if as_json:
        print_json({"directories": found, "groups": groups})
        return
    for group in groups:
        Console().print(f"{group.model} on {group.split}, {group.items} items", style="bold", markup=False, emoji=False)
        Console().print(render_tables(limits_tables(group.limits, group.temperature)))


def _numbers(text: str) -> list[int]:
    """Raises UserError for what is no list of numbers of tokens."""
    from ..common.errors import UserError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise UserError(f"--limits {text}: write numbers of tokens with commas, for example 32,64,96")
    return sorted({int(word) for word in words})


def _cut(place: Path, manifest: Evaluation, config: Config, base: Base, limits: Sequence[int]) -> None:
    """Raises UserError where the evaluation was made on another base or on other items than its configuration now stands for."""
    from ..agents.agent import make_agent
    from ..common.errors import UserError
    from ..envs import load
    from ..envs.pool import open_pool
    from ..evals.cutting import check, cut
    from ..evals.evaluator import first_items, tokenizer_of

    check(place, manifest, limits)
    split_name = manifest.split.rpartition("/")[2]
    split, agent = load(config.env, split_name), make_agent(base, config.agent, config.env)
    now = {"base": base.fingerprint, "tokenizer": tokenizer_of(agent), "digest": first_items(split, config.eval.items).digest}
    if changed := [name for name, value in now.items() if getattr(manifest, name) not in ("", value)]:
        what = {"base": "the base", "tokenizer": "the tokenizer or longest prompt", "digest": "the items"}[changed[0]]
        raise UserError(f"{place}: {what} has changed since this was measured; bring it back, or give --model with the base's place")
    with open_pool(config.env, split_name, config.pool) as pool:
        cut(place, limits, agent, config.env, pool, split)
