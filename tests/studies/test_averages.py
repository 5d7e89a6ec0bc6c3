"""Averages over suites on the leaderboard, as C_math and C_all: the means of the suites, never of their ratios, whoever measured them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import make_evaluation, make_run, outcomes

from onelayer.evals.records import Decoding, Source, read_evaluation
from onelayer.evals.statistics import FloatArray, mean_difference
from onelayer.pages.viewer.profile_items import agreement
from onelayer.pages.viewer.profile_page import Measure, profiles
from onelayer.studies.contribution import contribution_over_tasks
from onelayer.studies.leaderboard.build import build
from onelayer.studies.leaderboard.marks import Mark
from onelayer.studies.leaderboard.records import Entry, LeaderboardTable
from onelayer.studies.profiles import Coefficient, on_common_items, profile_agreement

MATH = {"math500/test": 90, "gsm8k/test": 160, "olympiadbench/test": 70, "amc23/test": 40}
RATES = {"base": 0.3, "full": 0.6, "layer:3": 0.55}
LAYERS = {f"layer:{layer}": rate for layer, rate in enumerate((0.35, 0.45, 0.58, 0.6, 0.5, 0.38))}


def measure(directory: Path, split: str, items: int, rate: float, seed: int, **fields: Any) -> Path:
    values: dict[str, Any] = {"split": split, "digest": hashlib.sha256(split.encode()).hexdigest()} | fields
    return make_evaluation(directory, outcomes(rate, seed, items=items), **values)


def make_policies(root: Path, suites: Mapping[str, int], seeds: int = 2, policies: Mapping[str, float] = RATES) -> Path:
    """Base, full and layers on all suites; each evaluation has a directory of its own."""
    for number, (split, items) in enumerate(suites.items()):
        measure(root / "base" / str(number), split, items, RATES["base"], number)
    for name in policies.keys() - {"base"}:
        for seed in range(seeds):
            run = make_run(root / f"{name}-{seed}".replace(":", "-"), policies[name], trained_set=name, seed=seed)
            seen = read_evaluation(run / "test").manifest
            for number, (split, items) in enumerate(suites.items()):
                fields = {"policy": name, "trained": seen.trained[0], "patches": seen.patches}
                measure(run / str(number), split, items, policies[name], 100 * seed + number + sum(map(ord, name)), **fields)
    return root


def rates(root: Path, name: str, suites: Mapping[str, int], greedy: bool = False) -> list[FloatArray]:
    """(R, I) of each suite."""
    found = []
    for number in range(len(suites)):
        read = [read_evaluation(path / str(number)) for path in sorted(root.glob(f"{name}*"))]
        found.append(np.stack([one.greedy.rate_I if greedy else one.sampled.rate_I for one in read]))
    return found


def average(root: Path, domain: str) -> LeaderboardTable:
    (table,) = [table for table in build(root).tables if table.domain == domain and table.averaged]
    return table


def named(table: LeaderboardTable, trained_set: str) -> Entry:
    (entry,) = [entry for entry in table.entries if entry.trained_set == trained_set and entry.mark is not Mark.PUBLISHED]
    return entry


@pytest.mark.parametrize("greedy", [False, True])
def test_c_math_is_the_ratio_of_the_mean_gains_beside_the_published_one(tmp_path: Path, greedy: bool) -> None:
    root = make_policies(tmp_path, MATH)
    table = average(root, "math")
    base, full, layer = (rates(root, name, MATH, greedy) for name in ("base", "full", "layer-3"))
    found = named(table, "layer:3").greedy if greedy else named(table, "layer:3").sampled
    assert found and found.to_base and found.to_full and found.contribution
    assert found.pass_rate == pytest.approx(np.mean([rate_RI.mean() for rate_RI in layer]))
    assert found.by_seed == pytest.approx(np.mean([rate_RI.mean(axis=1) for rate_RI in layer], axis=0))
    share = contribution_over_tasks([rate_RI[0] for rate_RI in base], full, layer)
    assert (found.contribution.point, found.contribution.interval) == (share.point, share.fieller)
    assert found.to_base.difference == share.gain and found.to_full.difference == share.to_full
    assert found.to_base.difference == mean_difference([a - b for a, b in zip(layer, base, strict=True)])
    assert (table.items, table.averaged, table.suite) == (360, dict.fromkeys(MATH, 0.25), "average of math500, gsm8k, olympiadbench, amc23")
    entry = named(table, "layer:3")
    assert entry.seeds == [0, 1] and len(entry.directories) == 8 and len(named(table, "base").directories) == 4
    published = {entry.model for entry in table.entries if entry.mark is Mark.PUBLISHED}
    assert published == {"Qwen3-1.7B-Base", "Qwen3-4B-Base", "Qwen3-8B-Base"}


def test_a_group_of_one_s_own_and_the_mean_of_groups(tmp_path: Path) -> None:
    """Each group has the same weight, and each suite of a group. A task of lm-eval, greedy alone, leaves the sampled mean out."""
    suites = {"mine/test": 50, "yours/test": 60, "lm-eval:theirs": 70}
    root = make_policies(tmp_path, suites, seeds=1)
    for place in [*root.glob("base/2"), *root.glob("*-0/2")]:
        manifest = read_evaluation(place).manifest
        changed = manifest.model_copy(update={"source": Source.LM_EVAL, "repeats": Decoding.SAMPLED, "max_tokens": 0})
        (place / "evaluation.json").write_text(changed.model_dump_json())
    members = [{"suite": name, "directory": str(number)} for number, name in enumerate(suites)]
    rate = {"mean": 0.5, "se": 0.1, "low": 0.4, "high": 0.6}
    groups = {"sums": ["mine/test", "yours/test"], "words": ["lm-eval:theirs"]}
    told = {name: {"suites": of, "sampled": rate, "greedy": rate} for name, of in groups.items()}
    (root / "base" / "suites.json").write_text(json.dumps({"suites": members, "groups": told}))
    sums, overall = average(root, "sums"), average(root, "all")
    for name in ("base", "full", "layer:3"):
        mine, yours, theirs = (rate_RI.mean() for rate_RI in rates(root, name.replace(":", "-"), suites, greedy=True))
        found = named(overall, name)
        assert found.sampled is None and found.greedy and found.greedy.pass_rate == pytest.approx((mine + yours) / 4 + theirs / 2)
        alone = named(sums, name).greedy
        assert alone and alone.pass_rate == pytest.approx((mine + yours) / 2)
    assert not [table for table in build(root).tables if table.domain == "words"], "a mean of one suite is that suite"
    layer = named(overall, "layer:3").greedy
    assert layer and layer.contribution and layer.to_full and overall.suite == "overall: average of sums, words"


def test_who_lacks_a_suite_has_no_average_and_what_is_no_group_is_named(tmp_path: Path) -> None:
    root = make_policies(tmp_path, MATH, seeds=1)
    measure(root / "full-0" / "few", "gsm8k/test", 20, 0.9, 5, policy="full")  # fewer items than the others: not these
    measure(root / "other" / "0", "math500/test", 90, 0.9, 5, policy="layer:5")
    for name in ("no-json", "no-group"):
        (root / name).mkdir()
    (root / "no-json" / "suites.json").write_text("{")
    (root / "no-group" / "suites.json").write_text('{"suites": [{"suite": 1}], "groups": {"a": "b"}}')
    board = build(root)
    assert {one.directory for one in board.left_out} == {"no-json", "no-group"}
    entries = {entry.trained_set for entry in average(root, "math").entries if entry.mark is not Mark.PUBLISHED}
    assert entries == {"base", "full", "layer:3"}


def test_profiles_of_averages_agree_by_what_they_share(tmp_path: Path) -> None:
    """That of the math average with that of one of its suites: half of the page's table."""
    root = make_policies(tmp_path, MATH, policies=LAYERS)
    found = profiles(build(root), Decoding.SAMPLED, Measure.GAIN)
    (whole,) = [one for one in found if one.weights]
    (part,) = [one for one in found if one.task == "gsm8k/test"]
    assert whole.task == "average of math500, gsm8k, olympiadbench, amc23" and not whole.has_items and part.has_items
    by_layer = [rates(root, name.replace(":", "-"), MATH) for name in LAYERS]
    tasks = {split: (0.25, np.stack([layer[number] for layer in by_layer])) for number, split in enumerate(MATH)}
    alone = {"gsm8k/test": (1.0, tasks["gsm8k/test"][1])}
    names, layers, *figures = agreement(root, (whole, part), Decoding.SAMPLED)
    true = profile_agreement(*on_common_items(tasks, alone), same_items=True)
    expected = [true[coefficient] for coefficient in (Coefficient.SPEARMAN, Coefficient.PEARSON)]
    assert (names.figure, layers.figure) == (whole.name, "6")
    assert [cell.figure for cell in figures] == [f"{value:.2f}" for one in expected for value in (one.measured, one.corrected)]
    assert [cell.detail for cell in figures[1::2]] == [f"[{one.low:.2f}, {one.high:.2f}]" for one in expected]
