"""Learning curves as charts: of one run, and of all runs side by side."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.text import shown
from ...evals.protocol import algorithm_of, labels, section, training_settings
from ...studies.pairing import pooled
from ...studies.store import State, StoreEntry, trained_on
from ...trainers.config import settings_of
from ...trainers.metrics import PART
from .charts import COLORS, DASHES, Axis, Chart, ChartLine, PlotMark, axis, polyline
from .run_index import Point

X = {"step": "steps", "tokens": "sampled tokens", "episodes": "episodes", "seconds": "seconds"}
Y = {
    "success": "share solved",
    "held_out": "share solved of the held-out panel",
    "reward": "mean reward",
    "entropy": "entropy, nats per token",
    "kl": "KL to the base, nats per token",
    "grad_norm": "gradient norm",
    "response_length": "tokens of a response",
}


def measures(runs: Iterable[Sequence[Point]]) -> dict[str, str]:
    """What curves can be drawn of, and its title: what all runs have, then the environments' own figures."""
    points = [point for run in runs for point in run]
    own = sorted({key for point in points for key in point if key.startswith(PART)})
    titles = Y | {key: shown(key.removeprefix(PART)) for key in own}
    return {key: title for key, title in titles.items() if any(_value(point, key) is not None for point in points)}


MOST_LINES = 24
"""Policies in one chart: more are narrowed by name."""
Run = tuple[str, StoreEntry, Mapping[str, Any], Sequence[Point]]


@dataclass(frozen=True)
class Seed:
    """One run of a policy."""

    name: str
    """Directory."""
    seed: object
    points: Sequence[Point]
    steps: int | None
    """That it is to take."""
    state: State


@dataclass(frozen=True)
class TrainedPolicy:
    """Runs that differ in their seed alone."""

    name: str
    suite: str
    seeds: list[Seed]


@dataclass(frozen=True)
class SuiteChart:
    """The policies trained on one suite with episodes of the same kind."""

    name: str
    chart: Chart
    policies: list[tuple[TrainedPolicy, ChartLine, float | None]]
    """With their look, and the last figure (of several seeds the mean)."""
    left_out: int


def trained_policies(runs: Sequence[Run]) -> list[TrainedPolicy]:
    """Runs pooled over training seeds."""
    places = _places(runs)
    pools = pooled(runs, lambda run: json.dumps(_settings(run), sort_keys=True) if _settings(run) else run[0], _seed_of)
    alike: defaultdict[tuple[str, str], list[list[Run]]] = defaultdict(list)
    for pool in pools:
        members = [run for there in pool.values() for run in there]
        alike[places[members[0][0]], _stem(members[0])].append(members)
    found = []
    for (suite, stem), same in alike.items():
        differ = labels([[_short(_settings(group[0]))] for group in same])
        more = (
            [f" {text}" if text else "" for text in differ] if len(set(differ)) == len(same) else [f" #{at + 1}" for at in range(len(same))]
        )
        found += [TrainedPolicy(stem + text, suite, [_seed(run) for run in group]) for text, group in zip(more, same, strict=True)]
    return found


def _seed_of(run: Run) -> str:
    return json.dumps(_trainer(run[2]).get("seed"), default=str)


def _settings(run: Run) -> Mapping[str, Any]:
    """As JSON holds them; empty where its configuration is none."""
    try:
        return json.loads(json.dumps(settings_of(run[2]), default=str))
    except (AttributeError, TypeError, ValueError):
        return {}


def _short(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keys without their sections, where that leaves them apart."""
    last = {key: key.rpartition(".")[2] for key in settings}
    names = list(last.values())
    return {last[key] if names.count(last[key]) == 1 else key: value for key, value in settings.items()}


def _places(runs: Sequence[Run]) -> dict[str, str]:
    """By directory the suite that each trains on, and how its episodes differ from those of other runs on it: they are another measure."""
    by_suite: defaultdict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_suite[trained_on(run[2])].append(run)
    found = {}
    for suite, members in by_suite.items():
        apart = labels([[training_settings(_settings(run))] for run in members])
        found |= {run[0]: f"{suite}, {text}" if text else suite for run, text in zip(members, apart, strict=True)}
    return found


def _trainer(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    return section(recipe, "trainer")


def _stem(run: Run) -> str:
    trainer = _trainer(run[2])
    return f"{algorithm} {trainer['trained_set']}" if (algorithm := algorithm_of(trainer)) and "trained_set" in trainer else run[0]


def _seed(run: Run) -> Seed:
    name, entry, recipe, points = run
    steps = _trainer(recipe).get("steps")
    return Seed(name, _trainer(recipe).get("seed"), points, steps if isinstance(steps, int) else None, entry.state)


def suite_charts(policies: Sequence[TrainedPolicy], x: str, y: str, title: str) -> list[SuiteChart]:
    """A chart for each suite and kind of episodes: a line for each policy, of several seeds a thin one each and their mean."""
    by_suite: defaultdict[str, list[TrainedPolicy]] = defaultdict(list)
    for policy in policies:
        by_suite[policy.suite].append(policy)
    return [_suite_chart(name, members[:MOST_LINES], len(members) - MOST_LINES, x, y, title) for name, members in sorted(by_suite.items())]


def _suite_chart(name: str, policies: Sequence[TrainedPolicy], left_out: int, x: str, y: str, title: str) -> SuiteChart:
    points = [point for policy in policies for seed in policy.seeds for point in seed.points]
    across, up = _axes(points, x, y, title)
    lines, rows = [], []
    for at, policy in enumerate(policies):
        color, dash = at % COLORS, at // COLORS % DASHES
        curves = [_curve(seed.points, x, y) for seed in policy.seeds]
        mean = _mean(curves)
        if len(curves) > 1:
            lines += [ChartLine(policy.name, color, 0, polyline(curve, across, up), thin=True) for curve in curves]
        last = next((point for point in reversed(mean) if point[1] is not None), None)
        marks = (
            [PlotMark(across.percent(last[0]), 100 - up.percent(last[1]), f"{policy.name}: {last[1]:.3g}")]
            if last and last[1] is not None
            else []
        )
        line = ChartLine(policy.name, color, dash, polyline(mean, across, up), marks=marks)
        lines.append(line)
        rows.append((policy, line, last[1] if last else None))
    chart = Chart(name, f"{title} against {X[x]} on {name}; the last figures are in the table", across, up, lines)
    return SuiteChart(name, chart, rows, max(0, left_out))


def run_charts(points: Sequence[Point]) -> list[Chart]:
    """The curves of one run, a chart for each figure that it has."""
    charts = []
    for key, title in measures([points]).items():
        values = [_value(point, key) for point in points]
        if key == "reward" and values == [_value(point, "success") for point in points]:
            continue  # where every episode pays 1 or nothing the two are one
        x, y = _axes(points, "step", key, title)
        curve = _curve(points, "step", key)
        last = next(point for point in reversed(curve) if point[1] is not None)
        marks = [PlotMark(x.percent(last[0]), 100 - y.percent(last[1] or 0.0), f"step {last[0]:g}: {last[1]:.3g}")]
        charts.append(
            Chart(
                title, f"{title} at each step, the last {last[1]:.3g}", x, y, [ChartLine(title, 0, 0, polyline(curve, x, y), marks=marks)]
            )
        )
    return charts


def _axes(points: Sequence[Point], x: str, y: str, title: str) -> tuple[Axis, Axis]:
    values = [value for point in points if (value := _value(point, y)) is not None]
    return axis([float(point[x]) for point in points], X[x], zero=True, whole=x != "seconds"), axis(
        values, title, zero=y in ("success", "held_out", "reward", "kl")
    )


def _curve(points: Sequence[Point], x: str, y: str) -> list[tuple[float, float | None]]:
    return [(float(point[x]), _value(point, y)) for point in points]


def _value(point: Point, key: str) -> float | None:
    """A figure; None where there is none, or no finite one."""
    value = point.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _mean(curves: Sequence[Sequence[tuple[float, float | None]]]) -> list[tuple[float, float | None]]:
    """Mean at each step, as far as all have come."""
    if len(curves) == 1:
        return list(curves[0])
    found = []
    for places in zip(*curves, strict=False):
        values = [value for _, value in places if value is not None]
        mean = sum(values) / len(values) if len(values) == len(places) else None
        found.append((sum(place for place, _ in places) / len(places), mean))
    return found
