"""What policies solve at several limits of tokens, from the same samples (evals/cutting.py), and how much of a gain is shorter replies.

A policy whose replies are shorter than the base's gains at a low limit in two ways: its replies are better, and fewer of them are cut off.
The first is its gain at the highest limit, where hardly a reply is cut; the second is the rest of its gain at the lower limit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ..envs.config import EnvConfig
from ..evals.cutting import is_cut, limits_of
from ..evals.protocol import protocol
from ..evals.records import LIMITS, Decoding, Evaluation, Recorded, read_evaluation
from ..evals.statistics import Difference
from .contribution import Contribution
from .figures import PolicyFigures, policy_figures
from .pairing import SeedRates, contribution_of, minus

MOST_CUT = 0.02
"""Share of its replies that a policy of a study may lose to the limit of tokens: above it, part of a difference may be shorter replies."""


def length_warning(share: float | None, max_tokens: int) -> str | None:
    """What is wrong, and what to do, where more than `MOST_CUT` of a policy's replies were cut off; else None."""
    if share is None or share <= MOST_CUT:
        return None
    return (
        f"{share:.1%} of the replies were cut off at {max_tokens} tokens, more than {MOST_CUT:.0%}, so part of a difference to other "
        "policies may be that replies are shorter or longer; raise eval.max_tokens"
    )


def is_one_turn(env: EnvConfig) -> bool:
    """Whether all episodes have one turn; False where an environment does not tell."""
    return getattr(env, "turns", None) == 1


class ArmAtLimit(PolicyFigures):
    """A policy at one limit under one decoding."""

    name: str = Field(description="base, full or another trained set")
    to_base: Difference | None = Field(description="its gain at this limit: minus base at the same limit, paired; null for base")
    by_length: Difference | None = Field(
        description="the part of the gain that comes of shorter replies: to_base minus to_base at the highest limit, paired by item"
    )
    contribution: Contribution | None = Field(description="C(k) at this limit; null for base and full")


class AtLimit(BaseModel):
    """All policies at one limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: int = Field(ge=1, description="most tokens of a reply")
    sampled: list[ArmAtLimit]
    greedy: list[ArmAtLimit]

    def measured(self, decoding: Decoding) -> list[ArmAtLimit]:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


@dataclass(frozen=True)
class ArmLimits:
    """The evaluations of one policy: for each limit one of each training seed; the highest limit is the one that was sampled."""

    evaluations: Mapping[int, Sequence[Recorded]]
    seeds: Sequence[int] | None
    """Training seeds, in the order of the evaluations; null for base."""

    def rates(self, limit: int, decoding: Decoding, over: int | None = None) -> SeedRates:
        """Of the items at a limit; over: minus those at this limit."""
        found = [one.outcomes(decoding).rate_I for one in self.evaluations[limit]]
        if over is not None:
            found = [rate_I - one.outcomes(decoding).rate_I for rate_I, one in zip(found, self.evaluations[over], strict=True)]
        return SeedRates({seed: [rate_I] for seed, rate_I in zip(self.seeds or [0], found, strict=True)}, self.seeds is not None)


def at_limits(arms: Mapping[str, ArmLimits]) -> list[AtLimit]:
    """The limits that the first policy has, the lowest first, of all policies that have them, too; none where there is but one limit.
    Without `base` no gains are told, without `full` no C(k)."""
    shared = sorted(next(iter(arms.values())).evaluations)
    if len(shared) < 2:
        return []
    arms = {name: arm for name, arm in arms.items() if set(shared) <= set(arm.evaluations)}
    by_decoding = {decoding: [_at(arms, limit, shared[-1], decoding) for limit in shared] for decoding in Decoding}
    rows = zip(shared, by_decoding[Decoding.SAMPLED], by_decoding[Decoding.GREEDY], strict=True)
    return [AtLimit(max_tokens=limit, sampled=sampled, greedy=greedy) for limit, sampled, greedy in rows]


def _at(arms: Mapping[str, ArmLimits], limit: int, highest: int, decoding: Decoding) -> list[ArmAtLimit]:
    base, full = arms.get("base"), arms.get("full")
    found = []
    for name, arm in arms.items():
        rates, gain, by_length, share = arm.rates(limit, decoding), None, None, None
        if base and arm is not base:
            gain = minus(rates, base.rates(limit, decoding)).difference
            by_length = minus(arm.rates(limit, decoding, highest), base.rates(limit, decoding, highest)).difference
        if base and full and arm not in (base, full):
            share = contribution_of(base.rates(limit, decoding), full.rates(limit, decoding), rates)
        scores = [one.manifest.scores(decoding) for one in arm.evaluations[limit]]
        found.append(ArmAtLimit(name=name, **policy_figures(rates, scores), to_base=gain, by_length=by_length, contribution=share))
    return found


def recorded_at_limits(directory: Path) -> dict[int, Recorded]:
    """An evaluation at all limits at which it has been cut, and at its own."""
    own = read_evaluation(directory)
    there = [limit for limit in limits_of(directory) if is_cut(directory, limit, own.manifest)]
    return {limit: read_evaluation(directory / LIMITS / str(limit)) for limit in there} | {own.manifest.max_tokens: own}


def limits_of_runs(directories: Sequence[Path]) -> dict[int, list[Recorded]]:
    """The evaluations of one policy, one for each training seed, at the limits that all of them have."""
    by_seed = [recorded_at_limits(directory) for directory in directories]
    shared = sorted(set[int].intersection(*map(set, by_seed)))
    return {limit: [one[limit] for one in by_seed] for limit in shared}


class MeasuredAlike(BaseModel):
    """Evaluations of one base's policies on the same items in the same way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    split: str
    items: int
    temperature: float
    limits: list[AtLimit]


def measured_alike(found: Mapping[Path, Evaluation]) -> list[MeasuredAlike]:
    """The figures of evaluations, with their directories. Policies that differ in their training seed alone are one."""
    groups: defaultdict[tuple[str, ...], dict[str, dict[int, Path]]] = defaultdict(lambda: defaultdict(dict))
    for place, manifest in found.items():
        group = groups[manifest.split, manifest.digest, manifest.base, protocol(manifest).hash]
        seed = manifest.trained[0].seed if manifest.trained and manifest.trained[0] else 0
        group[manifest.policy if seed not in group[manifest.policy] else f"{manifest.policy} ({place})"][seed] = place
    result = []
    for group in groups.values():
        arms = {}
        for name, places in group.items():
            is_trained = bool(found[next(iter(places.values()))].patches)
            arms[name] = ArmLimits(limits_of_runs([*places.values()]), [*places] if is_trained else None)
        one = found[next(iter(next(iter(group.values())).values()))]
        result.append(MeasuredAlike(model=one.model, split=one.split, items=one.items, temperature=one.temperature, limits=at_limits(arms)))
    return result
