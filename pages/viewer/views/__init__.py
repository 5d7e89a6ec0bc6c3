"""The pages of `onelayer view`: a module each, from a query to HTML, and a row of `PAGES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ..episode_page import Query
from . import curves, episodes, items, profiles, runs

if TYPE_CHECKING:
    from ..site import Site


class Page(NamedTuple):
    """One page."""

    show: Callable[[Site, Query], str]
    """Its HTML. Raises NotFound where the query names what is not there."""
    tab: str = ""
    """Its label in the line of pages; empty: others link to it."""
    stands_alone: bool = False
    """It is a whole file with scripts and styles of its own, which the browser keeps apart from all other pages (a sandbox)."""


PAGES = {
    "": Page(runs.runs, "Runs"),
    "run": Page(runs.run),
    "report": Page(runs.report, stands_alone=True),
    "episodes": Page(episodes.episodes),
    "curves": Page(curves.curves, "Learning curves"),
    "profiles": Page(profiles.profiles, "Layer profiles"),
    "items": Page(items.items, "Items"),
}
"""By their address below the server's."""
TABS = {name: page.tab for name, page in PAGES.items() if page.tab}
