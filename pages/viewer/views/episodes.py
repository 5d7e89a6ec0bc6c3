"""The page of episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....common.errors import UserError
from ....common.text import shown
from .. import episode_page
from ..episode_page import Query
from ..run_index import name_of

if TYPE_CHECKING:
    from ..site import Site


def episodes(site: Site, query: Query) -> str:
    """The episodes of a run or evaluation by pages, and one of them in full."""
    name, entry = site.entry(query)
    try:
        there = site.index.episodes(name, entry)
    except (UserError, OSError) as error:
        return site.render("episodes_none.html.j2", name=name, problem=site.problem(error))
    what = shown(name_of(entry, site.index.recipe(name, entry)))
    return site.render("episodes.html.j2", name=name, what=what, entry=entry, **episode_page.texts(there, query))
