"""The published figures as entries of the leaderboard: no interval, never ranked; single runs, but for those that say otherwise."""

from __future__ import annotations

from collections import defaultdict

from ..paper import PublishedStudy, published
from .marks import Mark
from .measured import Average, average
from .records import Entry, Share, Standing

SUITES = {
    "MATH500": "math500/test",
    "GSM8K": "gsm8k/test",
    "AMC": "amc23/test",
    "AIME24": "aime24/test",
    "AIME25": "aime25/test",
    "OlympiadBench": "olympiadbench/test",
    "Minerva": "minerva/test",
}
"""Measures that are a suite here."""
TYPES = ("Pick", "Pick2", "Look", "Heat", "Cool", "Clean")
"""Measures that are a part of ALFWorld's games, and no suite."""


def published_tables() -> dict[tuple[str, str], list[Entry]]:
    """Entries by domain and suite."""
    found: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
    for study in published().studies:
        for at, measure in enumerate(study.measures):
            if measure in TYPES:
                continue
            named = [number for number, of in enumerate(study.contributions.values()) if of == measure]
            for row in study.rows:
                share = row.contributions[named[0]] if named else None
                found[_place(study, measure)].append(_entry(study, measure, row.trained_set, row.scores[at], share))
        found_repeated = [_entry(study, "math", row.trained_set, row.math, runs=3) for row in study.repeated]
        if found_repeated:
            found[_place(study, "math")] += found_repeated
    return dict(found)


def _place(study: PublishedStudy, measure: str) -> tuple[str, str]:
    """Domain and suite of a measure."""
    if measure in SUITES:
        return study.domain, SUITES[measure]
    if study.domain == "alfworld":
        return study.domain, "128 games, as published"
    if average := _average(study, measure):
        return average.name, average.text
    parts = study.averages.get(measure)
    domain = "all" if measure == "overall" else measure
    return domain, f"average of {', '.join(parts)}" if parts else "average, as published"


def _average(study: PublishedStudy, measure: str) -> Average | None:
    """An average that can be measured here: all its parts are suites."""
    parts = study.averages.get(measure, [])
    return average(measure, [SUITES[part] for part in parts]) if parts and all(part in SUITES for part in parts) else None


def published_averages() -> list[Average]:
    """Those that can be measured here, where the published ones then stand beside."""
    return [found for study in published().studies for measure in study.averages if (found := _average(study, measure))]


def _entry(study: PublishedStudy, measure: str, trained_set: str, score: float, share: float | None = None, *, runs: int = 1) -> Entry:
    """score: percent. share: C as printed; null where the source prints none of this measure."""
    name = "-".join(["published", study.model, study.algorithm, measure, trained_set, str(runs)])
    shown = Share(point=share, interval=None) if share is not None and trained_set not in ("base", "full") else None
    # The source does not say how its figures were decoded: they stand under both.
    standing = Standing(rank=None, pass_rate=score / 100, interval=None, contribution=shown)
    return Entry(
        id="".join(character if character.isalnum() else "-" for character in name.lower()),
        mark=Mark.PUBLISHED,
        model=study.model,
        base="none",
        layers=study.layers,
        source="published",
        trained_set=trained_set,
        algorithm=None if trained_set == "base" else study.algorithm,
        trained_on=None if trained_set == "base" else study.trained_on,
        seeds=[],
        runs=runs,
        interval_over=None,
        sampled=standing,
        greedy=standing,
    )
