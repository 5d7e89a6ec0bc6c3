"""`onelayer compare`"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, print_json


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="directories of training runs, studies or evaluations")],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="where the page goes  [default: runs/compare-TIME]")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: what each policy solves, how the policies differ, and what their training cost.

    Runs are grouped by what they were measured on. Runs that differ in their seed alone are pooled; each policy is compared with the
    base and with the first run given, on the same items. DIR gets compare.html, with the learning curves, and compare.json.

    \b
    Examples:
      onelayer compare runs/quickstart
      onelayer compare runs/grpo runs/gigpo runs/eval-alfworld-random
      onelayer compare runs/grpo-seed-* runs/dr_grpo-seed-* --output runs/grpo-or-dr_grpo
    """
    from ..common.console import Console
    from ..common.files import make_writable
    from ..pages.compare_page import render_terminal, write_comparison
    from ..studies.compare import compare as put_side_by_side
    from ..studies.read import read
    from .unevaluated import unevaluated

    entries = [entry for path in runs for entry in read(path)]
    comparison = put_side_by_side(entries)
    directory = output or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    make_writable(directory)
    page = write_comparison(comparison, directory)
    for line in unevaluated(entries):
        print(f"onelayer: {line}", file=sys.stderr)
    if as_json:
        print_json({"page": page, "comparison": comparison})
        return
    Console().print(render_terminal(comparison))
    print(f"page: {page}")
