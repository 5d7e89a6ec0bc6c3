"""The page of episodes: a list by pages, and one episode with all that was said in it. And what all pages need to show text safely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from ...common.errors import UserError
from ...common.text import shown
from .episode_table import EpisodeFilter, Episodes

PAGE = 50
"""Episodes of a page."""
LONGEST = 100_000
"""Characters of a text that are shown unless all are asked for."""
Query = Mapping[str, str]


class NotFound(Exception):
    """There is no such page, or no longer."""


def url(page: str, /, **query: object) -> str:
    """The address of a page; what is empty is left out of the query."""
    there = {name: str(value) for name, value in query.items() if value not in ("", None, False)}
    return f"/{page}?{urlencode(there)}" if there else f"/{page}"


def number(value: object, digits: int = 3) -> str:
    """A figure, or nothing where there is none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}".replace("-", "\u2212")


def one_of(query: Query, name: str, allowed: Sequence[str] | Mapping[str, str]) -> str:
    """A choice; the first where the query makes none that there is."""
    return found if (found := query.get(name, "")) in allowed else next(iter(allowed))


def texts(there: Episodes, query: Query) -> dict[str, Any]:
    """What the template shows. Raises NotFound where the query opens an episode that is not there."""
    listing = there.listing
    wanted = EpisodeFilter(query.get("part", ""), query.get("verdict", ""), query.get("item", ""))
    rows = listing.find(wanted)
    chosen = _chosen(query.get("open", ""), there)
    if chosen is None and query.get("open"):
        raise NotFound(f"{shown(query['open'])}: there is no such episode, or no longer")
    at = int(rows.searchsorted(chosen)) if chosen is not None else 0
    page, pages = page_of(query, len(rows), PAGE, at // PAGE)
    on_page = rows[page * PAGE : (page + 1) * PAGE].tolist()
    row = chosen if chosen is not None else next(iter(on_page), None)
    kept = {key: query.get(key, "") for key in ("run", "part", "verdict", "item", "prompts")}

    def link(row: int, **other: str) -> str:
        return url("episodes", **kept | other, open=f"{listing.part[row]}/{listing.sample_N[row]}/{listing.item[row]}")

    found = {
        "count": len(listing),
        "found": len(rows),
        "parts": listing.part.counts(),
        "verdicts": listing.verdict.counts(),
        "wanted": wanted,
        "kept": kept,
        "page": page,
        "pages": pages,
        "rows": [_listed(there, one, link(one), one == row) for one in on_page],
        "chosen": chosen is not None,
        "opened": None,
    }
    if row is None:
        return found
    place = int(rows.searchsorted(row))
    inside = place < len(rows) and rows[place] == row
    after = place + inside
    conversation = bool(listing.steps_N[row] > 1)
    prompts = bool(query.get("prompts")) or not conversation
    return found | {
        "opened": _opened(there, row, prompts, bool(query.get("full"))),
        "before": link(int(rows[place - 1])) if place > 0 else "",
        "after": link(int(rows[after])) if after < len(rows) else "",
        "place": place + 1 if inside else 0,
        "this": link(row),
        "prompts": prompts,
        "toggle": link(row, prompts="" if prompts else "1") if conversation else "",
    }


def page_of(query: Query, rows: int, size: int, default: int = 0) -> tuple[int, int]:
    """The page that is asked for, from 0 (in the query from 1), and how many there are."""
    pages = max(1, math.ceil(rows / size))
    text = query.get("page", "")
    wanted = int(text) - 1 if text.isascii() and text.isdigit() and len(text) < 10 else default
    return min(max(wanted, 0), pages - 1), pages


def _chosen(text: str, there: Episodes) -> int | None:
    """The row that a permalink names: PART/SAMPLE/ITEM."""
    part, _, rest = text.partition("/")
    sample, _, item = rest.partition("/")
    return there.listing.row(part, item, int(sample)) if sample.isascii() and sample.isdigit() and len(sample) < 10 else None


def _listed(there: Episodes, row: int, link: str, current: bool) -> dict[str, Any]:
    listing = there.listing
    return {
        "link": link,
        "current": current,
        "part": listing.part[row],
        "item": shown(listing.item[row]),
        "verdict": listing.verdict[row],
        "sample": int(listing.sample_N[row]),
        "reward": float(listing.reward_N[row]),
        "tokens": None if math.isnan(tokens := float(listing.tokens_N[row])) else int(tokens),
        "steps": int(listing.steps_N[row]),
        "advantage": float(listing.advantage_N[row]),
    }


def _opened(there: Episodes, row: int, prompts: bool, full: bool) -> dict[str, Any]:
    """An episode as the page shows it: texts made visible, and cut where they are very long."""
    try:
        found = there.episode(row, prompts)
    except (UserError, OSError, ValueError, KeyError) as error:
        return {"problem": shown(error)}
    cut = False

    def text(value: object) -> str:
        nonlocal cut
        whole = str(value or "")
        cut |= len(whole) > LONGEST and not full
        return shown(whole if full else whole[:LONGEST])

    steps = [
        {
            **{name: text(step.get(name)) for name in ("observation", "prompt", "response", "action")},
            "same": step.get("action") == step.get("response"),
            "reward": step.get("reward"),
            "advantage": step.get("advantage"),
            "truncated": step.get("truncated"),
            "valid": step.get("valid"),
        }
        for step in found.get("steps") or []
    ]
    head: dict[str, Any] = {
        name: value if isinstance(value, int | float) else text(value) for name, value in found.items() if name != "steps"
    }
    head["metrics"] = {text(name): value for name, value in dict(found.get("metrics") or {}).items()}
    return {"problem": "", "head": head, "steps": steps, "cut": cut}
