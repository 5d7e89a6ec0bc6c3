"""Charts as numbers for templates that draw inline SVG: places in percent of the plot, so that a chart has the width of its page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COLORS, DASHES = 6, 4
"""Looks that the style sheet has for lines; both come round, so that 12 lines differ."""
TICKS = 5
"""Steps of an axis, about."""
MOST_POINTS = 600
"""Of a line: more cannot be told apart on a screen."""


@dataclass(frozen=True)
class Axis:
    """A range of values, and where along it ticks stand."""

    low: float
    high: float
    ticks: list[tuple[str, float]]
    """Label, and place in percent."""
    title: str = ""

    def percent(self, value: float) -> float:
        """Place of a value, from 0 to 100 where it is within."""
        return round(100 * (value - self.low) / (self.high - self.low), 3)


@dataclass(frozen=True)
class PlotMark:
    """A point, with its interval where it has one. Places in percent, y from the top."""

    x: float
    y: float | None
    label: str
    """What it says when it is pointed at."""
    low: float | None = None
    high: float | None = None
    cut: bool = False
    """The interval reaches beyond the plot."""
    link: str = ""


@dataclass(frozen=True)
class ChartLine:
    """A line and its points."""

    name: str
    color: int
    dash: int = 0
    points: str = ""
    """Of a polyline, in thousandths of the plot."""
    thin: bool = False
    marks: list[PlotMark] = field(default_factory=list)


@dataclass(frozen=True)
class Chart:
    """A plot."""

    title: str
    description: str
    """For who does not see it."""
    x: Axis
    y: Axis
    lines: list[ChartLine]
    levels: list[tuple[str, float]] = field(default_factory=list)
    """Lines across: label, and place in percent from the top."""
    band: tuple[float, float] | None = None
    """From, to: percent of the width that is shaded."""
    band_label: str = ""


def axis(values: Iterable[float], title: str = "", *, zero: bool = False, whole: bool = False) -> Axis:
    """From below the least to above the greatest of the values that are finite, to round figures. zero: with 0 in it. whole: of what is
    counted, with no tick between two numbers."""
    finite = [value for value in values if math.isfinite(value)] + [0.0] * zero or [0.0, 1.0]
    low, high = min(finite), max(finite)
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size < 1e-30:  # one value
        low, high = (low - size / 2, high + size / 2) if size >= 1e-30 else (0.0, 1.0)
    step = max(_round_step((high - low) / TICKS), float(whole))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    found = Axis(first * step, last * step, [], title)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return Axis(found.low, found.high, [(_figure(n * step, digits), found.percent(n * step)) for n in range(first, last + 1)], title)


def _round_step(rough: float) -> float:
    power = 10 ** math.floor(math.log10(rough))
    return next(times * power for times in (1, 2, 5, 10) if rough <= times * power * (1 + 1e-9))


def _figure(value: float, digits: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1000 if letter == 'k' else size):g}{letter}"
    text = f"{value:.{digits}f}"
    return "0" if float(text) == 0 else text.replace("-", "\u2212")


def polyline(points: Sequence[tuple[float, float | None]], x: Axis, y: Axis) -> str:
    """Points of an SVG polyline in a box of 1000 x 1000; those without a value are passed over, and of very many only some are drawn."""
    there = [(one, two) for one, two in points if two is not None and math.isfinite(two)]
    step = max(1, math.ceil(len(there) / MOST_POINTS))
    kept = there[::step] if not there or (len(there) - 1) % step == 0 else [*there[::step], there[-1]]
    return " ".join(f"{10 * x.percent(one):g},{1000 - 10 * y.percent(two):g}" for one, two in kept)
