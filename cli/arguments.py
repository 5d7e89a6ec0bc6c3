"""Arguments that several verbs take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..studies.parallel import Placement

RECIPE = typer.Argument(
    metavar="RECIPE", help="a YAML file, or the name of a recipe that ships, for example quickstart; without one: the defaults"
)
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="keys that differ, for example trainer.lr=1e-5")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="show the first prompt, what would be trained, and the memory; do nothing")]
Full = Annotated[bool, typer.Option("--full", help="with --dry-run: print every key of the recipe, too")]
Measure = Annotated[bool, typer.Option("--measure", help="with --dry-run: time two steps, whose results are thrown away")]

Parallel = Annotated[int | None, typer.Option(metavar="N", min=1, help="so many tasks at a time on this machine (needs [ray])")]
RayAddress = Annotated[str | None, typer.Option("--ray", metavar="ADDRESS", help="tasks on a Ray cluster that shares the directory")]
Threads = Annotated[int | None, typer.Option(metavar="N", min=1, help="of a task  [default: the cores, dealt over the tasks]")]
Gpus = Annotated[float, typer.Option(metavar="N", min=0, help="of a task; .5 puts two on one")]
Memory = Annotated[float, typer.Option(metavar="GIB", min=0, help="of a task; a node takes no more of them than its memory holds")]


def placement(parallel: int | None, ray: str | None, threads: int | None, gpus: float, memory: float) -> Placement | None:
    """Where tasks run; None where one runs after another, in this process. Raises UserError for needs of tasks without a place for them."""
    from ..common.errors import UserError
    from ..studies.parallel import Placement

    if parallel or ray:
        return Placement(parallel, ray, threads, gpus, memory)
    if threads or gpus or memory:
        raise UserError("--threads, --gpus and --memory are of tasks at the same time; give --parallel N or --ray ADDRESS, too")
    return None


def _show_progress(quiet: bool) -> bool:
    from ..common.progress import show

    show(not quiet)
    return quiet


Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=_show_progress, help="show no progress on stderr")]
AsJson = Annotated[bool, typer.Option("--json", help="print the result as one JSON document, and nothing else on stdout")]


def print_json(result: object) -> None:
    """What `--json` prints. result: mappings, lists, pydantic models, data classes, paths and plain values."""
    import json

    from pydantic_core import to_jsonable_python

    print(json.dumps(to_jsonable_python(result), indent=2))


def split_recipe(recipe: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """Recipe and overrides: a first argument KEY=VALUE is no recipe."""
    if recipe is not None and "=" in recipe:
        return None, [recipe, *(overrides or [])]
    return recipe, overrides or []


NOTE = "Every key of a recipe can be given on the command line, the last one wins: trainer.lr=1e-5 study.trained_sets=[layer:1,layer:3]"
