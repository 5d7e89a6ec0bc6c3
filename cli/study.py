"""`onelayer study`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import UserError
from .arguments import RECIPE, DryRun, Overrides, split_recipe


def study(
    recipe: Annotated[str, RECIPE],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="directory of the study  [default: runs/NAME]")] = None,
    parallel: Annotated[int | None, typer.Option(metavar="N", min=1, help="so many runs at a time on this machine (needs [ray])")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="runs on a Ray cluster that shares the directory")] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="of a run  [default: the cores, dealt over the runs]")] = None,
    gpus: Annotated[float, typer.Option(metavar="N", min=0, help="of a run; .5 puts two on one")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Train layers and everything under one protocol, and compare.

    All parameters and each named set are trained with every seed, then evaluated on the same items as the base. Runs that
    are finished are not repeated: the same command continues a study that was stopped. A run that fails is tried once more,
    then reported, and stops no other. `onelayer study status DIR` shows how far a study is.

    \b
    Examples:
      onelayer study quickstart
      onelayer study quickstart study.trained_sets=[layer:1,layer:3] study.seeds=[0,1,2] --output runs/seeds
      onelayer study math study.trained_sets=[layers:each,lora:4] --parallel 2
      onelayer study status runs/seeds
      onelayer study quickstart --dry-run
    """
    from .config import load

    if recipe == "status":
        from .study_status import print_status

        print_status(overrides or [])
        return
    config = load(*split_recipe(recipe, overrides))
    if dry_run:
        from .plan import print_study

        print_study(config)
        return
    from ..common.console import Console
    from ..pages.report import render_table, write_report
    from ..studies.study import one_after_another
    from ..studies.study import study as run

    directory = output or Path("runs") / config.name
    if parallel or ray:
        from ..studies.parallel import Placement, runner
        from .study_status import watching

        with watching(directory) as watch:
            report = run(config, directory, runner(Placement(parallel, ray, threads, gpus), watch))
    elif threads or gpus:
        raise UserError("--threads and --gpus are of runs at the same time; give --parallel N or --ray ADDRESS, too")
    else:
        report = run(config, directory, one_after_another)
    write_report(report, directory)
    Console().print(render_table(report))
    print(f"report: {directory / 'report.html'}")
    if report.failed:
        raise typer.Exit(1)
