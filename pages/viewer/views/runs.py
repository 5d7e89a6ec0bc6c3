"""The pages of runs: everything in the directory, and one run or evaluation."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError
from ....common.text import shown
from ....evals.records import Evaluation
from ....studies.store import DirectoryKind, State, StoreEntry
from ...findings_tables import in_words
from ...report import details, evaluation_tables, leaderboard, protocol, render_page
from ..episode_page import LONGEST, NotFound, Query, one_of, page_of, url

if TYPE_CHECKING:
    from ..site import Site

RUNS_PAGE = 100
HOLDERS = (DirectoryKind.STUDY, DirectoryKind.GROUP)
COLUMNS = {
    "name": "directory",
    "kind": "kind",
    "state": "state",
    "what": "what",
    "sampled": "pass@1 sampled",
    "greedy": "pass@1 greedy",
    "seconds": "time",
    "date": "last written, UTC",
}
"""By what lines are sorted; with a minus before it the other way round."""
FIGURES = ("sampled", "greedy", "seconds", "date")


def runs(site: Site, query: Query) -> str:
    """Everything in the directory, what lies in a study or a group in the line of that; what is broken with the reason."""
    entries, wanted = site.index.entries(), query.get("q", "").casefold()
    holders = {name: _holder(name, entries) for name in entries}
    folded = not wanted and not query.get("all")
    rows = [site.row(name, entry) for name, entry in entries.items() if not (folded and holders[name])]
    inside = Counter(holders.values())
    for row in rows:
        row["inside"] = inside[row["name"]] if folded else 0
    found = [row for row in rows if wanted in f"{row['name']} {row['what']} {row['entry'].state}".casefold()]
    sort = one_of(query, "sort", [sign + key for key in COLUMNS for sign in ("", "-")])
    found = _sorted(_sorted(found, "name"), sort)
    page, pages = page_of(query, len(found), RUNS_PAGE)
    kept = {"q": query.get("q", ""), "all": query.get("all", "")}
    return site.render(
        "view_runs.html.j2",
        rows=found[page * RUNS_PAGE : (page + 1) * RUNS_PAGE],
        count=len(entries),
        folded=len(entries) - len(rows),
        foldable=any(holders.values()),
        broken=[(name, site.problem(entry.problem)) for name, entry in entries.items() if entry.problem],
        columns=COLUMNS,
        sorts={key: url("", sort=_next(key, sort), **kept) for key in COLUMNS},
        sort=sort,
        kept=kept,
        page=page,
        pages=pages,
    )


def _next(key: str, sort: str) -> str:
    """What a column sorts by when it is chosen: figures the greatest first, texts from A; the other way round at the second time."""
    first, second = (f"-{key}", key) if key in FIGURES else (key, f"-{key}")
    return second if sort == first else first


def _holder(name: str, entries: Mapping[str, StoreEntry]) -> str:
    """The outermost study or group that an entry lies in; empty: none but the whole directory."""
    above = (str(path) for path in reversed(PurePosixPath(name).parents))
    return next((path for path in above if path != "." and path in entries and entries[path].kind in HOLDERS), "")


def _sorted(rows: Sequence[dict[str, Any]], sort: str) -> list[dict[str, Any]]:
    """By a column; what has nothing in it comes last."""
    key, backwards = sort.removeprefix("-"), sort.startswith("-")

    def value(row: dict[str, Any]) -> Any:
        found = getattr(row["entry"], key) if key in ("kind", "state") else row[key]
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", found)] if isinstance(found, str) else found

    there = [row for row in rows if value(row) not in (None, [""])]
    return sorted(there, key=value, reverse=backwards) + [row for row in rows if value(row) in (None, [""])]


def run(site: Site, query: Query) -> str:
    """One run, evaluation or study: its curves, its figures and its manifest."""
    from ..curve_page import run_charts

    name, entry = site.entry(query)
    problem, charts, tables, measured_how, words = entry.problem, [], [], {}, {}
    try:
        if entry.kind is DirectoryKind.RUN:
            charts = run_charts(site.index.curve(name, entry))
        elif entry.kind is DirectoryKind.EVALUATION and entry.state is State.COMPLETE:
            tables = evaluation_tables(Evaluation.model_validate(entry.manifest))
        elif found := site.index.report(name, entry):
            tables, measured_how, words = [leaderboard(found), *details(found)], protocol(found), in_words(found)
    except (UserError, OSError) as error:
        problem = str(error)
    inside = {other: found for other, found in site.index.entries().items() if other.startswith(f"{name}/")} if name != "." else {}
    manifest = dict(_flat(entry.manifest if entry.state is State.COMPLETE else site.index.recipe(name, entry)))
    return site.render(
        "view_run.html.j2",
        row=site.row(name, entry),
        problem=site.problem(problem),
        charts=charts,
        tables=tables,
        words=words,
        protocol=measured_how,
        inside=[site.row(other, found) | {"inside": 0} for other, found in inside.items()],
        columns=COLUMNS,
        manifest={shown(key): shown(value if isinstance(value, str) else json.dumps(value))[:LONGEST] for key, value in manifest.items()},
        has_episodes=entry.kind in (DirectoryKind.RUN, DirectoryKind.EVALUATION),
    )


def report(site: Site, query: Query) -> str:
    """A study's report with its charts, the page that lies in its directory as report.html."""
    name, entry = site.entry(query)
    try:
        found = site.index.report(name, entry)
    except (UserError, OSError) as error:
        raise NotFound(site.problem(error)) from error
    if found is None:
        raise NotFound(f"{shown(name)}: there is no report here yet")
    return render_page(found)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    """Nested mappings as one with dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
    return found
