"""The leaderboard: what a directory of runs holds, as one table for each suite and each average, with intervals and shared ranks.

An entry is a policy on a suite; runs that differ in their seed alone are one entry. Differences and C(k) are taken only between
measurements of the same items under the same protocol (protocol.py). docs/leaderboard.md says how a table is to be read.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from ...common.text import printable
from ...envs.environment import Environment
from ...envs.items import size_text
from ...evals.protocol import Settings as ProtocolSettings
from ...evals.protocol import labels
from ...evals.records import Decoding, Evaluation, Trained, TrainedElsewhere
from ..pairing import Paired, contribution_of, corrected, minus
from ..paper import published
from .algorithms import algorithm_differences
from .marks import Mark
from .measured import MeasuredPolicy, TableRow, averaged, collect, policies_of
from .published import published_averages, published_tables
from .records import Entry, Leaderboard, LeaderboardTable, LeftOut, PairedDifference, Share, Standing, TrainingCost

SHOWN = ("temperature", "max_tokens", "prompt", "seed")
"""What an opened entry tells of its protocol besides the keys of its recipe, where all its evaluations agree in it."""
ELSEWHERE = "trained elsewhere"
"""What stands in the place of an algorithm that is not known here."""
DRAWS = 1  # of the bootstrap beside Fieller's set, which the leaderboard does not show


def build(root: Path) -> Leaderboard:
    """The leaderboard of a directory of runs. What is broken in it is named and left out.

    Raises UserError where `root` is no directory that can be read.
    """
    found, averages, broken = collect(root)
    by_table: defaultdict[tuple[object, ...], list[TableRow]] = defaultdict(list)
    for one in [*(TableRow((one,)) for one in found), *averaged(found, [*averages, *published_averages()])]:
        by_table[one.table].append(one)
    source = published().source
    return Leaderboard(
        published=f"{source.authors}: {source.title}. arXiv:{source.arxiv} ({source.date})",
        tables=_with_published([_table(rows) for rows in by_table.values()]),
        left_out=[
            LeftOut(directory=printable(str(directory.relative_to(root))), problem=printable(problem.replace(f"{root}/", "")))
            for directory, problem in sorted(broken.items())
        ],
    )


def _table(rows: Sequence[TableRow]) -> LeaderboardTable:
    """All entries on the same items."""
    found = policies_of(rows)
    bases = [policy for policy in found if policy.is_base]
    fulls = [policy for policy in found if policy.is_full]
    standings: dict[tuple[int, Decoding], Standing] = {}
    for decoding in Decoding:
        measured = [(at, policy) for at, policy in enumerate(found) if policy.has(decoding)]
        drafts = [_StandingDraft(policy, decoding, policy.base_of(bases), *policy.full_of(fulls, decoding)) for _, policy in measured]
        standings |= {(at, decoding): one for (at, _), one in zip(measured, _standings(drafts), strict=True)}
    entries = [
        _entry(policy, apart, *(standings.get((at, decoding)) for decoding in Decoding))
        for at, (policy, apart) in enumerate(zip(found, _apart(found), strict=True))
    ]
    parts, average = [part.manifest for part in rows[0].parts], rows[0].average
    digests = [f"{average.weights[part.split]} {part.digest}" for part in parts] if average else []
    return LeaderboardTable(
        domain=printable(average.name if average else _domain(parts[0])),
        suite=printable(average.text if average else parts[0].split),
        averaged={printable(split): weight for split, weight in average.weights.items()} if average else {},
        items=sum(part.items for part in parts),
        size=size_text(sum(part.items for part in parts), sum(len(part.skipped) for part in parts)),
        digest=hashlib.sha256("\n".join([average.text, *digests]).encode()).hexdigest() if average else parts[0].digest,
        entries=_by_score(_distinct(entries)),
        algorithms=algorithm_differences(found),
    )


def _domain(seen: Evaluation) -> str:
    """Of an environment that is not built in its own name, which its split begins with."""
    return seen.split.rpartition("/")[0] or seen.split if seen.domain == Environment.DOMAIN else seen.domain


class _StandingDraft:
    """The figures of an entry under one decoding, before they are compared with those of others."""

    def __init__(
        self, policy: MeasuredPolicy, decoding: Decoding, base: MeasuredPolicy | None, full: MeasuredPolicy | None, full_differs: list[str]
    ):
        self.policy, self.decoding, self.protocol = policy, decoding, policy.one.protocol(decoding)
        self.rates = policy.rates(decoding)
        self.rate = self.rates.pass_rate
        self.base, self.full = None, full if full and full.has(decoding) else None
        self.base_differs = base.one.differing(policy.one, decoding) if base else []
        self.full_differs = full_differs
        if base and not self.base_differs and base.has(decoding):
            self.base = base
        self.to_base, self.to_full = (other and minus(self.rates, other.rates(decoding)) for other in (self.base, self.full))
        self.share: Share | None = None
        if self.base and self.full:
            found = contribution_of(self.base.rates(decoding), self.full.rates(decoding), self.rates, draws=DRAWS)
            self.share = Share(point=found.point, interval=found.fieller)

    def is_like(self, other: _StandingDraft) -> bool:
        """Whether the two were measured in the same way, as far as it bears on both."""
        return not self.policy.one.differing(other.policy.one, self.decoding)


def _standings(drafts: Sequence[_StandingDraft]) -> list[Standing]:
    """With ranks, and p values corrected."""
    to_base = _corrected([(draft.base, draft.to_base) for draft in drafts])
    to_full = _corrected([(draft.full, draft.to_full) for draft in drafts])
    return [
        Standing(
            rank=rank,
            pass_rate=draft.rate.mean,
            interval=(draft.rate.low, draft.rate.high),
            by_seed=draft.rates.means,
            to_base=base,
            to_full=full,
            base_differs=draft.base_differs,
            full_differs=draft.full_differs,
            contribution=draft.share,
            replies=draft.policy.replies(draft.decoding),
        )
        for draft, rank, base, full in zip(drafts, _ranks(drafts), to_base, to_full, strict=True)
    ]


def _ranks(drafts: Sequence[_StandingDraft]) -> list[int]:
    """Of each among those that it may be compared with."""
    by_protocol: defaultdict[str, list[int]] = defaultdict(list)
    for at, draft in enumerate(drafts):
        by_protocol[draft.protocol].append(at)
    found: dict[int, int] = {}
    for protocol, members in by_protocol.items():
        alike = [
            at for other, rest in by_protocol.items() if other != protocol and drafts[members[0]].is_like(drafts[rest[0]]) for at in rest
        ]
        rates = [drafts[at].rate for at in (*members, *alike)]
        found |= dict(zip(members, ranks([(rate.low, rate.high) for rate in rates]), strict=False))
    return [found[at] for at in range(len(drafts))]


def ranks(intervals: Sequence[tuple[float, float]]) -> list[int]:
    """1 + how many intervals lie wholly above: entries that the intervals cannot tell apart from the best share rank 1."""
    lows, highs = np.sort([low for low, _ in intervals]), [high for _, high in intervals]
    return (1 + len(lows) - np.searchsorted(lows, highs, side="right")).tolist()


def _corrected(found: Sequence[tuple[MeasuredPolicy | None, Paired | None]]) -> list[PairedDifference | None]:
    """Differences to another entry, each with the entry, and with p values corrected."""
    p_holm = corrected([(id(other), one.difference.p) if one else None for other, one in found])
    return [
        None if one is None or p is None else PairedDifference(difference=one.difference, p_holm=p, seeds=one.seeds)
        for (_, one), p in zip(found, p_holm, strict=True)
    ]


def _apart(found: Sequence[MeasuredPolicy]) -> list[str]:
    """What sets the protocol of each apart from those of others of its table."""
    parts = zip(*(policy.one.parts for policy in found), strict=True)
    by_part = [labels([one.protocols[Decoding.SAMPLED].levels for one in members]) for members in parts]
    return [", ".join(dict.fromkeys(filter(None, texts))) for texts in zip(*by_part, strict=True)]


def _entry(policy: MeasuredPolicy, apart: str, sampled: Standing | None, greedy: Standing | None) -> Entry:
    one, rows = policy.one, list(policy.by_seed.values())
    parts = [part for row in rows for part in row.parts]
    seen, trained = one.manifest, [row.trained for row in rows if row.trained]
    elsewhere = [patch for patch in seen.elsewhere if patch]
    known = [patch for patch in (*seen.trained, *elsewhere) if patch]
    settings = [_shown(part.manifest, part.protocols[Decoding.SAMPLED].settings) for part in parts]
    whole = len(known) == len(seen.patches)
    first = next((patch for patch in seen.trained if patch), None)
    return Entry(
        id=hashlib.sha256(one.identity.encode()).hexdigest()[:12],
        mark=min((part.mark for part in parts), key=list(Mark)[::-1].index),
        model=printable(_model_name(seen.model)),
        base=printable(seen.base),
        layers=seen.layers,
        source=seen.source,
        trained_set=printable(seen.policy) + (", rates by layer" if one.has_rates_by_layer else ""),
        algorithm=ELSEWHERE if elsewhere else first and printable(first.algorithm),
        recipe=first and printable(first.recipe),
        lr=first.lr if first and len(known) == 1 else None,
        elsewhere=[_printable(patch) for patch in elsewhere],
        trained_on=first and printable(first.split),
        seeds=sorted(policy.by_seed) if trained else [],
        runs=len(rows),
        samples=min(row.samples for row in rows),
        interval_over="seeds and items" if len(rows) > 1 else "items",
        parameters=sum(patch.parameters for patch in known) if known and whole else None,
        total_parameters=known[0].total_parameters if known else None,
        spent=_spent(trained) if trained else None,
        apart=printable(apart),
        protocol={key: value for key, value in settings[0].items() if all(key in one and one[key] == value for one in settings)},
        protocol_sha256=one.protocol(Decoding.SAMPLED),
        directories=sorted(printable(part.directory) for part in parts),
        sampled=sampled,
        greedy=greedy,
    )


def _printable(patch: TrainedElsewhere) -> TrainedElsewhere:
    texts = ("model", "note", "trained_set")
    return patch.model_copy(update={name: printable(getattr(patch, name)) for name in texts})


def _shown(seen: Evaluation, settings: ProtocolSettings) -> dict[str, JsonValue]:
    return {key: getattr(seen, key) for key in SHOWN} | {key: value for key, value in settings.items() if "." in key}


def _spent(trained: Sequence[Trained]) -> TrainingCost:
    costs = [one.cost for one in trained]
    gpu = [cost.gpu_seconds for cost in costs if cost.gpu_seconds is not None]
    gpu_memory = [cost.peak_gpu_memory for cost in costs if cost.peak_gpu_memory is not None]
    return TrainingCost(
        seconds=float(np.mean([cost.seconds for cost in costs])),
        cpu_seconds=float(np.mean([cost.cpu_seconds for cost in costs])),
        gpu_seconds=float(np.mean(gpu)) if len(gpu) == len(costs) else None,
        flops=float(np.mean([cost.flops for cost in costs])),
        tokens=float(np.mean([cost.tokens for cost in costs])),
        peak_memory=max(cost.peak_memory for cost in costs),
        peak_gpu_memory=max(gpu_memory, default=None),
    )


def _model_name(path: str) -> str:
    """A model as a page may name it: of a directory only its last part, which tells nothing of the machine."""
    return Path(path).name if path.startswith(("/", ".", "~")) else path


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Ids made unique: a repeated run has the identity of the first."""
    seen: defaultdict[str, int] = defaultdict(int)
    found = []
    for entry in entries:
        seen[entry.id] += 1
        found.append(entry if seen[entry.id] == 1 else entry.model_copy(update={"id": f"{entry.id}-{seen[entry.id]}"}))
    return found


def _by_score(entries: Sequence[Entry]) -> list[Entry]:
    def score(entry: Entry) -> float:
        standing = entry.sampled or entry.greedy
        return standing.pass_rate if standing else 0.0

    return sorted(entries, key=lambda entry: (-score(entry), entry.id))


def _with_published(tables: Sequence[LeaderboardTable]) -> list[LeaderboardTable]:
    """Published figures as entries: in the table of the suite with the most items, where there is one, else in one of their own."""
    found = list(tables)
    for (domain, suite), rows in published_tables().items():
        sizes = {at: table.items or 0 for at, table in enumerate(found) if (table.domain, table.suite) == (domain, suite)}
        if sizes:
            at = max(sizes, key=sizes.__getitem__)
            found[at] = found[at].model_copy(update={"entries": _by_score([*found[at].entries, *rows])})
        else:
            found.append(LeaderboardTable(domain=domain, suite=suite, items=None, digest="", entries=_by_score(rows)))
    return sorted(found, key=lambda table: (table.items is None, table.domain, table.suite, -(table.items or 0), table.digest))
