"""The one place where runs are pooled over training seeds, items are paired, and p values are corrected.

A study's report, the comparison, the leaderboard and the viewer's curves are views of what this module computes, so the same runs have the
same figures on all of them. Rates stand in arrays: T tasks, R training seeds, I items.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..evals.statistics import Difference, FloatArray, Rate, holm, mean_difference, mean_pass_rate
from .contribution import Contribution, contribution_over_tasks

One = TypeVar("One")


def pooled(
    found: Iterable[One],
    policy: Callable[[One], Hashable],
    seed: Callable[[One], Hashable],
    patch: Callable[[One], Hashable] = lambda one: None,
) -> list[dict[Hashable, list[One]]]:
    """Policies, each with what there is of every training seed: runs that agree in `policy` and differ in `seed` alone are one.

    A seed that was trained again is a policy of its own, since it tells nothing of other seeds, unless it ended in the same weights.
    patch: names these weights, null where they are not known.
    """
    by_policy: defaultdict[Hashable, list[dict[Hashable, list[One]]]] = defaultdict(list)
    order = []
    for one in found:
        pools = by_policy[policy(one)]
        for pool in pools:
            there = pool.setdefault(seed(one), [])
            if not there or (patch(one) is not None and patch(one) == patch(there[0])):
                there.append(one)
                break
        else:
            pools.append({seed(one): [one]})
            order.append(pools[-1])
    return order


@dataclass(frozen=True)
class SeedRates:
    """What one policy solves: its item rates under one decoding."""

    by_seed: Mapping[int, Sequence[FloatArray]]
    """For each training seed the rates (I,) on each task, in the order of the tasks."""
    is_trained: bool
    """False: no training seed is known, as for a base; it is paired with every seed of another policy."""

    def rates(self, seeds: Iterable[int] | None = None) -> list[FloatArray]:
        """For each task (R, I), of these seeds (null: all), in order."""
        by_seed = [self.by_seed[seed] for seed in (sorted(self.by_seed) if seeds is None else seeds)]
        return [np.stack(rate_RI) for rate_RI in zip(*by_seed, strict=True)]

    @property
    def pass_rate(self) -> Rate:
        return mean_pass_rate(self.rates())

    @property
    def means(self) -> list[float]:
        """Pass rate of each training seed, in order."""
        return np.mean([rate_RI.mean(axis=1) for rate_RI in self.rates()], axis=0).tolist()


@dataclass(frozen=True)
class Paired:
    """One policy minus another on the same items."""

    difference: Difference
    seeds: int
    """Training seeds of each that it is over; with one its interval is over items only."""


def pair(a: SeedRates, b: SeedRates) -> tuple[list[FloatArray], list[FloatArray]]:
    """Rates of both for each task, (R, I) each with the same R, or one of them (1, I).

    Rows are paired by the training seeds that both have. Without a common seed they are paired in order: they are independent then, and
    any pairing gives an honest spread.
    """
    if not (a.is_trained and b.is_trained):
        return a.rates(), b.rates()
    common = sorted(a.by_seed.keys() & b.by_seed.keys())
    pairs = list(zip(common, common, strict=True)) or list(zip(sorted(a.by_seed), sorted(b.by_seed), strict=False))
    return a.rates(seed for seed, _ in pairs), b.rates(seed for _, seed in pairs)


def minus(a: SeedRates, b: SeedRates) -> Paired:
    """a minus b, the mean over tasks; t interval and paired t test."""
    gaps = [a_RI - b_RI for a_RI, b_RI in zip(*pair(a, b), strict=True)]
    return Paired(mean_difference(gaps), len(gaps[0]))


def contribution_of(base: SeedRates, full: SeedRates, layer: SeedRates, draws: int = 4000) -> Contribution:
    """C(k) of a trained set, over the seeds that it is paired with full in. draws: of the bootstrap interval beside Fieller's."""
    layer_TRI, full_TRI = pair(layer, full)
    return contribution_over_tasks([rate_RI[0] for rate_RI in base.rates()], full_TRI, layer_TRI, draws=draws)


def corrected(found: Sequence[tuple[Hashable, float] | None]) -> list[float | None]:
    """p values corrected for several comparisons (Holm). Each stands with the policy that is subtracted in it: the differences to one and
    the same policy are a family."""
    families: defaultdict[Hashable, list[int]] = defaultdict(list)
    for at, one in enumerate(found):
        if one:
            families[one[0]].append(at)
    result: list[float | None] = [None] * len(found)
    for family in families.values():
        for at, p in zip(family, holm([one[1] for place in family if (one := found[place])]), strict=True):
            result[at] = p
    return result
