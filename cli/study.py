"""`onelayer study`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.errors import Interrupted
from .arguments import RECIPE, AsJson, DryRun, Full, Gpus, Measure, Memory, Parallel, Quiet, RayAddress, Threads, placement, print_json

if TYPE_CHECKING:
    from ..studies.compare_records import Comparison
    from ..studies.parallel import Placement
    from ..studies.study_report import StudyReport
    from ..trainers.config import Config


def study(
    context: typer.Context,
    recipe: Annotated[str, RECIPE],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] KEY=VALUE", help="more recipes, and keys that differ")] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="directory of the study  [default: runs/NAME]")] = None,
    parallel: Parallel = None,
    ray: RayAddress = None,
    threads: Threads = None,
    gpus: Gpus = 0,
    memory: Memory = 0,
    beside: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="another study, whose layers the report compares with these; may be repeated")
    ] = None,
    dry_run: DryRun = False,
    full: Full = False,
    measure: Measure = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train single layers and all parameters under one protocol, and compare them.

    All parameters and each named set are trained with every seed, then evaluated on the same items as the base. Runs that
    are finished are not repeated: the same command continues a study that was stopped. A run that fails is tried once more.
    If it fails again it is reported, and the other runs go on. `onelayer study status DIR` shows how far a study is.
    Several recipes, or several algorithms in study.algorithms, are a study each, below one directory; compare.html in it
    compares them.

    \b
    Examples:
      onelayer study quickstart
      onelayer study quickstart study.trained_sets=[layer:1,layer:3] study.seeds=[0,1,2] --output runs/seeds
      onelayer study math study.trained_sets=[layers:each,lora:4] --parallel 2
      onelayer study math code study.algorithms=[grpo,dr_grpo] --output runs/algorithms
      onelayer study code study.trained_sets=[layers:each] --beside runs/math
      onelayer study status runs/seeds
      onelayer study quickstart --dry-run
    """
    from .config import load_studies

    if recipe == "status":
        from .study_status import print_status

        print_status(overrides or [])
        return
    words = [recipe, *(overrides or [])]
    recipes, keys = [word for word in words if "=" not in word], [word for word in words if "=" in word]
    studies = load_studies(recipes or [None], keys)
    if dry_run:
        from .plan import plan_study, show

        plans = {name: plan_study(config, measure) for name, config in studies.items()}
        if as_json:
            print_json(plans)
        else:
            for plan in plans.values():
                show(plan, full)
        return
    place = placement(parallel, ray, threads, gpus, memory)
    if beside:
        from ..studies.agreement import check_has_profile

        for other in beside:
            check_has_profile(other)
    name = next(iter(studies)) if len(studies) == 1 else "-".join(["studies", *(Path(word).stem for word in recipes)])
    directory = output or Path("runs") / name
    folders = {directory if len(studies) == 1 else directory / name: config for name, config in studies.items()}
    try:
        reports = {folder: _study(config, folder, place, beside or [], as_json) for folder, config in folders.items()}
    except Interrupted as stop:
        if len(studies) == 1:
            raise
        command = ["onelayer", *(context.obj or sys.argv[1:]), *([] if output else ["--output", directory])]
        raise Interrupted(stop.signal, f"the studies are in {directory}", command) from stop
    comparison = _compare(list(folders), directory, as_json) if len(studies) > 1 else None
    if as_json:
        print_json({"directory": directory, "studies": reports, "comparison": comparison})
    if any(report.failed for report in reports.values()):
        raise typer.Exit(1)


def _study(config: Config, directory: Path, place: Placement | None, beside: list[Path], as_json: bool) -> StudyReport:
    """Perform a study and show what came of it."""
    from ..common.console import Console
    from ..pages.report import render_table, write_report
    from ..studies.study import study as run

    if place:
        from ..studies.parallel import runner
        from .study_status import watching

        with watching(directory) as watch:
            report = run(config, directory, runner(place, watch))
    else:
        report = run(config, directory)
    if beside:
        from ..studies.agreement import agreement

        report = report.model_copy(update={"agreements": [agreement(directory, other) for other in beside]})
    write_report(report, directory)
    if not as_json:
        Console().print(render_table(report))
        print(f"report: {directory / 'report.html'}")
    return report


def _compare(studies: list[Path], directory: Path, as_json: bool) -> Comparison:
    """Show and write what studies differ by."""
    from ..common.console import Console
    from ..pages.compare_page import render_terminal, write_comparison
    from ..studies.compare import compare
    from ..studies.read import read

    comparison = compare([entry for study in studies for entry in read(study)])
    page = write_comparison(comparison, directory)
    if not as_json:
        Console().print(render_terminal(comparison))
        print(f"page: {page}")
    return comparison
