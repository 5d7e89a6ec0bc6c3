"""The page of items: who solved what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from ....common.errors import UserError
from ....evals.records import Decoding
from ....studies.leaderboard.records import Entry, Leaderboard, LeaderboardTable
from .. import item_matrix
from ..episode_page import Query, one_of, page_of, url
from ..item_matrix import Order, Which

if TYPE_CHECKING:
    from ..site import Site

ITEMS_PAGE = 100
MOST_POLICIES = 24
"""Columns of the matrix: more are narrowed by name."""


def items(site: Site, query: Query) -> str:
    """Who solved what: items against policies."""
    board, computing = site.board.get(site.index.signature())
    decoding, order = Decoding(one_of(query, "decoding", list(Decoding))), Order(one_of(query, "order", list(Order)))
    which = Which(one_of(query, "which", list(Which)))
    tables = [table for table in board.tables if table.items and not table.averaged] if board else []
    chosen = next((table for table in tables if table.digest == query.get("suite")), tables[0] if tables else None)
    everybody = [entry for entry in chosen.entries if entry.directories and entry.standing(decoding)] if chosen else []
    policies = [entry for entry in everybody if query.get("q", "").casefold() in policy_name(entry).casefold()]
    found, problem, rows, together = None, "", [], {}
    if board and chosen and policies:
        try:
            found = item_matrix.matrix(site.root, chosen, policies[:MOST_POLICIES], decoding)
            rows = found.rows(which, order)
            together = _together(site, board, found.policies, everybody, decoding)
        except (UserError, OSError, ValueError) as error:
            problem = site.problem(error)
    page, pages = page_of(query, len(rows), ITEMS_PAGE)
    return site.render(
        "matrix.html.j2",
        computing=computing,
        tables=[(table.digest, _table_name(table, tables)) for table in tables],
        chosen=chosen,
        matrix=found,
        names=[policy_name(entry) for entry in policies[:MOST_POLICIES]],
        rows=[(found.items[row], found.rate_PI[:, row]) for row in rows[page * ITEMS_PAGE : (page + 1) * ITEMS_PAGE]] if found else [],
        listed=len(rows),
        left_out=len(policies) - MOST_POLICIES,
        together=together,
        problem=problem,
        decoding=decoding,
        decodings=list(Decoding),
        order=order,
        orders=list(Order),
        which=which,
        whiches=list(Which),
        q=query.get("q", ""),
        page=page,
        pages=pages,
        link=lambda entry, item: url("episodes", run=entry.directories[0], part=decoding.value, item=item),
    )


def _together(site: Site, board: Leaderboard, shown: Sequence[Entry], everybody: Sequence[Entry], decoding: Decoding) -> dict[str, str]:
    """Label and text: how far the solved sets overlap, and what a vote over the layers comes to."""
    layers = item_matrix.voters(shown)
    single = item_matrix.reference(layers or shown, everybody)
    rest = (single, policy_name(single), decoding)
    tell = {
        "overlap of solved sets": partial(item_matrix.overlap_text, site.root, shown, *rest),
        "vote over layers": partial(item_matrix.vote_text, site.root, layers, *rest),
    }
    keys = {label: (label, decoding, single.id, *(entry.id for entry in shown)) for label in tell}
    done = site.later.get(board, {keys[label]: partial(site.told, say) for label, say in tell.items()})
    return {label: done.get(key, "being computed.") for label, key in keys.items()}


def policy_name(entry: Entry) -> str:
    """Algorithm and trained set; what was not trained by its name."""
    return f"{entry.algorithm} {entry.trained_set}" if entry.algorithm else entry.trained_set


def _table_name(table: LeaderboardTable, tables: Sequence[LeaderboardTable]) -> str:
    alike = [other for other in tables if other.suite == table.suite]
    return f"{table.suite}, {table.size}" + (f" ({table.digest[:8]})" if len(alike) > 1 else "")
