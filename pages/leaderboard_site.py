"""The leaderboard as files: leaderboard.json, leaderboard.csv, and index.html, one page that needs neither server nor network."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.files import write_atomically
from ..evals.records import Decoding
from ..evals.replies import STATISTICS
from ..studies.leaderboard.records import Entry, Leaderboard, LeaderboardTable, PairedDifference, Standing
from .page import render_html

INDEX, JSON, CSV = "index.html", "leaderboard.json", "leaderboard.csv"


def write_site(board: Leaderboard, directory: Path) -> Path:
    """Write the three files; returns the page's path. Raises UserError where the directory cannot be written."""
    write_atomically(directory / JSON, board.model_dump_json(indent=1) + "\n")
    write_atomically(directory / CSV, to_csv(board))
    statistics = [{"name": name, "label": one.label, "share": one.is_share} for name, one in STATISTICS.items()]
    page = render_html("leaderboard.html.j2", board, published=board.published, left_out=board.left_out, statistics=statistics)
    write_atomically(directory / INDEX, page)
    return directory / INDEX


def to_csv(board: Leaderboard) -> str:
    """A line for each entry under each decoding that was measured."""
    rows = [row for table in board.tables for entry in table.entries for row in _rows(table, entry)]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _rows(table: LeaderboardTable, entry: Entry) -> Iterator[dict[str, Any]]:
    for decoding in Decoding:
        if standing := entry.standing(decoding):
            yield {name: _inert(value) for name, value in _row(table, entry, decoding, standing).items()}


def _row(table: LeaderboardTable, entry: Entry, decoding: Decoding, standing: Standing) -> dict[str, Any]:
    low, high = standing.interval or (None, None)
    share = standing.contribution
    bounds = share.interval if share and isinstance(share.interval, tuple) else (None, None)
    spent = entry.spent.model_dump() if entry.spent else {}
    return {
        "domain": table.domain,
        "suite": table.suite,
        "items": table.items,
        "decoding": decoding.value,
        "rank": standing.rank,
        "mark": entry.mark.value,
        "model": entry.model,
        "algorithm": entry.algorithm,
        "trained_set": entry.trained_set,
        "apart": entry.apart,
        "seeds": " ".join(map(str, entry.seeds)),
        "runs": entry.runs,
        "samples": entry.samples,
        "pass_rate": standing.pass_rate,
        "low": low,
        "high": high,
        "interval_over": entry.interval_over,
        **_difference("to_base", standing.to_base),
        "base_differs": ", ".join(standing.base_differs),
        **_difference("to_full", standing.to_full),
        "full_differs": ", ".join(standing.full_differs),
        "contribution": share.point if share else None,
        "contribution_low": bounds[0],
        "contribution_high": bounds[1],
        "contribution_unbounded": share.interval == "unbounded" if share else None,
        **{name: getattr(standing.replies, name, None) for name in STATISTICS},
        "parameters": entry.parameters,
        "total_parameters": entry.total_parameters,
        **{f"training_{name}": spent.get(name) for name in ("seconds", "cpu_seconds", "gpu_seconds", "flops", "tokens")},
        "peak_memory": spent.get("peak_memory"),
        "peak_gpu_memory": spent.get("peak_gpu_memory"),
        "lr": entry.lr,
        "recipe": entry.recipe,
        "trained_on": entry.trained_on,
        "elsewhere": "; ".join(": ".join(filter(None, (one.model, one.note))) for one in entry.elsewhere),
        "source": entry.source,
        "base": entry.base,
        "digest": table.digest,
        "protocol_sha256": entry.protocol_sha256,
        "id": entry.id,
    }


def _difference(name: str, found: PairedDifference | None) -> dict[str, float | None]:
    figures = ("difference", "low", "high", "p")
    values = {f"{name}_{figure}": getattr(found.difference, figure) if found else None for figure in figures}
    return values | {f"{name}_p_holm": found.p_holm if found else None}


def _inert(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
