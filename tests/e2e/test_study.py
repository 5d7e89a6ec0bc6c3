"""A study from the command line: what it leaves, that nothing is done twice, and that a stopped one ends in the same figures."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from e2e.commands import figures, finish, lines, message, onelayer, replies, start, stop_when

from onelayer.agents.patch import Patch
from onelayer.cli.main import main
from onelayer.studies.compare import TrainedRun
from onelayer.studies.read import read_study
from onelayer.trainers.run import Run

SIZES = ["trainer.steps=3", "trainer.prompts_per_step=4", "trainer.group_size=4", "eval.items=40", "eval.n=2"]
SETS = [
    "study.trained_sets=[layer:1]",
    "study.seeds=[0,1]",
    "study.lr_grid=[3e-4,1e-3]",
    "study.base_samples=4",
    "study.validation_items=16",
]
CURVES = ["eval.every=1", "eval.keep_best=true", "eval.panel_items=16"]
STUDY = ["study", "quickstart", *SIZES, *SETS, *CURVES]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study made at once, and the same one stopped three times: in training (kill, SIGTERM) and in an evaluation (kill)."""
    folder = tmp_path_factory.mktemp("studies")
    whole, stopped = folder / "whole", folder / "stopped"
    at_once, process = start(*STUDY, "--output", whole), start(*STUDY, "--output", stopped)
    stop_when(process, lambda: bool(lines(stopped / "full" / "lr-0.001-seed-0" / "metrics.jsonl")), signal.SIGKILL)
    process = start(*STUDY, "--output", stopped)
    stop_when(process, lambda: bool(lines(stopped / "layer-1" / "lr-0.0003-seed-0" / "metrics.jsonl")), signal.SIGTERM)
    command = shlex.split(message(finish(process, 143).stderr).partition("continue with: ")[2])
    assert command == ["onelayer", "study", str(stopped / "study.yaml"), "--output", str(stopped)]
    process = start(*command[1:])
    stop_when(
        process, lambda: any(journal.stat().st_size > 20_000 for journal in stopped.glob("layer-1/*/test/journal.jsonl")), signal.SIGKILL
    )
    onelayer(*command[1:])
    shown = finish(at_once).stdout
    assert shown.endswith(f"report: {whole / 'report.html'}\n")
    assert all(row in shown for row in ("base greedy", "base maj@4", "full", "layer:1"))
    return whole, stopped


def test_a_run_of_a_study_is_what_it_is_alone(studies: tuple[Path, Path], tmp_path: Path) -> None:
    """The runs of a study share one base in memory: each begins with the base's weights, whatever was trained before."""
    run = next((studies[0] / "layer-1").glob("lr-0.001-seed-0"))
    onelayer("train", str(run / "config.yaml"), "--output", str(tmp_path / "alone"))
    assert (tmp_path / "alone" / "patch.safetensors").read_bytes() == (run / "patch.safetensors").read_bytes()


def test_what_a_study_leaves(studies: tuple[Path, Path]) -> None:
    finished, _ = studies
    report = figures(finished)
    base, full, layer = report["arms"]
    assert [arm["name"] for arm in report["arms"]] == ["base", "full", "layer:1"]
    assert (report["items"], report["samples"], report["base_samples"], report["interval_over"]) == (40, 2, 4, "seeds and items")
    assert base["majority"] and base["training"] is None
    for arm, name in ((full, "full"), (layer, "layer-1")):
        tried = {trial["lr"]: trial["score"] for trial in arm["training"]["lr_tried"]}
        assert tried.keys() == {3e-4, 1e-3} and tried[arm["training"]["lr"]] == max(tried.values())
        runs = {path.name for path in (finished / name).iterdir()}
        chosen = arm["training"]["lr"]
        assert runs == {"lr-0.0003-seed-0", "lr-0.001-seed-0", f"lr-{chosen}-seed-1"}
        assert [curve["seed"] for curve in arm["curves"]] == [0, 1]
        for seed, rate in enumerate(arm["sampled"]["by_seed"]):
            samples = replies(finished / name / f"lr-{chosen}-seed-{seed}" / "test", "sampled")
            assert len(samples) == 80 and rate == pytest.approx(sum(sample["reward"] for sample in samples) / 80)
    page = (finished / "report.html").read_text()
    assert "<title>" in page and f"{full['sampled']['pass_rate']['mean']:.3f}" in page


def test_the_best_checkpoint_is_measured_beside_the_last(studies: tuple[Path, Path]) -> None:
    """On the study's items, with the seeds of all its policies; a comparison of the study is of what the runs ended in."""
    finished, _ = studies
    for arm in figures(finished)["arms"][1:]:
        runs = [finished / arm["name"].replace(":", "-") / f"lr-{arm['training']['lr']}-seed-{seed}" for seed in (0, 1)]
        last_rate = []
        for run, step in zip(runs, arm["best"]["steps"], strict=True):
            manifest = json.loads((run / "run.json").read_text())
            assert manifest["best"]["step"] == step
            place = run / ("best" if manifest["best"]["patch_sha256"] != manifest["patch_sha256"] else "test")
            evaluation = json.loads((place / "evaluation.json").read_text())
            assert evaluation["patches"] == [manifest["best"]["patch_sha256"]]
            assert evaluation["trained"][0]["step"] == (step if place.name == "best" else None)
            assert (place.name == "best") == (step < 3) == (run / "best").exists()
            last_rate.append(evaluation["sampled"]["pass_rate"]["mean"])
        assert arm["best"]["sampled"]["pass_rate"]["mean"] == pytest.approx(sum(last_rate) / 2)
        assert [part["layer"] for part in arm["training"]["weight_changes"]] == ([*range(6), None] if arm["name"] == "full" else [1])
    trained = [entry for entry in read_study(finished) if isinstance(entry, TrainedRun)]
    assert all(measurement.manifest.patches == [run.patch] for run in trained for measurement in run.measurements)


def test_a_stopped_study_ends_in_the_same_figures(studies: tuple[Path, Path]) -> None:
    whole, stopped = studies
    assert figures(stopped) == figures(whole)


def test_a_second_call_repeats_nothing(studies: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    whole, _ = studies
    report = {whole / "report.json", whole / "report.html"}
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path not in report}
    kept = figures(whole)
    assert main([*STUDY, "--output", str(whole)]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert figures(whole) == kept
    capsys.readouterr()
    assert main([*STUDY, "trainer.steps=4", "--output", str(whole)]) == 2
    assert f"{whole / 'study.yaml'}: differs" in message(capsys.readouterr().err)


def test_runs_that_had_nothing_to_learn_from_are_noted_and_the_study_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One token is never an answer."""
    few = [*STUDY, "study.seeds=[0]", "study.lr_grid=[1e-4]", "trainer.steps=1", "eval.items=2", "eval.n=1", "agent.max_tokens=1"]
    assert main([*few, "--output", str(tmp_path)]) == 0
    warnings = json.loads((tmp_path / "report.json").read_text())["warnings"]
    shown = " ".join(capsys.readouterr().out.split())
    for arm in ("full", "layer:1"):
        for warning in (
            f"{arm}, training: no group ever had an advantage (seed 0), so nothing was learned.",
            f"{arm}, training: 100% of the replies were cut off at agent.max_tokens=1, so their answers are not known; raise it.",
            f"{arm}, greedy: 100% of the replies were cut off at agent.max_tokens=1, so their answers are not known; raise it.",
        ):
            assert warning in warnings and warning in shown
    assert "nothing was learned" in (tmp_path / "report.html").read_text()


def test_a_signal_in_the_last_moment_of_a_run_stops_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_run = Run.finish

    def asked_to_stop(run: Run, result: Patch, keep_checkpoint: bool) -> Path | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return finish_run(run, result, keep_checkpoint)

    monkeypatch.setattr(Run, "finish", asked_to_stop)
    assert main([*STUDY, "trainer.steps=1", "eval.items=2", "--output", str(tmp_path / "study")]) == 143
    assert f"onelayer study {tmp_path / 'study' / 'study.yaml'}" in message(capsys.readouterr().err)
    assert len(list(tmp_path.rglob("run.json"))) == 1
