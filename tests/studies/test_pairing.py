"""The same runs through a study's report, the comparison, the leaderboard and the viewer's curves: the same policies, the same figures."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path

import pytest
from made_runs import make_evaluation, make_run, outcomes
from rich.console import Console

from onelayer.evals.records import Decoding, Recorded, read_evaluation
from onelayer.evals.replies import STATISTICS
from onelayer.pages import compare_page
from onelayer.pages.leaderboard_site import to_csv, write_site
from onelayer.pages.report import render_evaluation, replies
from onelayer.pages.viewer.curve_page import trained_policies
from onelayer.pages.viewer.run_index import Index
from onelayer.studies.compare import compare
from onelayer.studies.compare_records import ComparisonRow
from onelayer.studies.leaderboard.build import build
from onelayer.studies.leaderboard.records import Entry
from onelayer.studies.pairing import corrected, pooled
from onelayer.studies.read import read
from onelayer.studies.study_report import ArmRecords, StudyReport, Training, build_report
from onelayer.trainers.config import Config, dump

RATES = {"full": 0.6, "layer:3": 0.55, "layer:0": 0.4}


def make(root: Path, seeds: dict[str, list[int]]) -> Path:
    """A base, and runs of each trained set with these seeds, with all files that any reader asks for."""
    make_evaluation(root / "base", outcomes(0.3, 1))
    for name, rate in RATES.items():
        for seed in seeds[name]:
            run = make_run(root / f"{name.replace(':', '-')}-{seed}", rate, trained_set=name, seed=seed, config={"steps": 2})
            recorded = json.loads((run / "run.json").read_text())["config"]
            (run / "config.yaml").write_text(dump(Config.model_validate(recorded)))
            steps = [{"step": step, "reward": rate / 2 + seed / 100 + step / 10, "tokens": 50.0} for step in range(2)]
            (run / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return root


def compared(root: Path) -> dict[str, ComparisonRow]:
    order = ["base", *(path.name for name in RATES for path in sorted(root.glob(f"{name.replace(':', '-')}-*")))]
    (section,) = compare([entry for name in order for entry in read(root / name)]).sections
    return {row.policy.removeprefix("grpo "): row for row in section.rows}


def ranked(root: Path) -> dict[str, Entry]:
    (table,) = [table for table in build(root).tables if table.suite == "arithmetic/test" and table.items]
    return {entry.trained_set: entry for entry in table.entries}


def reported(root: Path, seeds: list[int]) -> StudyReport:
    def records(name: str) -> list[Recorded]:
        return [read_evaluation(root / f"{name.replace(':', '-')}-{seed}" / "test") for seed in seeds]

    training = Training(seeds=seeds, lr=3e-4, lr_tried=[], parameters=1, share=0.5, seconds=1.0)
    arms = [ArmRecords("base", [read_evaluation(root / "base")]), *(ArmRecords(name, records(name), training) for name in RATES)]
    return build_report(arms, recipe="made", model="tiny", parameters=1, algorithm="grpo", versions={}, seconds=0.0)


@pytest.mark.parametrize("seeds", [[0], [2, 0, 1]])
def test_the_same_runs_have_the_same_figures_everywhere(tmp_path: Path, seeds: list[int]) -> None:
    root = make(tmp_path, {name: seeds for name in RATES})
    report, rows, entries = reported(root, seeds), compared(root), ranked(root)
    for arm in report.arms:
        row, entry = rows[arm.name], entries[arm.name]
        assert row.seeds == entry.seeds == ([] if arm.name == "base" else sorted(seeds))
        for decoding in Decoding:
            mine, theirs, standing = arm.measured(decoding), row.figures(decoding), entry.standing(decoding)
            assert standing
            assert mine.pass_rate.mean == theirs.pass_rate.mean == standing.pass_rate
            assert (mine.pass_rate.low, mine.pass_rate.high) == (theirs.pass_rate.low, theirs.pass_rate.high) == standing.interval
            told = [[getattr(one, name) for name in STATISTICS] for one in (mine, theirs, standing.replies)]
            assert told[0] == told[1] == told[2]
            if arm.name == "base":
                continue
            assert theirs.to_base and standing.to_base
            assert mine.to_base == theirs.to_base.difference == standing.to_base.difference
            assert theirs.to_base.p_holm == standing.to_base.p_holm
            if arm.name != "full":
                assert mine.contribution and standing.contribution and theirs.to_first and standing.to_full
                assert (mine.contribution.point, mine.contribution.fieller) == (standing.contribution.point, standing.contribution.interval)
                assert mine.contribution.to_full == theirs.to_first.difference == standing.to_full.difference
                assert mine.p_holm == theirs.to_first.p_holm == standing.to_full.p_holm


def test_every_statistic_of_the_replies_is_shown_everywhere(tmp_path: Path) -> None:
    root = make(tmp_path / "runs", {name: [0] for name in RATES})
    one, report, board = read_evaluation(root / "base").manifest, reported(root, [0]), build(root)
    tables = [replies(report), *compare_page.tables(compare(read(root / "base")), "arithmetic")]
    page = write_site(board, tmp_path / "site").read_text()
    lines = csv.DictReader(to_csv(board).splitlines())
    row = next(row for row in lines if (row["mark"], row["trained_set"], row["decoding"]) == ("unverified", "base", "sampled"))
    (console := Console(file=StringIO(), width=200)).print(render_evaluation(one))
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert one.sampled.valid == one.greedy.valid == 0.75
    for name, statistic in STATISTICS.items():
        value = getattr(one.sampled, name)
        assert statistic.label in printed and statistic.text(value) in printed
        assert float(row[name]) == value and f'"label": "{statistic.label}", "name": "{name}"' in page
        for table in (tables[0], tables[-1]):
            column = [cell.figure for cell in table.header].index(statistic.label)
            assert table.rows[0][column].figure == statistic.text(value)


def test_runs_without_a_common_seed_are_paired_by_one_rule(tmp_path: Path) -> None:
    root = make(tmp_path, {"full": [0, 1], "layer:3": [2, 3, 4], "layer:0": [1, 2]})
    rows, entries = compared(root), ranked(root)
    for name, seeds in (("layer:3", 2), ("layer:0", 1)):
        one, other = rows[name].sampled.to_first, entries[name].sampled
        assert one and other and other.to_full
        assert (one.difference, one.seeds) == (other.to_full.difference, other.to_full.seeds)
        assert one.seeds == seeds


def test_the_curves_pool_as_the_figures_do(tmp_path: Path) -> None:
    root = make(tmp_path, {name: [0, 1, 2] for name in RATES})
    index = Index(root)
    runs = [(name, one, index.recipe(name, one), index.curve(name, one)) for name, one in index.entries().items() if one.kind == "run"]
    found = {policy.name: sorted((seed.seed for seed in policy.seeds), key=str) for policy in trained_policies(runs)}
    assert found == {f"grpo {name}": row.seeds for name, row in compared(root).items() if name != "base"}


def test_a_seed_that_was_trained_again_is_no_other_seed() -> None:
    runs = [("a", 0, "w1"), ("a", 1, "w2"), ("a", 0, "w3"), ("b", 0, "w4"), ("a", 0, "w1")]
    found = pooled(runs, lambda run: run[0], lambda run: run[1], lambda run: run[2])
    first, again, other = found
    assert first == {0: [runs[0], runs[4]], 1: [runs[1]]} and again == {0: [runs[2]]} and other == {0: [runs[3]]}


def test_a_family_is_what_is_compared_with_the_same_policy() -> None:
    assert corrected([("base", 0.01), None, ("full", 0.04), ("base", 0.03)]) == [0.02, None, 0.04, 0.03]
