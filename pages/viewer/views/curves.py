"""The page of learning curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....common.errors import UserError
from ....studies.store import DirectoryKind
from ..episode_page import Query, one_of

if TYPE_CHECKING:
    from ..site import Site


def curves(site: Site, query: Query) -> str:
    """The learning curves of all training runs, as far as they have come."""
    from ..curve_page import X, Y, measures, suite_charts, trained_policies

    runs, problems = [], []
    for name, entry in site.index.entries().items():
        if entry.kind is not DirectoryKind.RUN or query.get("q", "").casefold() not in name.casefold():
            continue
        try:
            points = site.index.curve(name, entry)
        except (UserError, OSError) as error:
            problems.append(site.problem(error))
            continue
        if points:
            runs.append((name, entry, site.index.recipe(name, entry), points))
    there = measures(run[3] for run in runs)
    x, y = one_of(query, "x", X), one_of(query, "y", there or Y)
    charts = suite_charts(trained_policies(runs), x, y, (there or Y)[y])
    return site.render("view_curves.html.j2", charts=charts, problems=problems, xs=X, ys=there, x=x, y=y, q=query.get("q", ""))
