"""The published figures as data: what follows from what in them, and what does not."""

from __future__ import annotations

import itertools

import pytest

from onelayer.studies.paper import PublishedStudy, published

STUDIES = {study.model: study for study in published().studies}
MATH = [study for study in STUDIES.values() if study.averages]
ALFWORLD = {"Pick": 37, "Pick2": 21, "Look": 12, "Heat": 18, "Cool": 22, "Clean": 18}
"""Games of each type that fit all printed shares of trained models; 128 in all."""
PRINTED = [
    (study, row.trained_set, measure, c)
    for study in STUDIES.values()
    for row in study.rows
    if row.trained_set not in ("base", "full")
    for measure, c in zip(study.contributions.values(), row.contributions, strict=True)
]


def rounded(printed: float, digits: int) -> tuple[float, float]:
    """What a printed number may have been before rounding; a hair more, since numbers in binary are not exactly those printed."""
    half = 0.5 * 10**-digits + 1e-9
    return printed - half, printed + half


def possible_c(study: PublishedStudy, trained_set: str, measure: str) -> tuple[float, float]:
    """Least and greatest C = (S_k - S_base) / (S_full - S_base) over all inputs that round to the printed ones.

    C is monotone in each of the three while the denominator keeps its sign, so the corners hold both.
    """
    corners = itertools.product(*(rounded(study.score(name, measure), 1) for name in (trained_set, "base", "full")))
    ratios = [(layer - base) / (full - base) for layer, base, full in corners]
    return min(ratios), max(ratios)


def games(study: PublishedStudy, trained_set: str) -> dict[str, list[int]]:
    """Numbers of won games of each type that print as the table does."""
    fits = {}
    for kind, count in ALFWORLD.items():
        low, high = rounded(study.score(trained_set, kind), 1)
        fits[kind] = [won for won in range(count + 1) if low <= 100 * won / count <= high]
    return fits


def test_every_table_is_there() -> None:
    assert [len(study.rows) for study in STUDIES.values()] == [7, 6, 7, 7, 6, 6, 6]
    assert [(study.scanned, study.layers) for study in STUDIES.values()] == [
        (28, 28),
        (36, 36),
        (36, 36),
        (28, 28),
        (8, 28),
        (11, 36),
        (8, 28),
    ]
    assert len(PRINTED) == 5 * 2 + 4 * 2 + 5 * 2 + 5 + 4 + 4 + 4


def test_every_printed_c_follows_from_the_printed_averages() -> None:
    for study, trained_set, measure, c in PRINTED:
        (low, high), (least, greatest) = rounded(c, 2), possible_c(study, trained_set, measure)
        assert least <= high and low <= greatest, (study.model, trained_set, measure, c, least, greatest)


def test_which_printed_c_differ_from_the_ratio_of_the_printed_averages() -> None:
    differ = []
    for study, trained_set, measure, c in PRINTED:
        base, full = study.score("base", measure), study.score("full", measure)
        low, high = rounded(c, 2)
        if not low <= (study.score(trained_set, measure) - base) / (full - base) <= high:
            differ.append((study.model, trained_set, measure))
    small, middle = "Qwen3-1.7B-Base", "Qwen3-4B-Base"
    expected = [
        (small, "layer:10"),
        (small, "layer:1"),
        (small, "layer:7"),
        (small, "layer:24"),
        (middle, "layer:16"),
        (middle, "layer:14"),
    ]
    assert differ == [(model, layer, "math") for model, layer in expected]


@pytest.mark.parametrize("study", MATH, ids=lambda study: study.model)
def test_averages_are_means_of_what_they_average(study: PublishedStudy) -> None:
    off = []
    for row in study.rows:
        for average, parts in study.averages.items():
            bounds = [rounded(study.score(row.trained_set, part), 1) for part in parts]
            low, high = rounded(study.score(row.trained_set, average), 1)
            if not (sum(b[0] for b in bounds) / len(parts) <= high and low <= sum(b[1] for b in bounds) / len(parts)):
                off.append((row.trained_set, average))
    assert off == []


def test_the_two_ties_of_alfworld() -> None:
    """Counted in games, full and the layer with C above 1 win equally many."""
    for model, layer, won in (("Qwen2.5-1.5B-Instruct", "layer:14", 114), ("Qwen2.5-3B-Instruct", "layer:18", 115)):
        study = STUDIES[model]
        for trained_set in ("full", layer):
            fits = games(study, trained_set)
            assert all(len(found) == 1 for found in fits.values())
            assert sum(found[0] for found in fits.values()) == won
        (c,) = next(row.contributions for row in study.rows if row.trained_set == layer)
        assert c > 1


def test_which_overall_is_a_share_of_games() -> None:
    """All but three of ALFWorld's trained rows: one is a mean over task types, two are neither. The base rows fit no 128 games."""
    other = {}
    for study in (study for study in STUDIES.values() if study.domain == "alfworld"):
        assert not all(games(study, "base").values())
        for row in study.rows[1:]:
            low, high = rounded(study.score(row.trained_set, "overall"), 1)
            won = sum(found[0] for found in games(study, row.trained_set).values())
            if not low <= 100 * won / 128 <= high:
                of_types = sum(study.score(row.trained_set, kind) for kind in ALFWORLD) / len(ALFWORLD)
                other[study.model, row.trained_set] = low <= of_types <= high
    full, layer_18 = ("Qwen2.5-3B-Instruct", "full"), ("Qwen2.5-3B-Instruct", "layer:18")
    assert other == {("Qwen2.5-1.5B-Instruct", "full"): True, full: False, layer_18: False}
