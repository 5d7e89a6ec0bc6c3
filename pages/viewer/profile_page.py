"""Contribution profiles: what each layer, trained alone, reaches; as charts with intervals, and as a heat map over tasks and algorithms."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ...evals.records import Decoding
from ...studies.leaderboard.marks import Mark as Verification
from ...studies.leaderboard.records import Entry, Leaderboard, LeaderboardTable, Standing
from ...studies.paper import published
from ..page import Cell, Table, difference_cell
from .charts import Axis, Chart, ChartLine, PlotMark, axis, polyline

LAYER = re.compile(r"layer:(\d{1,3})(\.\w+)?")
STEPS = 10
"""Tints on either side of nothing."""
MOST_ROOM = 1.0
"""How far above or below all points a plot reaches for the sake of wide intervals."""


class Measure(StrEnum):
    """What a profile shows of a layer."""

    CONTRIBUTION = "C(k)"
    """Share of the gain of full-parameter training."""
    GAIN = "gain"
    """pass@1 minus that of the base."""


@dataclass(frozen=True)
class LayerFigure:
    """One layer, trained alone."""

    layer: int
    entry: Entry
    point: float | None
    """None where it may not be shown as a figure."""
    interval: tuple[float, float] | None
    reason: str
    """Why there is no figure, or no interval."""


@dataclass(frozen=True)
class Profile:
    """The layers of one model under one training, measured on one suite."""

    id: str
    """Stable: permalinks name it."""
    model: str
    task: str
    """Suite that it was measured on."""
    training: str
    """Algorithm, and what else tells it from others."""
    is_published: bool
    weights: dict[str, float]
    """Of an average by split; empty: of one suite."""
    layers: int
    """Of the model."""
    layers_known: bool
    """False: as many as the highest layer that was trained tells."""
    figures: list[LayerFigure]
    interval_over: str
    base: Entry | None
    """None: not measured."""
    full: Entry | None
    """The full-parameter run of the same training; None: there is none, or several."""

    @property
    def has_items(self) -> bool:
        """Whether they are of one suite that is here: published figures have none, and an average those of several suites."""
        return not self.is_published and not self.weights

    @property
    def by_layer(self) -> dict[int, LayerFigure]:
        """Of several learning rates of a layer the lowest: the best would be chosen on the items shown."""
        return {figure.layer: figure for figure in reversed(self.figures)}

    @property
    def middle(self) -> tuple[float, float]:
        """The middle third of the stack, in layers: layer k reaches from k - 1/2 to k + 1/2."""
        return self.layers / 3 - 0.5, 2 * self.layers / 3 - 0.5

    def is_middle(self, layer: int) -> bool:
        return self.middle[0] <= layer <= self.middle[1]

    @property
    def name(self) -> str:
        return f"{self.training} on {self.task}"


def profiles(board: Leaderboard, decoding: Decoding, measure: Measure) -> list[Profile]:
    """A profile for each suite or average and each training with at least two layers trained alone; measured ones first, then averages."""
    groups: defaultdict[tuple[str, ...], list[tuple[int, Entry]]] = defaultdict(list)
    others: defaultdict[tuple[str, ...], list[Entry]] = defaultdict(list)
    weights = {table.digest: table.averaged for table in board.tables}
    for table in board.tables:
        for entry in table.entries:
            if not entry.standing(decoding):
                continue
            if found := LAYER.fullmatch(entry.trained_set):
                groups[_key(table, entry, (found[2] or "").removeprefix("."))].append((int(found[1]), entry))
            elif entry.trained_set in ("base", "full"):
                others[_key(table, entry, entry.trained_set)].append(entry)
    names = _names(groups)
    found = []
    for key, members in groups.items():
        if len({layer for layer, _ in members}) < 2:
            continue
        one = members[0][1]
        members.sort(key=lambda member: (member[0], member[1].lr or 0))
        found.append(
            Profile(
                id=hashlib.sha256(repr(key).encode()).hexdigest()[:12],
                model=one.model,
                task=key[1],
                training=", ".join(text for text in (names[key], one.apart) if text),
                is_published=one.mark is Verification.PUBLISHED,
                weights=weights[key[2]],
                layers=max(one.layers or 0, 1 + max(layer for layer, _ in members)),
                layers_known=one.layers is not None,
                figures=[_figure(layer, entry, decoding, measure) for layer, entry in members],
                interval_over=", ".join(sorted({entry.interval_over for _, entry in members if entry.interval_over})),
                base=_only(others[*key[:5], "", "", "", "base", key[9]]),
                full=_only(others[*key[:8], "full", key[9]]),
            )
        )
    # A published suite that the source prints no C of has nothing to show.
    found = [
        profile
        for profile in found
        if any(figure.point is not None or figure.interval for figure in profile.figures) or not profile.is_published
    ]
    return sorted(found, key=lambda one: (one.is_published, one.model, not one.weights, one.task, one.training, one.id))


def _key(table: LeaderboardTable, entry: Entry, part: str) -> tuple[str, ...]:
    """What the layers of a profile agree in: where they were measured, how they were trained, which part of them, under which protocol."""
    place = (table.domain, table.suite, table.digest, entry.model, entry.base)
    how = (entry.algorithm or "", entry.recipe or "", entry.trained_on or "")
    return (*place, *how, part, entry.protocol_sha256)


def _only(entries: Sequence[Entry]) -> Entry | None:
    return entries[0] if len(entries) == 1 else None


def _names(groups: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Algorithm; with recipe, training split and sub-layer where these differ among profiles of one model and suite."""
    names = {}
    keys = list(groups)
    for key in keys:
        alike = [other for other in keys if other[:5] == key[:5]]
        parts = [key[5]]
        for at, prefix in ((6, ""), (7, "trained on "), (8, "")):
            if key[at] and (len({other[at] for other in alike}) > 1 or at == 8):
                parts.append(prefix + key[at])
        names[key] = ", ".join(part for part in parts if part)
    return names


def _figure(layer: int, entry: Entry, decoding: Decoding, measure: Measure) -> LayerFigure:
    standing = entry.standing(decoding)
    assert standing is not None
    point, interval, reason = _contribution(standing) if measure is Measure.CONTRIBUTION else _gain(standing)
    return LayerFigure(layer, entry, point, interval, reason)


def _contribution(standing: Standing) -> tuple[float | None, tuple[float, float] | None, str]:
    share = standing.contribution
    if share is None:
        return None, None, _unlike(standing) or "no full-parameter run and base to compare with"
    if share.interval == "unbounded":
        return share.point, None, "unbounded: the gain of full-parameter training cannot be told from zero"
    reason = "" if share.interval else "published, without an interval"
    return share.point, share.interval, reason or ("not shown as a figure" if share.point is None else "")


def _unlike(standing: Standing) -> str:
    """Why base or full-parameter run are not compared with it."""
    others = {"base": standing.base_differs, "full-parameter run": standing.full_differs}
    return "; ".join(f"{other} measured with different {', '.join(names)}" for other, names in others.items() if names)


def _gain(standing: Standing) -> tuple[float | None, tuple[float, float] | None, str]:
    if standing.to_base is None:
        return None, None, _unlike(standing) or "no base to compare with"
    found = standing.to_base.difference
    return found.difference, (found.low, found.high), ""


def chart(profile: Profile, measure: Measure, link: Callable[[Entry], str]) -> Chart:
    """The profile over all layers of the model, the middle third shaded. link: where a point leads."""
    x = Axis(-0.5, profile.layers - 0.5, [], "layer")
    every = next(step for step in (1, 2, 4, 5, 10, 20) if profile.layers / step <= 10 or step == 20)
    x = Axis(x.low, x.high, [(str(layer), x.percent(layer)) for layer in range(0, profile.layers, every)], x.title)
    points = [figure.point for figure in profile.figures if figure.point is not None]
    ends = [end for figure in profile.figures if figure.interval for end in figure.interval]
    levels = {"full": 1.0, "base": 0.0} if measure is Measure.CONTRIBUTION else {"base": 0.0}
    seen = [*points, *levels.values()]
    bounded = [min(max(end, min(seen) - MOST_ROOM), max(seen) + MOST_ROOM) for end in ends]
    y = axis([*seen, *bounded], "share of full's gain, C(k)" if measure is Measure.CONTRIBUTION else "gain over base in pass@1")
    places = _side_by_side([figure.layer for figure in profile.figures])
    marks = [_mark(figure, place, x, y, link(figure.entry)) for figure, place in zip(profile.figures, places, strict=True)]
    alone = len(set(places)) == len({figure.layer for figure in profile.figures})
    line = polyline([(figure.layer, figure.point) for figure in profile.figures if figure.point is not None], x, y) if alone else ""
    low, high = profile.middle
    return Chart(
        title=profile.name,
        description=f"{measure.value} of each layer of {profile.model}; the figures are in the table",
        x=x,
        y=y,
        lines=[ChartLine("layer", 0, 0, line, True, marks)],
        levels=[(name, 100 - y.percent(level)) for name, level in levels.items()],
        band=(max(0.0, x.percent(low)), min(100.0, x.percent(high))),
        band_label="middle third",
    )


def _side_by_side(layers: Sequence[int]) -> list[float]:
    """Places of layers, several figures of one beside each other."""
    found = []
    for at, layer in enumerate(layers):
        same = layers.count(layer)
        found.append(layer + (layers[:at].count(layer) - (same - 1) / 2) * 0.5 / max(1, same - 1) * (same > 1))
    return found


def _mark(figure: LayerFigure, place: float, x: Axis, y: Axis, link: str) -> PlotMark:
    label = f"layer {figure.layer}: {_text(figure)}"
    low, high = figure.interval or (None, None)
    if figure.interval is None and figure.reason.startswith("unbounded"):
        low, high = y.low - 1, y.high + 1
    if low is None or high is None:
        return PlotMark(x.percent(place), None if figure.point is None else 100 - y.percent(figure.point), label, link=link)
    cut = low < y.low or high > y.high
    ends = (100 - y.percent(max(low, y.low)), 100 - y.percent(min(high, y.high)))
    return PlotMark(x.percent(place), None if figure.point is None else 100 - y.percent(figure.point), label, *ends, cut=cut, link=link)


def _text(figure: LayerFigure) -> str:
    interval = f" [{figure.interval[0]:.2f}, {figure.interval[1]:.2f}]" if figure.interval else ""
    point = "" if figure.point is None else f"{figure.point:.2f}"
    return f"{point}{interval}" + (f" ({figure.reason})" if figure.reason else "")


def table(profile: Profile, measure: Measure, decoding: Decoding, level: float) -> Table:
    """The figures of the chart."""
    rows = []
    for figure in profile.figures:
        standing = figure.entry.standing(decoding)
        assert standing is not None
        interval = f"[{figure.interval[0]:.2f}, {figure.interval[1]:.2f}]" if figure.interval else figure.reason.partition(":")[0]
        rate = Cell(f"{standing.pass_rate:.3f}", f"[{standing.interval[0]:.3f}, {standing.interval[1]:.3f}]" if standing.interval else "")
        lr = f"learning rate {figure.entry.lr:g}" if figure.entry.lr else ""
        seeds = Cell(", ".join(map(str, figure.entry.seeds)), lr)
        gain = difference_cell(standing.to_base.difference if standing.to_base else None)
        name = Cell(f"layer {figure.layer}", "middle third" if profile.is_middle(figure.layer) else "")
        share = [Cell("\u2013" if figure.point is None else f"{figure.point:.2f}", interval)] if measure is Measure.CONTRIBUTION else []
        rows.append([name, *share, rate, gain, seeds])
    over = f"{level:.0%} over {profile.interval_over}" if profile.interval_over else ""
    header = [Cell("layer"), *([Cell("C(k)", over)] if measure is Measure.CONTRIBUTION else [])]
    header += [Cell("pass@1", over), Cell("minus base", "paired"), Cell("seeds")]
    notes = (
        []
        if profile.layers_known
        else [f"How many layers {profile.model} has is not known here: the middle third is of those up to the highest trained."]
    )
    if profile.is_published:
        notes.append(f"Published figures ({published().source.arxiv}): single runs, no interval, only the layers that the source prints.")
    return Table(profile.name, header, rows, notes)


@dataclass(frozen=True)
class HeatCell:
    """A layer in the heat map."""

    figure: str
    label: str
    tint: str
    """Class of the style sheet: p1 to p10 above nothing, n1 to n10 below, z at nothing; empty where there is no figure."""


@dataclass(frozen=True)
class HeatMap:
    """The profiles of one model: a row each."""

    model: str
    layers: int
    is_published: bool
    rows: list[tuple[Profile, list[HeatCell | None]]]
    """None: this layer was not trained alone."""
    full_tint: float
    """Value of the strongest tint."""


def heat_maps(found: Sequence[Profile], measure: Measure) -> list[HeatMap]:
    """One for each model; rows are tasks and algorithms, columns layers."""
    by_model: defaultdict[tuple[bool, str, int], list[Profile]] = defaultdict(list)
    for profile in found:
        by_model[profile.is_published, profile.model, profile.layers].append(profile)
    points = [abs(figure.point) for profile in found for figure in profile.figures if figure.point is not None]
    strongest = 1.0 if measure is Measure.CONTRIBUTION else max(points, default=1.0) or 1.0
    return [
        HeatMap(model, layers, is_published, [(profile, _heat_row(profile, strongest)) for profile in members], strongest)
        for (is_published, model, layers), members in by_model.items()
    ]


def _heat_row(profile: Profile, strongest: float) -> list[HeatCell | None]:
    there = profile.by_layer
    return [_heat_cell(there[layer], strongest) if layer in there else None for layer in range(profile.layers)]


def _heat_cell(figure: LayerFigure, strongest: float) -> HeatCell:
    label = f"layer {figure.layer}: {_text(figure)}"
    if figure.point is None:
        return HeatCell("?", label, "")
    step = min(STEPS, round(abs(figure.point) / strongest * STEPS))
    sign = "" if figure.point >= 0 else "\u2212"
    figures = f"{abs(figure.point):.2f}"
    return HeatCell(sign + figures.removeprefix("0"), label, "z" if step == 0 else f"{'p' if figure.point > 0 else 'n'}{step}")
