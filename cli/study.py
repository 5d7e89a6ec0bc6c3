"""`onelayer study`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import RECIPE, DryRun, Overrides, split_recipe


def study(
    recipe: Annotated[str, RECIPE],
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="directory of the study  [default: runs/NAME]")] = None,
    dry_run: DryRun = False,
) -> None:
    """Train layers and everything under one protocol, and compare.

    All parameters and each named set are trained with every seed, then evaluated on the same items as the base. Runs that
    are finished are not repeated: the same command continues a study that was stopped.

    \b
    Examples:
      onelayer study quickstart
      onelayer study quickstart study.trained_sets=[layer:1,layer:3] study.seeds=[0,1,2] --output runs/seeds
      onelayer study quickstart --dry-run
    """
    from .config import load

    config = load(*split_recipe(recipe, overrides))
    if dry_run:
        from .plan import print_study

        print_study(config)
        return
    from ..common.console import Console
    from ..pages.report import render_table, write_report
    from ..studies.study import study as run

    directory = output or Path("runs") / config.name
    report = run(config, directory)
    write_report(report, directory)
    Console().print(render_table(report))
    print(f"report: {directory / 'report.html'}")
