"""The pages of runs: everything in the directory, and one run or evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError
from ....common.text import shown
from ....studies.store import DirectoryKind, State
from ..episode_page import LONGEST, Query, page_of

if TYPE_CHECKING:
    from ..site import Site

RUNS_PAGE = 200


def runs(site: Site, query: Query) -> str:
    """Everything in the directory; what is broken with the reason."""
    entries, wanted = site.index.entries(), query.get("q", "").casefold()
    rows = [site.row(name, entry) for name, entry in entries.items()]
    found = [row for row in rows if wanted in f"{row['name']} {row['what']} {row['entry'].state}".casefold()]
    page, pages = page_of(query, len(found), RUNS_PAGE)
    return site.render(
        "view_runs.html.j2",
        rows=found[page * RUNS_PAGE : (page + 1) * RUNS_PAGE],
        count=len(entries),
        found=len(found),
        broken=[(name, site.problem(entry.problem)) for name, entry in entries.items() if entry.problem],
        q=query.get("q", ""),
        page=page,
        pages=pages,
    )


def run(site: Site, query: Query) -> str:
    """One run or evaluation: its curves and its manifest."""
    from ..curve_page import run_charts

    name, entry = site.entry(query)
    problem, charts = entry.problem, []
    if entry.kind is DirectoryKind.RUN:
        try:
            charts = run_charts(site.index.curve(name, entry))
        except (UserError, OSError) as error:
            problem = str(error)
    inside = {other: found for other, found in site.index.entries().items() if other.startswith(f"{name}/")} if name != "." else {}
    manifest = dict(_flat(entry.manifest if entry.state is State.COMPLETE else site.index.recipe(name, entry)))
    return site.render(
        "view_run.html.j2",
        row=site.row(name, entry),
        problem=site.problem(problem),
        charts=charts,
        inside=[site.row(other, found) for other, found in inside.items()],
        manifest={shown(key): shown(value)[:LONGEST] for key, value in manifest.items()},
        has_episodes=entry.kind in (DirectoryKind.RUN, DirectoryKind.EVALUATION),
    )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    """Nested mappings as one with dotted keys."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
    return found
