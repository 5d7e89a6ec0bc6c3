"""Who solved what: the items of a suite against the policies that were measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..agents.verdicts import CORRECT
from .episode_table import Version, open_episodes
from .leaderboard_records import Entry, Table
from .records import Decoding
from .samples import SAMPLES
from .statistics import FloatArray
from .store import Kind


class Order(StrEnum):
    """How items are sorted."""

    HARDEST = "hardest"
    """The least solved first; of equals the split's order."""
    EASIEST = "easiest"
    """The most solved first."""
    SPLIT = "split"
    """As they stand in the split."""


class Which(StrEnum):
    """Items that are listed."""

    ALL = "all"
    DISPUTED = "disputed"
    """Some policies solve them more often than others."""
    ONE = "one"
    """Just one policy ever solves them."""
    NONE = "none"
    """No policy ever solves them."""


@dataclass(frozen=True)
class Matrix:
    """Share of right samples of each item, by policy; the mean over training seeds."""

    policies: list[Entry]
    items: list[str]
    rate_PI: FloatArray

    def rows(self, which: Which, order: Order) -> list[int]:
        """Items that are listed, sorted."""
        solved_PI = self.rate_PI > 0
        chosen_I = {
            Which.ALL: np.ones(len(self.items), dtype=bool),
            Which.DISPUTED: np.ptp(self.rate_PI, axis=0) > 0,
            Which.ONE: solved_PI.sum(axis=0) == 1,
            Which.NONE: ~solved_PI.any(axis=0),
        }[which]
        rows = np.flatnonzero(chosen_I)
        if order is not Order.SPLIT:
            mean_I = self.rate_PI.mean(axis=0)[rows]
            rows = rows[np.argsort(mean_I if order is Order.HARDEST else -mean_I, kind="stable")]
        return rows.tolist()


def matrix(root: Path, table: Table, policies: Sequence[Entry], decoding: Decoding) -> Matrix:
    """The items of a table against these of its entries. Raises UserError where samples can not be read (any more)."""
    items: list[str] = []
    rates = []
    for entry in policies:
        found = [_rates(version, decoding) for name in entry.directories if (version := Version.of(root / name / SAMPLES))]
        items = items or list(found[0])
        rates.append(np.mean([[one.get(item, np.nan) for item in items] for one in found], axis=0))
    return Matrix(list(policies), items, np.nan_to_num(np.array(rates)))


@lru_cache(maxsize=512)
def _rates(version: Version, decoding: Decoding) -> dict[str, float]:
    """Share of right samples by item, in the split's order."""
    listing = open_episodes(version.path.parent, Kind.EVALUATION, None).listing
    rows = [listing.part.names.index(decoding.value)] if decoding.value in listing.part.names else []
    chosen_N = np.isin(listing.part.codes_N, rows)
    right_N = np.array([name == CORRECT for name in listing.verdict.names], dtype=float)[listing.verdict.codes_N]
    codes_N = listing.item.codes_N[chosen_N]
    counts = np.bincount(codes_N, minlength=len(listing.item.names))
    right = np.bincount(codes_N, weights=right_N[chosen_N], minlength=len(listing.item.names))
    first_seen = dict.fromkeys(codes_N.tolist())
    return {listing.item.names[code]: float(right[code] / counts[code]) for code in first_seen}
