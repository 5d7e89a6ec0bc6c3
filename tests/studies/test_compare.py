"""The comparison: pooled as a study pools, paired only where it is fair, and told the same in terminal, page and compare.json."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_runs import evaluated_as
from rich.console import Console

from onelayer.common.errors import UserError
from onelayer.evals.records import Decoding, Recorded, Source
from onelayer.evals.statistics import holm, paired_difference
from onelayer.pages.compare_page import render_terminal, tables, write_comparison
from onelayer.studies.compare import Compared, Comparison, Measurement, TrainedRun, compare
from onelayer.studies.compare_records import ComparisonRow
from onelayer.studies.learning_curve import LearningCurve, Point, learning_curve
from onelayer.studies.study_report import build_report
from onelayer.trainers.config import Config
from onelayer.trainers.metrics import read_metrics

POINTS = [
    Point(step=at, episodes=64 * at, tokens=900 * at, seconds=2.5 * at, reward=0.3 + at / 10, success=0.2 + at / 10) for at in range(4)
]
CURVE = LearningCurve(points=POINTS, episodes=256, tokens=3600, seconds=10)


def run(recorded, name="full", seed=0, algorithm="grpo", finished=True, lr=1e-4) -> TrainedRun:
    """A run of which `recorded` is the evaluation inside (None: not evaluated)."""
    directory = Path("runs") / f"{algorithm}-{name}-{seed}-{lr}"
    patch = f"{algorithm} {name} {seed} {lr}"
    found = [measurement(recorded, directory / "test", patches=[patch])] if recorded else []
    keys = {"model.path": "tiny", "trainer.algorithm": algorithm, "trainer.trained_set": name, "trainer.lr": lr}
    return TrainedRun(
        directory,
        "arithmetic",
        keys,
        seed,
        4,
        CURVE,
        patch if finished else None,
        250_000 if finished else None,
        0.125 if finished else None,
        12.0 if finished else None,
        found,
    )


def measurement(recorded, directory: Path = Path("runs/eval"), **changes) -> Measurement:
    return Measurement(directory, replace(recorded, manifest=recorded.manifest.model_copy(update=changes)))


def entries(arms) -> list:
    """What a study of these arms would hand in."""
    base, *trained = arms
    runs = [run(recorded, arm.name, seed) for arm in trained for seed, recorded in enumerate(arm.evaluations)]
    return [measurement(base.evaluations[0], Path("runs/base")), *runs]


def rows(comparison: Comparison) -> dict[str, ComparisonRow]:
    (section,) = comparison.sections
    return {row.policy: row for row in section.rows}


def given(pair: Compared | None) -> Compared:
    assert pair is not None
    return pair


class Elements(HTMLParser):
    """The elements of a page, and every URL that one of them would load."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.urls: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.urls += [value for key, value in attrs if key in ("src", "href") and value]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_study_compared_says_what_its_report_says(arms, seeds):
    made = arms({"base": (0.26, 0.5), "full": (0.7, 0.8), "layer:1": (0.4, 0.6), "layer:3": (0.65, 0.8)}, seeds=seeds, items=200)
    report = build_report(made, recipe="r", model="tiny", parameters=1, algorithm="grpo", versions={}, seconds=0.0)
    found = rows(compare(entries(made)))
    assert list(found) == ["base", "grpo full", "grpo layer:1", "grpo layer:3"]
    for arm in report.arms:
        row = found["base" if arm.name == "base" else f"grpo {arm.name}"]
        assert row.interval_over == ("items" if arm.name == "base" else report.interval_over)
        for decoding in Decoding:
            mine, theirs = row.figures(decoding), arm.measured(decoding)
            assert mine.contribution == theirs.contribution
            assert (mine.pass_rate, mine.by_seed) == (theirs.pass_rate, theirs.by_seed)
            assert (mine.to_base.difference if mine.to_base else None) == theirs.to_base
            assert (mine.to_first.difference if mine.to_first else None) == (theirs.contribution.to_full if theirs.contribution else None)
            assert (mine.to_first.p_holm if mine.to_first else None) == theirs.p_holm
    gains = [given(row.sampled.to_base) for name, row in found.items() if name != "base"]
    assert [gain.p_holm for gain in gains] == holm([gain.difference.p for gain in gains if gain.difference])


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("digest", "e" * 64, "items"),
        ("max_tokens", 80, "max_tokens"),
        ("prompt", "Q: {observation}", "prompt"),
        ("seed", 9, "evaluation seed"),
        ("temperature", 0.7, "temperature"),
    ],
)
def test_only_like_is_paired_with_like(arms, key, value, reason):
    base, full, layer = arms(items=50)
    moved = replace(layer.evaluations[0], manifest=layer.evaluations[0].manifest.model_copy(update={key: value}))
    comparison = compare([measurement(base.evaluations[0]), run(full.evaluations[0]), run(moved, "layer:3")])
    row = rows(comparison)["grpo layer:3"]
    for pair in (row.sampled.to_base, row.sampled.to_first):
        assert pair is not None and pair.difference is None and pair.not_comparable == [reason]
    assert row.greedy.to_base is not None
    assert (row.greedy.to_base.difference is not None) == (key == "temperature")  # greedy has none
    left = given(rows(comparison)["grpo full"].sampled.to_base)
    assert left.difference and left.p_holm == left.difference.p  # the one comparison that is left needs no correction
    told = [note for table in tables(comparison, "arithmetic") for note in table.notes]
    only, label = " (sampled)" if key == "temperature" else "", rows(comparison)["base"].label
    assert label.startswith("base (") and row.label.startswith("grpo layer:3 (") and row.apart not in label
    assert f"{row.label} and {label} are not comparable{only}: they were measured with different {reason}." in told


def in_turns(recorded: Recorded, turns: int) -> Recorded:
    """The same evaluation, with episodes of so many turns."""
    recipe = Config.model_validate({"env": {"max_turns": turns}})
    return replace(recorded, manifest=recorded.manifest.model_copy(update={"config": evaluated_as(recipe)}))


def test_each_policy_is_held_against_the_base_that_was_measured_as_it_was(arms):
    """One base in one turn and in two: each has its own differences, and its own family of Holm."""
    base, full, layer = (arm.evaluations[0] for arm in arms(items=60))
    second = greedily(base, [1, 2, 3])
    twice = replace(second, sampled=full.sampled)
    bases = [measurement(in_turns(one, turns), Path(f"base-{turns}")) for turns, one in ((1, base), (2, twice))]
    runs = [
        run(in_turns(one, turns), name, algorithm=by)
        for by, turns in (("grpo", 1), ("gigpo", 2))
        for name, one in (("full", full), ("layer:3", layer))
    ]
    comparison = compare([*bases, *runs])
    (section,) = comparison.sections
    assert [row.label for row in section.rows][:3] == ["base (1 turn)", "base (2 turns)", "grpo full (1 turn)"]
    found = rows(comparison)
    for algorithm, reference, label in (("grpo", base, "base (1 turn)"), ("gigpo", twice, "base (2 turns)")):
        pairs = [given(found[f"{algorithm} {name}"].sampled.to_base) for name in ("full", "layer:3")]
        expected = [paired_difference(one.sampled.rate_I, reference.sampled.rate_I) for one in (full, layer)]
        assert [(pair.other, pair.difference) for pair in pairs] == [(label, difference) for difference in expected]
        assert [pair.p_holm for pair in pairs] == holm([difference.p for difference in expected])
    apart = given(found["gigpo full"].sampled.to_first)
    assert (apart.other, apart.difference, apart.not_comparable) == ("grpo full (1 turn)", None, ["env.max_turns"])
    told = [note for table in tables(comparison, "arithmetic") for note in table.notes]
    assert "gigpo full (2 turns) and grpo full (1 turn) are not comparable: they were measured with different env.max_turns." in told
    out = io.StringIO()
    Console(file=out, width=80).print(render_terminal(comparison))
    assert "2 turns" in out.getvalue()


def test_policies_of_one_name_stay_apart(arms):
    """Two endpoints that serve a model of one name, and two bases."""
    base, full, _ = (arm.evaluations[0] for arm in arms(items=50))
    fields = {"source": Source.ENDPOINT, "base": "none", "policy": "gpt", "model": "gpt"}
    here, there = (measurement(base, Path(place), **fields, protocol=place) for place in ("here", "there"))
    assert list(rows(compare([here, there]))) == ["gpt #1", "gpt #2"]
    second = measurement(full, Path("other"), policy="base", base="c" * 64, model="tiny-alfworld", patches=[])
    assert list(rows(compare([measurement(base, model="tiny"), second]))) == ["base model=tiny", "base model=tiny-alfworld"]


def test_seeds_are_paired_where_both_have_them(arms):
    _, full, layer = arms(seeds=3, items=100)
    rate = {arm.name: [recorded.sampled.rate_I for recorded in arm.evaluations] for arm in (full, layer)}
    first = [run(recorded, seed=seed) for seed, recorded in enumerate(full.evaluations)]

    def difference(seeds):
        runs = [run(recorded, "layer:3", seed) for seed, recorded in zip(seeds, layer.evaluations, strict=False)]
        return given(rows(compare([*first, *runs]))["grpo layer:3"].sampled.to_first)

    common = difference([2, 0])
    assert common.seeds == 2
    assert common.difference == paired_difference(np.stack(rate["layer:3"][:2]), np.stack([rate["full"][2], rate["full"][0]]))
    assert difference([7, 8, 9]).difference == paired_difference(np.stack(rate["layer:3"]), np.stack(rate["full"]))
    one = difference([1])
    assert (one.seeds, one.difference) == (1, paired_difference(rate["layer:3"][0], rate["full"][1]))


def greedily(recorded: Recorded, right: list[int]) -> Recorded:
    """The same evaluation, its greedy answers right on these items."""
    correct_IS = np.isin(np.arange(len(recorded.greedy.items)), right).astype(float)[:, None]
    return replace(recorded, greedy=replace(recorded.greedy, correct_IS=correct_IS))


def test_greedy_answers_of_one_seed_are_compared_by_mcnemar(arms):
    """Eight items are solved by just one of the two, seven of them by full: p = 2 (1 + 8) / 2^8."""
    base, full, _ = (arm.evaluations[0] for arm in arms(items=40))
    base, full = greedily(base, [0, 1, 2, 30]), greedily(full, [0, 1, 2, *range(10, 17)])
    one = compare([measurement(base), run(full)])
    pair = given(rows(one)["grpo full"].greedy.to_base)
    assert (pair.mcnemar, pair.seeds) == (18 / 256, 1)
    assert pair.difference and pair.difference.difference == pytest.approx(6 / 40) and 0.02 < pair.difference.p < 0.04
    assert given(rows(one)["grpo full"].sampled.to_base).mcnemar is None
    table = next(table for table in tables(one, "arithmetic") if table.title.startswith("Differences"))
    assert [cell.detail.split("\n")[1:] for cell in table.rows[0][1:]][1] == ["p = 0.032", "McNemar 0.070"]
    assert any(note.startswith("McNemar: exact p") for note in table.notes)
    several = compare([measurement(base), run(full), run(full, seed=1)])
    assert given(rows(several)["grpo full"].greedy.to_base).mcnemar is None
    told = [note for table in tables(several, "arithmetic") for note in table.notes if "McNemar" in note]
    assert told == ["Over several training seeds there is no one greedy answer to an item, so McNemar's exact test does not apply."]


def test_only_seeds_are_pooled(arms):
    _, full, layer = arms(items=50)
    mine, theirs = full.evaluations[0], layer.evaluations[0]
    pooled = compare([run(mine, seed=0), run(theirs, seed=1)])
    assert [row.seeds for row in rows(pooled).values()] == [[0, 1]]
    other = rows(compare([run(mine), run(theirs, seed=1, lr=1e-3), run(None, "embed")]))
    assert list(other) == ["grpo full lr=0.0001", "grpo full lr=0.001"]
    again = replace(run(theirs), directory=Path("runs/again"), patch="other weights")
    repeated = compare([run(mine), again, run(mine)])  # the same seed twice is no second seed; the same directory twice is one
    assert [(row.policy, row.seeds) for row in rows(repeated).values()] == [("grpo full #1", [0]), ("grpo full #2", [0])]
    assert any("grpo full #2: runs/again" in note for table in tables(repeated, "arithmetic") for note in table.notes)


def test_evaluations_find_their_run_and_baselines_stand_for_themselves(arms):
    base, full, layer = arms(seeds=2, items=50)
    trained = [run(None, seed=0), run(None, seed=1)]
    loose = [measurement(recorded, Path(f"eval-{at}"), patches=[trained[at].patch]) for at, recorded in enumerate(full.evaluations)]
    planner = measurement(layer.evaluations[0], Path("eval-gold"), policy="gold", base="none", patches=[], prompt="(gold)", max_tokens=1)
    elsewhere = measurement(full.evaluations[0], Path("eval-far"), patches=[trained[0].patch], split="math500/test")
    comparison = compare([*trained, loose[1], loose[0], planner, elsewhere, measurement(base.evaluations[0], Path("base"))])
    assert [section.split for section in comparison.sections] == ["arithmetic/test", "math500/test"]
    near, far = comparison.sections
    assert [(row.policy, row.seeds) for row in near.rows] == [("base", []), ("grpo full", [0, 1]), ("gold", [])]
    assert near.rows[2].sampled.to_base is None
    gold = given(near.rows[2].sampled.to_first)
    assert gold.seeds == 2  # each of the run's seeds against the one planner
    expected = paired_difference(layer.evaluations[0].sampled.rate_I, np.stack([full.evaluations[at].sampled.rate_I for at in (0, 1)]))
    assert gold.difference == expected
    assert (far.rows[0].policy, far.rows[0].trained_on, far.domain) == ("grpo full", "arithmetic", "math500")


@pytest.mark.parametrize("seeds", [1, 3])
def test_terminal_page_and_json_agree(tmp_path, arms, seeds):
    comparison = compare([*entries(arms(seeds=seeds, items=100)), run(None, "layer:1", finished=False)])
    text = write_comparison(comparison, tmp_path).read_text()
    saved = json.loads((tmp_path / "compare.json").read_text())
    assert Comparison.model_validate(saved) == comparison
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert embedded and json.loads(embedded[1]) == saved  # the curves are drawn from this
    out = io.StringIO()
    Console(file=out, width=80).print(render_terminal(comparison))
    for table in tables(comparison, "arithmetic"):
        for line in (line for row in [table.header, *table.rows] for cell in row for line in (cell.figure, *cell.detail.split("\n"))):
            assert line in out.getvalue() and line.replace("<", "&lt;") in text
    assert ("95% over items" if seeds == 1 else "95% over seeds\nand items") in tables(comparison, "arithmetic")[0].header[2].detail
    assert "grpo layer:1, seed 0: not finished, 4 of 4 steps done." in out.getvalue()


def test_text_stays_text_and_nothing_is_loaded(tmp_path, arms):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)> [red]x[/red]"
    base, full, _ = arms(items=50)
    prompted = measurement(base.evaluations[0], prompt=hostile)
    comparison = compare([prompted, run(full.evaluations[0], hostile), measurement(full.evaluations[0], Path(hostile), policy=hostile)])
    text = write_comparison(comparison, tmp_path).read_text()
    page = Elements(text)
    assert hostile not in text and page.tags.count("script") == 3 and "img" not in page.tags and page.urls == []
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    out = io.StringIO()
    Console(file=out, width=300).print(render_terminal(comparison))
    assert "[red]x[/red]" in out.getvalue()


def test_a_curve_tells_what_was_learnt_from_before(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = {"reward": 0.25, "success": 0.2, "tokens": 500.0, "rollout_seconds": 1.5, "update_seconds": 0.5}
    lines = [line | {"step": 0, "dropped": 2.0}, line | {"step": 1, "episodes": 60.0, "dropped": 4.0}, line | {"step": 2, "tokens": None}]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"step": 3, "rew')
    curve = learning_curve(read_metrics(path), 32)
    assert [(point.step, point.episodes, point.tokens, point.seconds) for point in curve.points] == [
        (0, 0, 0, 0),
        (1, 30, 500, 2),
        (2, 90, 1000, 4),
    ]
    assert (curve.episodes, curve.tokens, curve.seconds) == (122, 1000, 6)
    path.write_text(json.dumps(lines[0]) + '\n{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not the metrics of a step \(reward"):
        read_metrics(path)
