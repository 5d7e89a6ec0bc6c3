"""`onelayer leaderboard`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .arguments import AsJson, print_json


def leaderboard(
    runs: Annotated[Path, typer.Argument(metavar="RUNS_DIR", help="directory of runs")],
    output: Annotated[Path, typer.Option(metavar="SITE", help="where the site goes; its three files are replaced")],
    as_json: AsJson = False,
) -> None:
    """Rank everything in a directory of runs: one table for each suite and each average of suites, as a page, JSON and CSV.

    SITE gets index.html (one file that needs no server), leaderboard.json and leaderboard.csv. A directory that cannot be
    read is named and left out.

    \b
    Examples:
      onelayer leaderboard runs --output site
      onelayer verify theirs.tar --unpack runs/theirs && onelayer leaderboard runs --output site
    """
    from ..common.errors import UserError
    from ..common.files import make_writable
    from ..common.text import counted
    from ..pages.leaderboard_site import write_site
    from ..studies.leaderboard.build import build

    make_writable(output)
    board = build(runs)
    measured = [table for table in board.tables if table.items]
    if not measured and not board.left_out:
        raise UserError(
            f"{runs}: no complete evaluation in it; a directory of results holds, at any depth, what `onelayer eval` (evaluation.json, "
            f"samples.parquet) and `onelayer study` write; for example: onelayer eval --suite arithmetic --output {runs}/base"
        )
    page = write_site(board, output)
    if as_json:
        print_json({"page": page, "leaderboard": board})
        return
    for one in board.left_out:
        print(f"left out: {one.directory}: {one.problem}")
    entries = counted(sum(len(table.entries) for table in board.tables), "entry", "entries")
    print(f"{entries} in {counted(len(board.tables), 'table')}, {len(measured)} of them measured")
    print(f"page: {page}")
