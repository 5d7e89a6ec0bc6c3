"""The table of what policies solve at several limits of tokens, for the terminal and for a study's page."""

from __future__ import annotations

from collections.abc import Sequence

from ..evals.records import Decoding
from ..evals.replies import STATISTICS
from ..studies.limits import AtLimit
from .page import Cell, Table, difference_cell, rate_cell, share_cell

NOTE = (
    "The same samples at every limit: each reply is cut after so many tokens, which is what that limit would have sampled, and graded "
    "again. The gain is pass@1 minus that of base at the same limit. Its part by length is the gain minus the gain at the highest limit: "
    "above zero where the limit costs base more right replies than this policy, below zero where it costs this policy more."
)


def limits_tables(limits: Sequence[AtLimit], temperature: float) -> list[Table]:
    """A table for each decoding; none without lower limits."""
    names = {Decoding.SAMPLED: f"temperature {temperature:g}", Decoding.GREEDY: "greedy"}
    tables = [_table(limits, decoding, name) for decoding, name in names.items()] if limits else []
    for table in tables[-1:]:
        table.notes.append(NOTE)
    return tables


def _table(limits: Sequence[AtLimit], decoding: Decoding, name: str) -> Table:
    told = {key: STATISTICS[key] for key in ("mean_tokens", "truncated")}
    header = [Cell("policy"), Cell("limit", "tokens"), Cell("pass@1"), *(Cell(one.label) for one in told.values())]
    header += [Cell("gain"), Cell("by length", "part of the gain"), Cell("C(k)")]
    rows = []
    for at in range(len(limits[0].measured(decoding))):
        for limit in limits:
            arm = limit.measured(decoding)[at]
            replies = [Cell(one.text(getattr(arm, key))) for key, one in told.items()]
            by_length = arm.by_length if limit is not limits[-1] else None
            gains = [difference_cell(arm.to_base), difference_cell(by_length), share_cell(arm.contribution)]
            rows.append([Cell(arm.name), Cell(str(limit.max_tokens)), rate_cell(arm.pass_rate), *replies, *gains])
    return Table(f"Limits of tokens, {name}", header, rows)
