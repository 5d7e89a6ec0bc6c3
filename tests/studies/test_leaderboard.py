"""The leaderboard's figures are those of the statistics, taken between what can be compared; what is broken is named and left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import SAMPLES_EACH, evaluated_as, make_evaluation, make_run, make_runs, make_samples, outcomes

from onelayer.cli.main import main
from onelayer.evals.records import MANIFEST, Decoding, read_evaluation
from onelayer.evals.samples import SAMPLES, write_samples
from onelayer.evals.statistics import holm, paired_difference, pass_rate
from onelayer.pages.viewer.profile_page import Measure, profiles
from onelayer.studies.contribution import contribution
from onelayer.studies.leaderboard.build import build, ranks
from onelayer.studies.leaderboard.marks import VERIFIED, Mark, Verified, sha256
from onelayer.studies.leaderboard.records import Entry, LeaderboardTable
from onelayer.studies.paper import published
from onelayer.trainers.config import Config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("runs"))


def measured(root: Path, suite: str = "arithmetic/test") -> LeaderboardTable:
    (table,) = [table for table in build(root).tables if table.suite == suite and table.items]
    return table


def named(table: LeaderboardTable, trained_set: str, algorithm: str | None = "grpo") -> Entry:
    (entry,) = [entry for entry in table.entries if (entry.trained_set, entry.algorithm) == (trained_set, algorithm)]
    return entry


def rates(root: Path, name: str, greedy: bool = False) -> np.ndarray:
    read = [read_evaluation(path.parent) for path in sorted(root.glob(f"{name}/**/{MANIFEST}"))]
    return np.stack([one.greedy.rate_I if greedy else one.sampled.rate_I for one in read])


@pytest.mark.parametrize("greedy", [False, True])
def test_every_figure_is_that_of_the_statistics_on_the_same_items(runs: Path, greedy: bool) -> None:
    table = measured(runs)
    base, full, layer = rates(runs, "base", greedy)[0], rates(runs, "full-*", greedy), rates(runs, "layer-3-*", greedy)
    entry = named(table, "layer:3")
    found = entry.greedy if greedy else entry.sampled
    assert found and found.to_base and found.to_full and found.contribution
    rate, share = pass_rate(layer), contribution(base, full, layer)
    assert (found.pass_rate, found.interval) == (rate.mean, (rate.low, rate.high))
    assert found.by_seed == pytest.approx(layer.mean(axis=1))
    assert found.to_base.difference == paired_difference(layer, base) and found.to_full.difference == paired_difference(layer, full)
    assert (found.contribution.point, found.contribution.interval) == (share.point, share.fieller)
    assert (entry.seeds, entry.runs, entry.samples, entry.interval_over) == ([0, 1, 2], 3, SAMPLES_EACH, "seeds and items")
    family = [rates(runs, name, greedy) for name in ("full-*", "layer-3-*", "layer-0-*", "gigpo")]
    assert found.to_base.p_holm == holm([paired_difference(one, base).p for one in family])[1]
    assert entry.parameters == 250_000 and entry.spent and entry.spent.seconds == 91 and entry.spent.peak_memory == 3 * 2**29
    first = named(table, "full").sampled
    assert first and first.to_full is None and first.contribution is None


def test_algorithms_are_compared_where_nothing_else_differs(runs: Path, tmp_path: Path) -> None:
    (found,) = measured(runs).algorithms
    assert (found.trained_set, found.algorithm, found.minus) == ("layer:3", "grpo", "gigpo")
    for greedy in (False, True):
        one = found.greedy if greedy else found.sampled
        assert (
            one and one.seeds == 1 and one.difference == paired_difference(rates(runs, "layer-3-0", greedy), rates(runs, "gigpo", greedy))
        )
    for at, config in enumerate(
        ({}, {"algorithm": "rloo"}, {"algorithm": "dr_grpo", "steps": 7}, {"algorithm": "rloo", "trained_set": "full"})
    ):
        make_run(tmp_path / str(at), 0.4, config=config, trained_set=config.pop("trained_set", "layer:3"))
    make_run(tmp_path / "turns", 0.4, config={"algorithm": "gigpo"}, env={"max_turns": 2})
    assert [(one.algorithm, one.minus) for one in measured(tmp_path).algorithms] == [("rloo", "grpo")]
    make_run(tmp_path / "rate", 0.4, config={"algorithm": "rloo", "lr": 1e-5})
    assert measured(tmp_path).algorithms == []  # no telling which of the two


def test_what_can_not_be_compared_is_not(runs: Path) -> None:
    """Another algorithm has no full-parameter run, and who has no base's weights is no base and has none."""
    table = measured(runs)
    gigpo, random, base = named(table, "layer:3", "gigpo"), named(table, "random", None), named(table, "base", None)
    assert gigpo.sampled and gigpo.sampled.to_base and gigpo.sampled.to_full is None and gigpo.sampled.contribution is None
    for entry in (random, base):
        assert entry.sampled and entry.sampled.to_base is None and entry.seeds == [] and entry.interval_over == "items"
    (alone,) = [entry for entry in measured(runs, "math500/test").entries if entry.mark is not Mark.PUBLISHED]
    assert alone.trained_set == "base"


def test_another_protocol_or_other_items_are_never_paired(runs: Path, tmp_path: Path) -> None:
    root = make_runs(tmp_path)
    make_run(root / "hot", 0.5, trained_set="layer:5", temperature=0.7)
    make_run(root / "others", 0.5, trained_set="layer:5", digest="0" * 64)
    tables = [table for table in build(root).tables if table.suite == "arithmetic/test"]
    assert len(tables) == 2
    found = [entry for table in tables for entry in table.entries if entry.trained_set == "layer:5"]
    assert len(found) == 2 and all(one.sampled and one.sampled.to_base is None and one.sampled.to_full is None for one in found)


def test_two_ways_of_measuring_are_two_bases_two_rankings_and_a_reason(tmp_path: Path) -> None:
    """In one turn and in two: each entry is held against its own base and full; what has none that was measured so says why."""
    two = {"max_turns": 2}
    make_evaluation(tmp_path / "base-1", outcomes(0.2, 1))
    make_evaluation(tmp_path / "base-2", outcomes(0.5, 2), config=evaluated_as(Config.model_validate({"env": two})))
    for name, rate in (("full", 0.6), ("layer:3", 0.5), ("layer:0", 0.4)):
        make_run(tmp_path / f"{name}-1", rate, trained_set=name)
        make_run(tmp_path / f"{name}-2", rate + 0.3, trained_set=name, config={"algorithm": "gigpo"}, env=two)
    make_run(tmp_path / "long", 0.8, trained_set="layer:5", max_tokens=80)
    table = measured(tmp_path)
    for turns, algorithm in (("1", "grpo"), ("2", "gigpo")):
        layer, full = named(table, "layer:3", algorithm), named(table, "full", algorithm)
        assert layer.sampled and layer.sampled.to_base and layer.sampled.to_full and full.sampled
        mine, base, whole = (rates(tmp_path, f"{name}-{turns}") for name in ("layer:3", "base", "full"))
        assert layer.sampled.to_base.difference == paired_difference(mine, base[0])
        assert layer.sampled.to_full.difference == paired_difference(mine, whole)
        assert full.sampled.rank == 1, "nothing that was measured as it was is better"
        assert layer.apart == full.apart and f"{turns} turn" in layer.apart
    alone = named(table, "layer:5").sampled
    assert alone and alone.to_base is None and alone.base_differs == alone.full_differs == ["max_tokens"]
    assert sorted(entry.apart for entry in table.entries if entry.trained_set == "base") == ["1 turn, 40 tokens", "2 turns, 40 tokens"]
    found = [profile for profile in profiles(build(tmp_path), Decoding.SAMPLED, Measure.GAIN) if not profile.is_published]
    assert [(len(profile.figures), profile.base and profile.base.apart) for profile in found] == [
        (2, "2 turns, 40 tokens"),
        (2, "1 turn, 40 tokens"),
    ]
    for profile in found:
        for figure in profile.figures:
            entry = figure.entry.sampled
            assert entry and entry.to_base and figure.point == entry.to_base.difference.difference


def test_a_study_s_learning_rates_and_rates_by_layer_are_told_apart(tmp_path: Path) -> None:
    """Of two full-parameter runs the one with the same rate counts; a run with rates by layer is none of them."""
    make_evaluation(tmp_path / "base", outcomes(0.3, 1))
    make_run(tmp_path / "full-slow", 0.5, trained_set="full", config={"lr": 1e-5})
    make_run(tmp_path / "full-fast", 0.6, trained_set="full")
    make_run(tmp_path / "boost", 0.65, trained_set="full", config={"lr_by_layer": {3: 1e-3}})
    make_run(tmp_path / "layer", 0.55)
    table = measured(tmp_path)
    layer, boost = named(table, "layer:3").sampled, named(table, "full, rates by layer").sampled
    fast = rates(tmp_path, "full-fast")
    assert layer and layer.to_full and layer.to_full.difference == paired_difference(rates(tmp_path, "layer"), fast)
    assert boost and boost.to_full and boost.to_full.difference == paired_difference(rates(tmp_path, "boost"), fast)
    assert len([entry for entry in table.entries if entry.trained_set == "full"]) == 2
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("")
    make_run(tmp_path / "study" / "layer-7" / "lr-0.1-seed-0", 0.5, trained_set="layer:7")
    (tmp_path / "study/layer-7/lr-0.1-seed-0/test").rename(tmp_path / "study/layer-7/lr-0.1-seed-0/validation")
    assert len(measured(tmp_path).entries) == len(table.entries)


def test_a_submission_tells_nothing_of_the_runs_of_others(tmp_path: Path) -> None:
    """It names a patch of somebody else, with other settings: theirs would no longer be alike, and their difference to full gone."""
    root = make_runs(tmp_path)
    before = named(measured(root), "layer:3")
    for place in ("a", "z"):
        forged = root / place / "run-0"
        forged.mkdir(parents=True)
        (root / place / "submission.json").write_text("{}")
        run = json.loads((root / "layer-3-0" / "run.json").read_bytes())
        run["config"]["trainer"]["epochs"] = 9
        (forged / "run.json").write_text(json.dumps(run))
        (forged / "patch.safetensors").write_bytes((root / "layer-3-0" / "patch.safetensors").read_bytes())
    assert named(measured(root), "layer:3") == before and before.sampled and before.sampled.to_full


def test_a_patch_that_has_changed_is_named(tmp_path: Path) -> None:
    root = make_runs(tmp_path)
    path = root / "layer-0-1" / "patch.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    (problem,) = build(root).left_out
    assert problem.directory == "layer-0-1" and "not the patch that run.json names" in problem.problem


def test_more_samples_of_a_policy_replace_fewer_and_a_repeated_run_is_no_seed(tmp_path: Path) -> None:
    make_evaluation(tmp_path / "base", outcomes(0.3, 1))
    make_evaluation(tmp_path / "base-again", outcomes(0.3, 1, samples=8))
    make_run(tmp_path / "one", 0.5)
    make_run(tmp_path / "two", 0.5, patches=["9" * 64])
    table = measured(tmp_path)
    assert [entry.samples for entry in table.entries if entry.trained_set == "base"] == [8]
    repeated = [entry for entry in table.entries if entry.trained_set == "layer:3"]
    assert [entry.runs for entry in repeated] == [1, 1] and len({entry.id for entry in repeated}) == 2


def test_a_gain_that_is_none_has_an_unbounded_share(tmp_path: Path) -> None:
    make_evaluation(tmp_path / "base", outcomes(0.3, 1))
    make_run(tmp_path / "full", 0.3, trained_set="full")
    make_run(tmp_path / "layer", 0.4)
    found = named(measured(tmp_path), "layer:3").sampled
    assert found and found.contribution and found.contribution.interval == "unbounded" and found.contribution.point is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=30))
def test_a_rank_counts_the_intervals_that_lie_wholly_above(intervals: list[tuple[float, float]]) -> None:
    assert ranks(intervals) == [1 + sum(low > high for low, _ in intervals) for _, high in intervals]
    assert min(ranks(intervals)) == 1


def test_published_figures_stand_beside_what_is_measured_without_interval_or_rank(runs: Path) -> None:
    board = build(runs)
    entries = [(table, entry) for table in board.tables for entry in table.entries if entry.mark is Mark.PUBLISHED]
    assert all(one and one.rank is one.interval is one.to_base is one.to_full is None for _, e in entries for one in (e.sampled, e.greedy))
    study = published().studies[0]
    (found,) = [e for t, e in entries if (t.suite, e.model, e.trained_set) == ("math500/test", study.model, "layer:10")]
    assert found.sampled and found.sampled.pass_rate == pytest.approx(study.score("layer:10", "MATH500") / 100)
    assert any(entry.mark is Mark.UNVERIFIED for entry in measured(runs, "math500/test").entries)
    averages = {e.trained_set: e for t, e in entries if e.model == study.model and t.suite.startswith("average of math500, gsm8k")}
    printed = averages["layer:10"].sampled
    assert printed and printed.contribution and (printed.contribution.point, printed.contribution.interval) == (1.14, None)
    assert averages["mid:5"].runs == 3 and averages["layer:10"].runs == 1


BREAKS: dict[str, Any] = {
    "half a manifest": lambda place: (place / MANIFEST).write_text('{"schema_version": 3, "pol'),
    "half of the samples": lambda place: (place / SAMPLES).write_bytes((place / SAMPLES).read_bytes()[:999]),
    "a sample twice": lambda place: _rewrite(place, lambda rows: [*rows[:-1], rows[-2]]),
    "another order": lambda place: _rewrite(place, lambda rows: rows[::-1]),
    "an item fewer": lambda place: _rewrite(place, lambda rows: rows[:-1]),
}


def _rewrite(place: Path, change: Any) -> None:
    write_samples(place / SAMPLES, change(make_samples(outcomes(0.3, 1))))


@pytest.mark.parametrize("damage", BREAKS)
def test_a_broken_run_is_named_and_left_out(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_runs(tmp_path / "runs")
    before = measured(root)
    make_evaluation(root / "broken", outcomes(0.3, 1), policy="broken")
    BREAKS[damage](root / "broken")
    capsys.readouterr()
    assert main(["leaderboard", str(root), "--output", str(tmp_path / "site")]) == 0
    shown = capsys.readouterr().out
    assert "left out: broken: " in shown and str(root) not in shown.partition("page:")[0]
    board = json.loads((tmp_path / "site/leaderboard.json").read_text())
    assert [one["directory"] for one in board["left_out"]] == ["broken"] and board["left_out"][0]["problem"]
    assert measured(root) == before


def test_the_files_hold_the_same_and_nothing_of_the_machine(runs: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert main(["leaderboard", str(runs), "--output", str(site)]) == 0
    assert sorted(path.name for path in site.iterdir()) == ["index.html", "leaderboard.csv", "leaderboard.json"]
    board = json.loads((site / "leaderboard.json").read_text())
    rows = list(csv.DictReader((site / "leaderboard.csv").open()))
    entries = {
        (entry["id"], name): entry[name] for table in board["tables"] for entry in table["entries"] for name in ("sampled", "greedy")
    }
    assert len(rows) == len([one for one in entries.values() if one])
    for row in rows:
        one = entries[row["id"], row["decoding"]]
        assert float(row["pass_rate"]) == one["pass_rate"] and (row["rank"] or None) == (one["rank"] and str(one["rank"]))
        assert (float(row["to_full_p"]) if row["to_full_p"] else None) == (one["to_full"] and one["to_full"]["difference"]["p"])
    assert all(str(runs) not in path.read_text() for path in site.iterdir())


def test_names_do_not_become_formulas_or_control_characters(tmp_path: Path) -> None:
    place = make_evaluation(tmp_path / "runs/one", outcomes(0.3, 1), policy="=HYPERLINK(1)", model="/home/somebody/\x1b[31mred\u202e")
    assert place.is_dir() and main(["leaderboard", str(tmp_path / "runs"), "--output", str(tmp_path / "site")]) == 0
    row = next(row for row in csv.DictReader((tmp_path / "site/leaderboard.csv").open()) if row["mark"] == "unverified")
    assert (row["trained_set"], row["model"]) == ("'=HYPERLINK(1)", "\\x1b[31mred\\u202e")


def test_a_mark_counts_only_beside_the_files_it_vouches_for(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path / f"layer-{seed}", 0.5, seed=seed)
    for seed, mark in enumerate((Mark.REGENERATED, Mark.CHECKED)):
        place = tmp_path / f"layer-{seed}/test"
        told = Verified(
            mark=mark,
            evaluation_sha256=sha256(place / MANIFEST),
            samples_sha256=sha256(place / SAMPLES),
            graded=10,
            lost=0,
            regenerated=0,
            onelayer="0.1.0",
            finished="2026-11-21T00:00:00+00:00",
        )
        assert named(measured(tmp_path), "layer:3").mark is Mark.UNVERIFIED
        (place / VERIFIED).write_text(told.model_dump_json())
    assert named(measured(tmp_path), "layer:3").mark is Mark.CHECKED  # the weakest of its runs
    manifest = tmp_path / "layer-0/test" / MANIFEST
    manifest.write_text(manifest.read_text() + "\n")
    assert named(measured(tmp_path), "layer:3").mark is Mark.UNVERIFIED
