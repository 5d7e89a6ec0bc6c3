"""Who solved what: the items of a suite against the policies that were measured on them, and what these do together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...agents.verdicts import CORRECT
from ...common.errors import UserError
from ...evals.records import Decoding, read_evaluation
from ...evals.samples import SAMPLES
from ...evals.statistics import FloatArray, Rate
from ...studies.leaderboard.records import Entry, LeaderboardTable
from ...studies.profiles import compare_votes, jaccard
from ...studies.store import DirectoryKind
from ..page import difference_cell
from .episode_table import EpisodeFilter, Version, open_episodes
from .profile_page import LAYER

MOST_VOTED = 500_000
"""Samples whose answers are read for a vote."""


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


def matrix(root: Path, table: LeaderboardTable, policies: Sequence[Entry], decoding: Decoding) -> Matrix:
    """The items of a table against these of its entries. Raises UserError where samples cannot be read (any more)."""
    items: list[str] = []
    rates = []
    for entry in policies:
        found = [_solved(root / name, decoding) for name in entry.directories]
        items = items or found[0][0]
        if any(names != items for names, _ in found):
            raise UserError(f"{table.suite}: its evaluations are no longer of the same items")
        rates.append(np.mean([solved_IS.mean(axis=1) for _, solved_IS in found], axis=0))
    return Matrix(list(policies), items, np.array(rates))


def voters(policies: Sequence[Entry]) -> list[Entry]:
    """The single-layer policies, of one base and protocol: those that most of them have."""
    layers = [entry for entry in policies if LAYER.fullmatch(entry.trained_set)]
    alike = [[entry for entry in layers if _alike(entry, one)] for one in layers]
    return max(alike, key=len, default=[])


def reference(policies: Sequence[Entry], everybody: Sequence[Entry]) -> Entry:
    """Whom policies are held against: full-parameter training of their base, by the same algorithm if there is, else the first of them."""
    fulls = [entry for entry in everybody if entry.trained_set == "full" and _alike(entry, policies[0])]
    return max(fulls, key=lambda entry: entry.algorithm == policies[0].algorithm, default=policies[0])


def _alike(entry: Entry, other: Entry) -> bool:
    return (entry.base, entry.protocol_sha256) == (other.base, other.protocol_sha256)


def overlap_text(root: Path, policies: Sequence[Entry], single: Entry, name: str, decoding: Decoding) -> str:
    """How far the policies solve the same items, and how far replies of a single one do, called `name`; in a sentence.

    Raises UserError where samples cannot be read (any more); it and ValueError where there is nothing to measure.
    """
    apart = len(policies)
    policies = [entry for entry in policies if entry.protocol_sha256 == single.protocol_sha256]
    apart -= len(policies)
    left_out = f" Left out: {apart}, measured under another protocol than {name}." if apart else ""
    if len(policies) < 2:
        raise UserError(f"it takes two policies of one protocol.{left_out}")
    found = jaccard([_solved(root / entry.directories[0], decoding)[1][:, 0] for entry in policies])
    replies_SI = _solved(root / single.directories[0], decoding)[1].T[: len(policies)]
    same = jaccard(replies_SI) if len(replies_SI) > 1 else None
    chance = f"{len(replies_SI)} replies of {name}, which differ by chance: {_interval(same)}. " if same else ""
    return (
        f"{_interval(found)}, the mean Jaccard index over all pairs of {len(policies)} policies: of the items "
        f"that either solves, the share that both solve. {chance}95% over items; of each policy the first reply of its first run.{left_out}"
    )


def vote_text(root: Path, policies: Sequence[Entry], single: Entry, name: str, decoding: Decoding) -> str:
    """A majority vote over policies against self-consistency of a single one, called `name`, in a sentence. Raises as `overlap_text`."""
    if decoding is not Decoding.SAMPLED:
        raise UserError("votes are over sampled replies")
    votes, there = len(policies), single.samples or 0
    if votes < 2:
        raise UserError("it takes two single-layer policies")
    if there < votes:
        raise UserError(
            f"a reply of each of {votes} policies stands against {votes} replies of {name}, which has {there}; name fewer policies"
        )
    directories = [root / entry.directories[0] for entry in (*policies, single)]
    if sum(_solved(directory, decoding)[1].size for directory in directories) > MOST_VOTED:
        raise UserError(f"more than {MOST_VOTED:,} answers would have to be read; name fewer policies")
    *first, last = (read_evaluation(directory).sampled for directory in directories)
    found = compare_votes(first, last)
    ours, theirs = _interval(found.policies), _interval(found.single)
    difference = difference_cell(found.difference)
    apart = f"{difference.figure} {difference.detail}".replace("\n", ", ")
    return (
        f"{ours} of the items solved by the majority of one reply of each of {votes} single-layer policies, {theirs} by that of "
        f"{votes} replies of {name} (maj@{votes}). The difference is {apart}. 95% over items, paired; the first run of each."
    )


def _interval(rate: Rate) -> str:
    return f"{rate.mean:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def _solved(directory: Path, decoding: Decoding) -> tuple[list[str], NDArray[np.bool_]]:
    """Items in the split's order, and which of their samples are right, (I, S)."""
    if (version := Version.of(directory / SAMPLES)) is None:
        raise UserError(f"{directory / SAMPLES}: is gone")
    return _read_solved(version, decoding)


@lru_cache(maxsize=512)
def _read_solved(samples: Version, decoding: Decoding) -> tuple[list[str], NDArray[np.bool_]]:
    listing = open_episodes(samples.path.parent, DirectoryKind.EVALUATION, None).listing
    rows = listing.find(EpisodeFilter(part=decoding.value))
    items = [listing.item.names[code] for code in dict.fromkeys(listing.item.codes_N[rows].tolist())]
    is_right = np.array([name == CORRECT for name in listing.verdict.names])
    return items, is_right[listing.verdict.codes_N[rows]].reshape(len(items), -1)
