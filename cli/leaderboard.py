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

    SITE gets index.html, which opens from the file and loads nothing, leaderboard.json and leaderboard.csv. What is broken is named and
    left out.

    \b
    Examples:
      onelayer leaderboard runs --output site
      onelayer verify theirs.tar --unpack runs/theirs && onelayer leaderboard runs --output site
    """
    from ..common.files import make_writable
    from ..pages.leaderboard_site import write_site
    from ..studies.leaderboard.build import build

    make_writable(output)
    board = build(runs)
    page = write_site(board, output)
    if as_json:
        print_json({"page": page, "leaderboard": board})
        return
    for one in board.left_out:
        print(f"left out: {one.directory}: {one.problem}")
    measured = [table for table in board.tables if table.items]
    print(f"{sum(len(table.entries) for table in board.tables)} entries in {len(board.tables)} tables, {len(measured)} of them measured")
    print(f"page: {page}")
