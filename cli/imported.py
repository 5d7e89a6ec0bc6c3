"""`onelayer import`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import AsJson, Quiet, print_json

if TYPE_CHECKING:
    from ..agents.foreign import Claim
    from ..agents.model_difference import ModelDifference

SHOWN_NAMES = 8


def import_model(
    base: Annotated[str, typer.Option(help="what was trained: tiny, a directory or a hub name")],
    model: Annotated[str, typer.Option(metavar="TRAINED", help="the trained model, or an adapter of peft: a directory or a hub name")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="keys of the base, for example model.dtype=bfloat16")
    ] = None,
    claims: Annotated[
        str | None, typer.Option(metavar="SET", help="the trained set that it is said to have, for example layer:13; proven or refuted")
    ] = None,
    note: Annotated[str, typer.Option(help="how it was trained, for the leaderboard, for example 'TRL 1.16, GRPO, 200 steps'")] = "",
    output: Annotated[
        Path | None, typer.Option(metavar="PATCH", help="a new file for the patch  [default: runs/import-NAME/patch.safetensors]")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make a patch of a model that was trained elsewhere, and prove or refute what is said of its training.

    Every weight of both models is compared, a piece at a time. The table says which layers differ, and by how much. The patch is
    evaluated, compared and ranked as those of runs are, marked as trained elsewhere. A claim that is refuted makes no patch, and the
    command exits with 1. The weights of the base are taken in the format of model.dtype, as `onelayer eval` loads them.

    \b
    Examples:
      onelayer import --base Qwen/Qwen3-1.7B-Base --model trl-output --claims layer:13
      onelayer import --base tiny --model outputs/adapter --output runs/lora/patch.safetensors
    """
    from pydantic import ValidationError

    from ..agents.foreign import compare
    from ..agents.patch import LONGEST_NAME, Origin
    from ..common.console import Console
    from ..common.errors import UserError, first_problem
    from ..trainers.manifest import PATCH
    from .config import compose

    if other := next((key for key in overrides or [] if not key.startswith("model.")), None):
        raise UserError(f"{other}: the keys of this command are those of the base, model.dtype and the like; leave it out")
    name = model if model.count("/") == 1 and not Path(model).exists() else Path(model).resolve().name
    path = output or Path("runs") / f"import-{Path(name).name}" / PATCH
    if path.exists():
        raise UserError(f"{path}: is there already; remove it, or name another --output")
    try:
        origin = Origin(model=name[-LONGEST_NAME:], note=note)
    except ValidationError as error:
        raise UserError(f"--note: {first_problem(error)}; say it in fewer words") from error
    config = compose([f"model.path={base}", *(overrides or [])]).model
    foreign = compare(config, model)
    claim = foreign.claim(claims) if claims else None
    spec = foreign.trained_set
    if claim and claim.proven and foreign.factors is None:
        spec = claim.trained_set
    sha256 = None if claim and not claim.proven else foreign.write(path, spec, origin)
    if as_json:
        told = {"trained_set": spec, "claim": claim and {**vars(claim), "proven": claim.proven}, "notes": foreign.notes}
        difference = {"base": foreign.found.fingerprint, "compared": foreign.found.compared, "layers": foreign.found.layers}
        print_json({"patch": path if sha256 else None, "sha256": sha256, **told, **difference, "tensors": foreign.found.changes})
    else:
        _tell(Console(), foreign.found, claim, spec, foreign.notes)
        if sha256:
            print(f"patch: {path}")
    if not sha256:
        raise typer.Exit(1)


def _tell(console: object, found: ModelDifference, claim: Claim | None, spec: str, notes: list[str]) -> None:
    """The table of layers, and what it comes to."""
    from ..common.text import counted
    from ..pages.page import Cell, Table, render_tables

    headings = ("layer", "weights that differ", "entries changed", "L2", "relative", "spectral norm")
    rows = [
        [
            Cell("outside" if one.layer is None else str(one.layer)),
            Cell(str(one.tensors)),
            Cell(f"{one.share:.2%}"),
            Cell(f"{one.l2:.3g}"),
            Cell("-" if one.relative is None else f"{one.relative:.2e}"),
            Cell("-" if one.spectral is None else f"{one.spectral:.3g}"),
        ]
        for one in found.layers
    ]
    same = found.compared - len(found.changes)
    lines = [f"{counted(len(found.changes), 'weight')} of {found.compared} differ; {same} are those of the base, bit for bit."]
    if claim and claim.proven:
        lines.append(f"{claim.trained_set}: proven. Every weight outside of it is that of the base.")
        if claim.part:
            lines.append(f"Of the set itself {counted(len(claim.part), 'weight')} did not change: {_names(claim.part)}.")
    elif claim:
        lines.append(f"{claim.trained_set}: refuted. These differ, too: {_names(claim.outside)}.")
    if not claim or not claim.proven:
        lines.append(f"The change amounts to the trained set {spec}.")
    console.print(render_tables([Table("Difference to the base", [Cell(text) for text in headings], rows, [*lines, *notes])]))  # type: ignore[attr-defined]


def _names(names: list[str]) -> str:
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
