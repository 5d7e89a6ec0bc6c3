"""Algorithms compared with each other: policies of one trained set that were trained alike but for the algorithm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from ...common.text import printable
from ...evals.records import Decoding
from ..pairing import corrected, minus
from .measured import MeasuredPolicy, TableRow
from .records import AlgorithmDifference, PairedDifference

SAMPLES = ("trainer.steps", "trainer.prompts_per_step", "trainer.group_size")
"""Of the keys of `trainer`, those that must agree: how much is sampled. The others are the algorithm's own."""


def algorithm_differences(policies: Sequence[MeasuredPolicy]) -> list[AlgorithmDifference]:
    """Each two policies, the later in the alphabet minus the earlier, with p values corrected over all of them (Holm).

    Both were trained on the same items of the same environment with as many samples, and measured in the same way. Where several policies
    of one algorithm were (other rates), none of them is compared: there is no telling which.
    """
    groups: defaultdict[str, dict[str, list[MeasuredPolicy]]] = defaultdict(lambda: defaultdict(list))
    for policy in policies:
        if trained := policy.one.trained:
            groups[_alike(policy.one)][trained.algorithm].append(policy)
    pairs = [
        ((later, found[later][0]), (earlier, found[earlier][0]))
        for found in groups.values()
        for earlier, later in combinations(sorted(name for name, members in found.items() if len(members) == 1), 2)
    ]
    by_decoding = {decoding: _differences([(a, b) for (_, a), (_, b) in pairs], decoding) for decoding in Decoding}
    return [
        AlgorithmDifference(
            model=printable(later.one.manifest.model),
            trained_set=printable(later.one.manifest.policy),
            algorithm=printable(name),
            minus=printable(other),
            sampled=sampled,
            greedy=greedy,
        )
        for ((name, later), (other, _)), sampled, greedy in zip(pairs, *by_decoding.values(), strict=True)
        if sampled or greedy
    ]


def _alike(one: TableRow) -> str:
    """What the training and the measuring of two policies must agree in, so that they are compared."""
    assert one.trained
    training = {key: value for key, value in one.settings.items() if not key.startswith("trainer.") or key in SAMPLES}
    rates = {key: value for key, value in one.settings.items() if key.startswith("trainer.lr_by_layer")}
    return repr((one.base, one.manifest.policy, one.trained.split_digest, sorted(training.items()), sorted(rates.items())))


def _differences(pairs: Sequence[tuple[MeasuredPolicy, MeasuredPolicy]], decoding: Decoding) -> list[PairedDifference | None]:
    found = [
        minus(a.rates(decoding), b.rates(decoding))
        if a.has(decoding) and b.has(decoding) and not a.one.differing(b.one, decoding)
        else None
        for a, b in pairs
    ]
    p_holm = corrected([("algorithms", one.difference.p) if one else None for one in found])
    return [
        None if one is None or p is None else PairedDifference(difference=one.difference, p_holm=p, seeds=one.seeds)
        for one, p in zip(found, p_holm, strict=True)
    ]
