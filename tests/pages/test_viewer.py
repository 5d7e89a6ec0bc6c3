"""The pages of `onelayer view` show what the records of a directory say."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import ITEMS, make_run, rewrite
from scipy import stats
from served_pages import Ask, settled, texts, wait_for
from viewed import metrics

from onelayer.cli.main import main
from onelayer.common.text import shown
from onelayer.evals.records import Decoding
from onelayer.evals.samples import SAMPLES, read_samples, read_table
from onelayer.pages.findings_tables import in_words
from onelayer.pages.report import details, leaderboard, write_report
from onelayer.pages.viewer.charts import axis
from onelayer.pages.viewer.episode_page import url
from onelayer.studies.profiles import Coefficient, profile_agreement

LAYERS = [f"layer-{layer}" for layer in range(6)]


def test_every_page_shows_what_it_should(all_of_it: Ask) -> None:
    shows = {
        "/": ["1 cannot be read", "broken/evaluation.json", "grpo/layer-3-seed-0/test", "7 of 40", "12 of 40", "training"],
        "/curves": ["arithmetic", "grpo full", "gigpo layer:5", "7 of 40 steps"],
        "/profiles": ["tiny: gigpo on arithmetic/test", "middle third", "Qwen3-1.7B-Base, by task and layer (published)", "layer 5"],
        "/profiles?measure=gain&decoding=greedy": ["gain over base in pass@1"],
        "/items": ["160 of 160 items", "item-0", "grpo layer:3"],
        "/run?run=training": ["run, unfinished", "7 of 40", "share solved", "trainer.lr"],
        "/run?run=grpo/layer-3-seed-0": ["run, complete", "grpo/layer-3-seed-0/test", "patch_sha256"],
        "/run?run=broken": ["broken/evaluation.json"],
        "/episodes?run=base": ["800 episodes", "What is 3 + 4?", "<|im_start|>user", "Three and four are"],
        "/episodes?run=going-on": ["12 episodes so far", "answer 0"],
        "/episodes?run=grpo/layer-3-seed-0": ["160 episodes", "advantage 1", "step 0, sample 0"],
    }
    for path, expected in shows.items():
        status, page = all_of_it(path)
        assert status == 200, path
        for text in expected:
            assert text in texts(page), (path, text)


def test_the_page_of_a_study_is_its_report_and_the_terminal_tells_the_same(ask: Ask, study, tmp_path: Path, capsys) -> None:
    runs = tmp_path / "runs"
    report = study(seeds=2)
    write_report(report, runs / "ours")
    (runs / "ours/study.yaml").write_text("name: ours\n")
    make_run(runs / "ours" / "full", 0.5, trained_set="full")
    page = texts(ask("/run?run=ours")[1])
    share = report.arm("layer:3").sampled.contribution
    assert main(["runs", "show", str(runs / "ours")]) == 0
    told = capsys.readouterr().out
    for figure in (f"{share.point:.2f}", f"[{share.fieller[0]:.2f}, {share.fieller[1]:.2f}]", "|D|/SE(D)", "Differences"):
        assert figure in page and figure in told
    for table in (leaderboard(report), *details(report)):
        assert all(cell.figure in page for row in table.rows for cell in row)
    assert report.digest in page and "ours/full/test" in page
    assert all(text in page for words in in_words(report).values() for text in words)
    status, charts = ask("/report?run=ours")
    assert status == 200 and charts == (runs / "ours/report.html").read_text()
    assert ask("/report?run=ours/full")[0] == 404
    (runs / "ours/report.json").write_text("{")
    assert "ours/report.json: Invalid JSON" in texts(ask("/run?run=ours")[1])


def test_the_list_of_runs_folds_studies_and_sorts(ask: Ask, tmp_path: Path, study) -> None:
    runs = tmp_path / "runs"
    (runs / "ours").mkdir()
    (runs / "ours/study.yaml").write_text("name: ours\n")
    write_report(study(), runs / "ours")
    for number, rate in (("2", 0.3), ("10", 0.6)):
        make_run(runs / "ours" / number, rate)
        make_run(runs / f"run-{number}", rate)
    listed = lambda path: re.findall(r'<th scope="row".*?run=([^"]*)"', ask(path)[1])  # noqa: E731
    alone = ["run-2", "run-2%2Ftest", "run-10", "run-10%2Ftest"]
    assert listed("/") == ["ours", *alone]
    assert "ours 4 inside" in texts(ask("/")[1]) and "C(layer:3) 0." in texts(ask("/")[1])
    assert len(listed("/?all=1")) == 9 and len(listed("/?q=10")) == 4
    assert listed("/?sort=-sampled")[:2] == ["run-10%2Ftest", "run-2%2Ftest"]
    assert listed("/?sort=greedy&all=1")[0].endswith("2%2Ftest")
    assert listed("/?sort=date")[:2] == ["run-2", "run-10"]
    assert "2026-11-21 00:00" in texts(ask("/")[1]) and "1.5 min" in texts(ask("/")[1])


def test_the_figures_are_those_of_the_leaderboard(made: Path, all_of_it: Ask) -> None:
    from onelayer.studies.leaderboard.build import build

    board = build(made)
    entries = [entry for table in board.tables for entry in table.entries if entry.algorithm == "grpo" and entry.directories]
    entry = next(entry for entry in entries if entry.trained_set == "layer:3")
    assert entry.sampled and entry.sampled.contribution and entry.sampled.contribution.point
    _, page = all_of_it("/profiles")
    identity = re.findall(r'href="/profiles\?profile=([0-9a-f]{12})[^"]*">arithmetic/test</a> <span class="quiet">grpo<', page)
    _, page = all_of_it(f"/profiles?profile={identity[0]}")
    low, high = entry.sampled.contribution.interval  # pyright: ignore[reportGeneralTypeIssues]
    assert f"layer 3: {entry.sampled.contribution.point:.2f} [{low:.2f}, {high:.2f}]" in texts(page)


def test_who_solved_what_is_what_the_records_say(made: Path, all_of_it: Ask) -> None:
    table = read_table(made / "base" / SAMPLES).to_pylist()
    rates = {}
    for row in table:
        if row["decoding"] == "sampled":
            rates.setdefault(row["item"], []).append(row["verdict"] == "correct")
    _, page = all_of_it("/items?q=base&order=easiest")
    cells = re.findall(r'aria-label="(item-\d+), base: (\d+) %"', page)
    assert len(cells) == 100 and all(f"{100 * sum(rates[item]) / 4:.0f}" == rate for item, rate in cells)
    assert [int(rate) for _, rate in cells] == sorted((int(rate) for _, rate in cells), reverse=True)
    _, page = all_of_it("/items?q=base&which=none")
    assert set(re.findall(r'aria-label="(item-\d+), base: 0 %"', page)) == {item for item, found in rates.items() if not any(found)}


def greedy(evaluation: Path) -> np.ndarray:
    """Whether each item's greedy reply is right, as the records have it."""
    return np.array([float(row.correct) for row in read_samples(evaluation / SAMPLES) if row.decoding == "greedy"])


def test_the_best_layer_is_chosen_on_other_items_and_seeds_than_it_is_reported_on(made: Path, all_of_it: Ask) -> None:
    rate = {(name, seed): greedy(made / "gigpo" / f"{name}-seed-{seed}" / "test") for name in ["full", *LAYERS] for seed in (0, 1)}
    chooses = np.random.default_rng(0).permutation(ITEMS) < ITEMS // 2
    best = max(range(6), key=lambda layer: rate[f"layer-{layer}", 0][chooses].mean())
    base, full, layer = (one[~chooses].mean() for one in (greedy(made / "base"), rate["full", 1], rate[f"layer-{best}", 1]))
    page = settled(all_of_it, "/profiles?decoding=greedy&measure=gain")
    said = page[page.index("Best layer: ") :]
    assert said.startswith(
        f"Best layer: layer {best}, chosen on one half of the items and training seed 0. On the other half and training seed 1,"
    )
    for figure in (
        f"C(k) {(layer - base) / (full - base):.2f} [",
        f"minus base {layer - base:+.3f} \u00b1",
        f"minus full {layer - full:+.3f} \u00b1",
    ):
        assert figure in said.partition("(95% over items).")[0]


def test_how_far_profiles_agree_is_told_of_their_pass_rates(made: Path, all_of_it: Ask) -> None:
    gigpo, grpo = (
        np.array([[greedy(made / algorithm / f"{layer}-seed-{seed}" / "test") for seed in (0, 1)] for layer in LAYERS])
        for algorithm in ("gigpo", "grpo")
    )
    measured = np.corrcoef(*(stats.rankdata(one.mean(axis=(1, 2))) for one in (gigpo, grpo)))[0, 1]
    true = profile_agreement(gigpo, grpo, same_items=True)
    row = "gigpo on arithmetic/test and grpo on arithmetic/test 6"
    for one in (true[Coefficient.SPEARMAN], true[Coefficient.PEARSON]):
        row += f" {one.measured:.2f} {one.corrected:.2f} [{one.low:.2f}, {one.high:.2f}]"
    assert true[Coefficient.SPEARMAN].measured == pytest.approx(measured)
    assert measured < 1 and row in settled(all_of_it, "/profiles?decoding=greedy")


def test_what_a_profile_lacks_is_said(ask: Ask, tmp_path: Path) -> None:
    for algorithm in ("grpo", "gigpo"):
        for layer in (1, 2):
            run = tmp_path / "runs" / f"{algorithm}-{layer}"
            make_run(run, 0.5, trained_set=f"layer:{layer}", config={"algorithm": algorithm}, layers=None)
    page = settled(ask, "/profiles")
    assert "How many layers tiny has is not known here: the middle third is of those up to the highest trained." in page
    assert "Best layer: none, since it takes the base, and one full-parameter run of this training." in page
    assert "How far two profiles agree is told from six layers on that both have." in page


def test_the_middle_third_is_that_of_the_models_layers(ask: Ask, tmp_path: Path) -> None:
    for layer in (1, 3, 4, 7, 8):
        make_run(tmp_path / "runs" / f"layer-{layer}", 0.5, trained_set=f"layer:{layer}", layers=12)
    page = settled(ask, "/profiles")
    assert re.findall(r"layer (\d+) middle third", page) == ["4", "7"] and "not known here" not in page


def answered(run: Path, solved: list[int], answer: str | None = "right") -> None:
    """Every reply of the run's evaluation is right on these fourths of the items; wrong answers are the run's own."""
    rows = read_samples(run / "test" / SAMPLES)
    for at, row in enumerate(rows):
        right = int(row.item.removeprefix("item-")) // 40 in solved
        rows[at] = row.model_copy(update={"verdict": "correct" if right else "wrong", "answer": answer if right else run.name})
    rewrite(run / "test", rows)


def test_what_policies_do_together(ask: Ask, tmp_path: Path) -> None:
    """Any two of three layers share one of the three fourths that they solve, so a vote solves all three; full solves two."""
    for name, solved in {"full": [0, 1], "layer:1": [0, 1], "layer:2": [1, 2], "layer:3": [0, 2]}.items():
        make_run(tmp_path / "runs" / name[-1], 0.5, trained_set=name)
        answered(tmp_path / "runs" / name[-1], solved)
    page = settled(ask, "/items?q=layer")
    assert "0.333 [0.25" in page and "mean Jaccard index over all pairs of 3 policies" in page
    assert "3 replies of grpo full, which differ by chance: 1.000 [" in page
    theirs = r"0\.500 \[0\.42\d, 0\.57\d\] by that of 3 replies of grpo full \(maj@3\)"
    ours = r"0\.750 \[0\.67\d, 0\.81\d\] of the items solved by the majority of one reply of each of 3 single-layer policies"
    assert re.search(rf"{ours}, {theirs}\. The difference is \+0\.250 \u00b1 0\.068, p < 0\.001\.", page)
    assert f"{(1 + 5 / 3) / 6:.3f} [" in settled(ask, "/items"), "full is one of those shown: 1 with layer 1, 1/3 with the others"
    assert "votes are over sampled replies" in settled(ask, "/items?decoding=greedy")
    assert "it takes two policies" in settled(ask, "/items?q=layer:1")
    make_run(tmp_path / "runs" / "turns", 0.9, trained_set="layer:4", env={"max_turns": 2})
    apart = r"mean Jaccard index over all pairs of 3 policies.*Left out: 1, measured under another protocol than grpo full\."
    wait_for(lambda: re.search(apart, texts(ask("/items?q=layer")[1])))
    shutil.rmtree(tmp_path / "runs" / "turns")
    answered(tmp_path / "runs" / "1", [0, 1], answer=None)
    wait_for(lambda: "there is nothing to vote on: the environment names no answers" in texts(ask("/items?q=layer")[1]))
    for layer in (4, 5):
        make_run(tmp_path / "runs" / str(layer), 0.5, trained_set=f"layer:{layer}")
    lacking = "a reply of each of 5 policies stands against 5 replies of grpo full, which has 4; name fewer policies"
    wait_for(lambda: lacking in texts(ask("/items?q=layer")[1]))


def test_pages_filters_and_permalinks_lead_to_the_episodes_of_the_file(made: Path, all_of_it: Ask) -> None:
    rows = read_samples(made / "base" / SAMPLES)
    seen = []
    for page in range(1, 17):
        seen += re.findall(r'<span class="id">([^<]*)</span>', all_of_it(f"/episodes?run=base&page={page}")[1])
    assert seen == [row.item for row in rows]
    for item, alike in (("item-1", lambda name: name == "item-1"), ("TEM-1", lambda name: "tem-1" in name)):
        expected = [row for row in rows if row.verdict == "wrong" and row.decoding == "sampled" and alike(row.item)]
        _, text = all_of_it(f"/episodes?run=base&part=sampled&verdict=wrong&item={item}")
        assert f"{len(expected)} of 800 episodes" in texts(text)
    for row in (rows[0], rows[333], rows[-1]):
        _, text = all_of_it(url("episodes", run="base", open=f"{row.decoding}/{row.sample}/{row.item}"))
        assert f"<h2>{row.item} " in text and row.steps[0].response in html.unescape(text)
    assert all_of_it("/episodes?run=base&open=greedy/7/item-0")[0] == 404


def test_an_episode_shows_its_gold_answer_and_the_parts_of_its_reward(ask: Ask, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "own", 0.5)
    one = read_samples(run / "test" / SAMPLES)[0]
    rewrite(run / "test", [one.model_copy(update={"gold": "3/4", "reward": 0.6, "metrics": {"format": 0.1, "closeness": 0.5}})])
    assert "reward 0.6 format 0.1 closeness 0.5 gold answer 3/4" in texts(ask("/episodes?run=own/test")[1])
    metrics(run, 2)
    lines = [json.loads(line) | {"part/format": 0.1 * at} for at, line in enumerate((run / "metrics.jsonl").read_text().splitlines())]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "format at each step, the last 0.1" in ask("/run?run=own")[1]
    assert "format against steps" in texts(ask("/curves?y=part/format")[1])


def test_training_episodes_show_the_advantages_and_prompts_when_asked_for(all_of_it: Ask) -> None:
    address = url("episodes", run="grpo/layer-3-seed-0", part="30", verdict="wrong", open="30/3/train-30")
    _, page = all_of_it(address)
    assert "Turn 3 of 3 reward 2 advantage \u22121" in texts(page) and "2 of 160 episodes" in texts(page)
    assert "<|im_start|>" not in texts(page)
    _, page = all_of_it(address + "&prompts=1")
    assert texts(page).count("<|im_start|>user") == 3


def test_a_real_run_and_its_evaluation_are_shown(ask: Ask, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "layer"
    words = ["trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]
    assert main(["train", "quickstart", *words, "--output", str(run)]) == 0
    patch = ["--patch", str(run / "patch.safetensors"), "--output", str(run / "test")]
    assert main(["eval", "--suite", "arithmetic", "--items", "4", "--n", "2", *patch]) == 0
    assert "layer:3 on arithmetic" in texts(ask("/")[1]) and "seed 0" in texts(ask("/curves")[1])
    _, page = ask("/episodes?run=layer&part=1")
    assert "4 of 8 episodes" in texts(page) and re.search(r"advantage (none|[\d.\u2212]+)", texts(page))
    for row in read_samples(run / "test" / SAMPLES):
        _, page = ask(url("episodes", run="layer/test", open=f"{row.decoding}/{row.sample}/{row.item}"))
        said = re.findall(r'<div class="text[^"]*">([^<]*)</div>', page)
        assert [html.unescape(text) for text in said[:3]] == [
            shown(getattr(row.steps[0], name)) for name in ("observation", "prompt", "response")
        ]


def test_an_evaluation_begins_with_both_scores(made: Path, all_of_it: Ask) -> None:
    rows = {decoding: [row.correct for row in read_samples(made / "base" / SAMPLES) if row.decoding == decoding] for decoding in Decoding}
    page = texts(all_of_it("/run?run=base")[1])
    for decoding, name in ((Decoding.SAMPLED, "temperature 1"), (Decoding.GREEDY, "greedy")):
        rate = np.mean(rows[decoding])
        assert f"pass@1 {decoding} {rate:.3f} [" in page.partition("Episodes")[0]
        assert re.search(rf"{name} \d {rate:.3f} \[0\.\d\d\d, 0\.\d\d\d\]", page.partition("Manifest")[0])


def test_curves_are_told_apart_by_what_differs(ask: Ask, tmp_path: Path) -> None:
    for name, config in (("a", {"lr": 1e-4}), ("b", {"lr": 1e-4, "clip": 0.1}), ("c", {"lr": 3e-4})):
        metrics(make_run(tmp_path / "runs" / name, 0.5, config=config), 3)
    _, page = ask("/curves")
    seen = texts(page)
    for name in ("grpo layer:3 lr 0.0001, clip 0.2", "grpo layer:3 lr 0.0001, clip 0.1", "grpo layer:3 lr 0.0003, clip 0.2"):
        assert name in seen
    assert re.findall(r'text-anchor="middle">([^<]*)<', page) == ["0", "1", "2"]


@given(st.lists(st.integers(0, 10**6).map(float), min_size=1))
def test_what_is_counted_has_no_tick_between_two_numbers(values: list[float]) -> None:
    found = axis(values, zero=True, whole=True)
    step = (found.high - found.low) / (len(found.ticks) - 1)
    assert step >= 1 and step == pytest.approx(round(step))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.booleans())
def test_an_axis_holds_its_values_and_its_ticks(values: list[float], zero: bool) -> None:
    found = axis(values, zero=zero)
    room = (found.high - found.low) * 1e-6
    assert all(found.low - room <= value <= found.high + room for value in [*values, *([0.0] if zero else [])])
    assert 2 <= len(found.ticks) <= 13 and len({label for label, _ in found.ticks}) == len(found.ticks)
    assert all(-0.001 <= place <= 100.001 for _, place in found.ticks)
