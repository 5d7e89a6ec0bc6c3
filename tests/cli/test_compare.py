"""`onelayer compare` on directories that the other verbs have made: runs, a study, evaluations, unfinished and broken ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.commands import replies

from onelayer.cli.main import main
from onelayer.evals.records import Decoding
from onelayer.pages.viewer.profile_page import Measure, profiles
from onelayer.pages.viewer.site import Site
from onelayer.pages.viewer.views import PAGES, TABS
from onelayer.studies.leaderboard.records import Leaderboard

SMALL = ["trainer.steps=2", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.lr=3e-4"]
EVALUATION = ["--items", "8", "--n", "2"]


def onelayer(*arguments: object) -> None:
    assert main(list(map(str, arguments))) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of one algorithm with their evaluations inside, one run of another evaluated elsewhere, a base, a planner, a study."""
    folder = tmp_path_factory.mktemp("made")
    for name, changes in {"one": [], "two": ["trainer.seed=1"], "other": ["trainer.algorithm=dr_grpo"]}.items():
        onelayer("train", "quickstart", *SMALL, *changes, "--output", folder / name)
        inside = folder / "elsewhere" if name == "other" else folder / name / "test"
        patch = folder / name / "patch.safetensors"
        onelayer("eval", "--suite", "arithmetic", *EVALUATION, "--patch", patch, "--output", inside)
    onelayer("eval", "--suite", "arithmetic", *EVALUATION, "--output", folder / "base")
    onelayer("eval", "--suite", "arithmetic", *EVALUATION, "--baseline", "gold", "--output", folder / "gold")
    study = ["study.trained_sets=[layer:1]", "study.lr_grid=[1e-4,3e-4]", "study.validation_items=8", "eval.items=8", "eval.n=2"]
    onelayer("study", "quickstart", *SMALL, *study, "--output", folder / "study")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may change, as the working directory."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def as_written_before(trainer: dict[str, Any]) -> dict[str, Any]:
    """The section of a run under grpo as releases wrote it in which the keys of all algorithms stood side by side."""
    others = {"gamma": 0.95, "step_weight": 1.0, "invalid_penalty": 0.01, "similarity": 1.0, "per_step_statistics": True}
    return trainer | {"algorithm": "grpo", "scale_advantages": True, "loss_weights": "sequence_mean"} | others


def test_runs_of_earlier_releases_are_read_and_pooled_with_others(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads(Path("one/run.json").read_text())
    recipe = manifest["config"] | {"trainer": as_written_before(manifest["config"]["trainer"])}
    Path("one/run.json").write_text(json.dumps(manifest | {"config": recipe}))
    Path("one/config.yaml").write_text(yaml.safe_dump(recipe))
    for complete in (True, False):
        assert main(["compare", "one", "two", "--output", f"out-{complete}"]) == 0
        (policy,) = json.loads(Path(f"out-{complete}/compare.json").read_text())["policies"]
        assert (policy["name"], [(run["seed"], run["finished"]) for run in policy["runs"]]) == ("grpo full", [(0, complete), (1, True)])
        if complete:
            onelayer("leaderboard", ".", "--output", "board")
            board = Leaderboard.model_validate_json(Path("board/leaderboard.json").read_bytes())
            (entry,) = [entry for table in board.tables for entry in table.entries if "one/test" in entry.directories]
            assert (entry.algorithm, entry.seeds) == ("grpo", [0, 1])
            onelayer("runs", "list", ".")
            assert "grpo full seed 0" in " ".join(capsys.readouterr().out.split())
            Path("one/run.json").unlink()  # as one that is under way
            shutil.rmtree("one/test")
    assert main(["train", "--resume", "one"]) == 2
    assert "what an earlier release has begun is continued with that release" in capsys.readouterr().err


def test_runs_side_by_side(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "one", "two", "other", "elsewhere", "base", "gold", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("page: out/compare.html\n")
    found = json.loads(Path("out/compare.json").read_text())
    (section,) = found["sections"]
    assert [(row["policy"], row["seeds"]) for row in section["rows"]] == [
        ("base", []),
        ("grpo full", [0, 1]),
        ("dr_grpo full", [0]),
        ("gold", []),
    ]
    for row in section["rows"]:
        samples = [sample for at in row["directories"] for sample in replies(Path(at), "sampled")]
        solved = sum(sample["verdict"] == "correct" for sample in samples) / len(samples)
        assert row["sampled"]["pass_rate"]["mean"] == pytest.approx(solved)
        assert f"{solved:.3f}" in shown
    pooled = found["policies"][0]
    manifest = json.loads(Path("one/run.json").read_text())
    assert (pooled["parameters"], pooled["domain"]) == (manifest["trained_parameters"], "arithmetic")
    metrics = [json.loads(line) for line in Path("one/metrics.jsonl").read_text().splitlines()]
    curve = pooled["runs"][0]["curve"]
    assert (curve["episodes"], curve["tokens"]) == (2 * 4 * 4, sum(line["tokens"] for line in metrics))
    assert [point["reward"] for point in curve["points"]] == [line["reward"] for line in metrics]


def test_a_study_shows_the_runs_it_reports(copy: Path) -> None:
    assert main(["compare", "study", "one", "--output", "out"]) == 0
    found = json.loads(Path("out/compare.json").read_text())
    report = json.loads(Path("study/report.json").read_text())
    tests = [row for section in found["sections"] for row in section["rows"] if section["split"] == "arithmetic/test"]
    assert len(found["sections"]) == 1  # the validation split chose a learning rate, it is no result
    rates = {arm["name"]: arm["sampled"]["pass_rate"]["mean"] for arm in report["arms"]}
    assert tests[0]["policy"] == "base" and tests[0]["sampled"]["pass_rate"]["mean"] == rates["base"]
    (layer,) = [row for row in tests if row["policy"] == "grpo layer:1"]
    assert layer["sampled"]["pass_rate"]["mean"] == rates["layer:1"]
    assert layer["sampled"]["to_base"]["difference"] == report["arms"][2]["sampled"]["to_base"]
    lr = {arm["name"]: arm["training"]["lr"] for arm in report["arms"][1:]}
    assert {policy["settings"]["trainer.lr"] for policy in found["policies"] if policy["trained_set"] == "layer:1"} == {lr["layer:1"]}


def test_what_was_measured_on_different_suites_is_shown_apart(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.jsonl").write_text("".join(f'{{"question": "{n} + {n} = ?", "answer": "{2 * n}"}}\n' for n in range(40)))
    onelayer("eval", "--suite", "own.jsonl/all", *EVALUATION, "--patch", "two/patch.safetensors", "--output", "far")
    capsys.readouterr()
    assert main(["compare", "one", "far", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert "8 items of arithmetic/test" in shown and "8 items of own.jsonl/all" in shown and "Differences" not in shown
    sections = json.loads(Path("out/compare.json").read_text())["sections"]
    assert [[row["sampled"][pair] for row in section["rows"] for pair in ("to_base", "to_first")] for section in sections] == [
        [None] * 2
    ] * 2


def test_a_run_that_goes_on_is_shown_as_such(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("run.json", "patch.safetensors"):
        (copy / "other" / name).unlink()
    metrics = Path("other/metrics.jsonl")
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0] + '{"step": 1, "re')
    assert main(["compare", "one", "other"]) == 0
    assert "dr_grpo full, seed 0: not finished, 1 of 2 steps done." in " ".join(capsys.readouterr().out.split())
    metrics.unlink()  # it has only just begun
    assert main(["compare", "other"]) == 0
    for name in ("full", "layer-1"):
        for run in (copy / "study" / name).iterdir():
            shutil.rmtree(run / "test", ignore_errors=True)
    assert main(["compare", "study", "--output", "under-way"]) == 0  # no rate is chosen yet: the runs that try them are shown
    names = [policy["name"] for policy in json.loads(Path("under-way/compare.json").read_text())["policies"]]
    assert names[1:3] == ["grpo full lr=0.0001", "grpo full lr=0.0003"]


def test_two_studies_say_the_same_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In one turn and in two: report, comparison, leaderboard and profile page show the same differences, and the curves stand apart."""
    monkeypatch.chdir(tmp_path)
    small = ["trainer.steps=2", "trainer.prompts_per_step=4", "trainer.group_size=4", "eval.items=16", "eval.n=2", "study.base_samples=2"]
    names = ["dr_grpo", "gigpo"]
    for name in names:
        onelayer("study", "math", f"trainer.algorithm={name}", *small, "study.trained_sets=[layer:1,layer:3]", "--output", f"runs/{name}")
    onelayer("compare", "runs/dr_grpo", "runs/gigpo", "--output", "out")
    onelayer("leaderboard", "runs", "--output", "site")
    shown = " ".join(capsys.readouterr().out.split())
    assert "gigpo full (2 turns) and dr_grpo full (1 turn) are not comparable: they were measured with different env.max_turns." in shown
    (section,) = json.loads(Path("out/compare.json").read_text())["sections"]
    board = Leaderboard.model_validate_json(Path("site/leaderboard.json").read_bytes())
    (table,) = [table for table in board.tables if table.items]
    checked = 0
    for name in names:
        report = json.loads(Path(f"runs/{name}/report.json").read_text())
        turns = "1 turn" if name == "dr_grpo" else "2 turns"
        assert report["settings"]["env.max_turns"] == int(turns[0])
        for decoding, arm in ((decoding, arm) for decoding in Decoding for arm in report["arms"]):
            (row,) = [row for row in section["rows"] if row["policy"] in (f"{name} {arm['name']}", arm["name"]) and row["apart"] == turns]
            (entry,) = [one for one in table.entries if (one.trained_set, one.apart) == (arm["name"], turns)]
            assert row["protocol"] == entry.protocol_sha256 == report["protocol"]
            if arm["name"] == "base":
                continue
            mine, theirs = row[decoding]["to_base"], entry.standing(decoding)
            assert theirs and theirs.to_base and mine["other"] == f"base ({turns})"
            assert mine["difference"] == asdict(theirs.to_base.difference) == arm[decoding]["to_base"]
            gains = [
                (figure.point, figure.interval)
                for profile in profiles(board, decoding, Measure.GAIN)
                for figure in profile.figures
                if figure.entry.id == entry.id
            ]
            expected = arm[decoding]["to_base"]
            assert gains == [(expected["difference"], (expected["low"], expected["high"]))] * (arm["name"] != "full")
            checked += 1
    assert checked == 12
    page = PAGES["curves"].show(Site(Path("runs"), TABS), {})
    assert [text in page for text in ("arithmetic, 1 turn", "arithmetic, 2 turns", ">arithmetic<")] == [True, True, False]


def test_evaluations_of_an_earlier_version_are_compared(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They record no tokenizer; where one does not record its settings either, it is shown, and the reason is told."""
    for place in ("base", "one/test"):
        path = Path(place, "evaluation.json")
        manifest = json.loads(path.read_text())
        del manifest["tokenizer"]
        path.write_text(json.dumps(manifest))
    assert main(["compare", "base", "one", "two", "--output", "out"]) == 0
    (section,) = json.loads(Path("out/compare.json").read_text())["sections"]
    assert [row["seeds"] for row in section["rows"]] == [[], [0, 1]] and section["rows"][1]["sampled"]["to_base"]["difference"]
    manifest = json.loads(Path("base/evaluation.json").read_text())
    Path("base/evaluation.json").write_text(json.dumps(manifest | {"config": {}}))
    capsys.readouterr()
    assert main(["compare", "base", "one", "--output", "bare"]) == 0
    assert "settings not recorded" in " ".join(capsys.readouterr().out.split())
    (section,) = json.loads(Path("bare/compare.json").read_text())["sections"]
    assert section["rows"][1]["sampled"]["to_base"]["difference"] is None


def damage(path: str, text: str | None = None) -> Callable[[], object]:
    """Write `text` to a file, or remove it."""
    return lambda: Path(path).unlink() if text is None else Path(path).write_text(text)


def unfinished_with_result() -> None:
    Path("one/run.json").unlink()


def broken_recipe() -> None:
    shutil.rmtree("one/test")
    Path("one/run.json").unlink()
    path = Path("one/config.yaml")
    path.write_text(path.read_text().replace("  steps: 2\n", "  steps: many\n"))


def empty_study() -> None:
    Path("empty").mkdir()
    shutil.copy("study/study.yaml", "empty")


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (lambda: shutil.rmtree("one"), "one: no such directory"),
        (lambda: (shutil.rmtree("one"), Path("one").write_text("")), "one: a file"),
        (lambda: (shutil.rmtree("one"), Path("one").mkdir()), "one: config.yaml study.yaml evaluation.json"),
        (broken_recipe, "one/config.yaml: trainer.steps"),
        (damage("one/run.json", "{"), "one/run.json: JSON resume"),
        (damage("one/metrics.jsonl"), "one/metrics.jsonl: gone"),
        (damage("one/metrics.jsonl", '{"step": 0}\n'), "one/metrics.jsonl:1: reward"),
        (damage("one/metrics.jsonl", ""), "one/metrics.jsonl: 0 2"),
        (damage("one/test/samples.parquet"), "one/test/samples.parquet: evaluation"),
        (damage("one/test/evaluation.json", "{}"), "one/test/evaluation.json: again"),
        (lambda: shutil.copytree("gold", "one/gold"), "one/gold: ended evaluate"),
        (unfinished_with_result, "one/test: ended evaluate"),
        (lambda: (empty_study(), shutil.rmtree("one"), Path("empty").rename("one")), "one: measured study"),
    ],
)
def test_what_is_broken_is_named_in_one_line(
    breaks: Callable[[], object], words: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks()
    assert main(["compare", "two", "one", "--output", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("onelayer: ") and said.count("\n") == 1
    assert [word for word in words.split() if word not in said] == []
    assert not Path("out").exists()
