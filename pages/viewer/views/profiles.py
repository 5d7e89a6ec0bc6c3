"""The page of layer profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ....evals.records import Decoding
from ....studies.leaderboard.records import Entry, Leaderboard
from ...page import Table
from .. import profile_items, profile_page
from ..episode_page import Query, one_of, url
from ..profile_page import HeatMap, Measure, Profile

if TYPE_CHECKING:
    from ..site import Site


def profiles(site: Site, query: Query) -> str:
    """Contribution profiles: heat maps of all, and one as a chart with intervals."""
    board, computing = site.board.get(site.index.signature())
    decoding, measure = Decoding(one_of(query, "decoding", list(Decoding))), Measure(one_of(query, "measure", list(Measure)))
    found = profile_page.profiles(board, decoding, measure) if board else []
    chosen = next((profile for profile in found if profile.id == query.get("profile")), found[0] if found else None)
    maps = profile_page.heat_maps(found, measure)
    best, agreements = _of_items(site, board, chosen, maps, decoding) if board and chosen else ("", [])
    return site.render(
        "profile.html.j2",
        computing=computing,
        maps=maps,
        best=best,
        agreements=agreements,
        measured=any(not profile.is_published for profile in found),
        chosen=chosen,
        chart=profile_page.chart(chosen, measure, _episodes_link if chosen.has_items else lambda entry: "") if chosen else None,
        table=profile_page.table(chosen, measure, decoding, board.level) if chosen and board else None,
        decoding=decoding,
        measure=measure,
        decodings=list(Decoding),
        measures=list(Measure),
        level=board.level if board else 0.95,
    )


def _of_items(
    site: Site, board: Leaderboard, chosen: Profile, maps: Sequence[HeatMap], decoding: Decoding
) -> tuple[str, list[Table | None]]:
    """The best layer of the chosen profile, and for each map how far its profiles agree, where the items tell."""
    pairs = [[] if one.is_published else profile_items.pairs([profile for profile, _ in one.rows], chosen) for one in maps]
    rows = [{(a.id, b.id, decoding): (a, b) for a, b in found[: profile_items.MOST_PAIRS]} for found in pairs]
    jobs: dict[object, Callable[[], Any]] = {}
    if chosen.has_items:
        jobs[chosen.id, decoding] = partial(site.told, partial(profile_items.best_layer_text, site.root, chosen, decoding))
    for key, pair in (item for found in rows for item in found.items()):
        jobs[key] = partial(profile_items.agreement, site.root, pair, decoding)
    done = site.later.get(board, jobs)
    tables = [
        profile_items.agreement_table([done[key] for key in found if key in done], len(there), board.level) if there else None
        for found, there in zip(rows, pairs, strict=True)
    ]
    return done.get((chosen.id, decoding), "being computed.") if chosen.has_items else "", tables


def _episodes_link(entry: Entry) -> str:
    return url("episodes", run=entry.directories[0]) if entry.directories else ""
