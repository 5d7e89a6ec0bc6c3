"""A study through Ray: the figures of one that runs after another, whatever is killed; runs that fail are told and stop no other."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from e2e.commands import figures, finish, lines, onelayer, start, stop_when

from onelayer.cli.main import main
from onelayer.common.reading import read_yaml_mapping

STUDY = [
    *("study", "quickstart", "trainer.steps=3", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.checkpoint_every=1"),
    *("eval.items=24", "eval.n=2", "study.trained_sets=[layers:1-2]", "study.lr_grid=[3e-4,1e-3]", "study.validation_items=16"),
    *("study.base_samples=2", "study.seeds=[0,1]"),
]


def patches(directory: Path) -> dict[Path, bytes]:
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("patch.safetensors")}


def workers(driver: int) -> list[int]:
    """Processes of Ray below the driver that are at a task."""
    parents, found = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if (entry / "cmdline").read_bytes().startswith(b"ray::_perform"):
                found.append(int(entry.name))
        except OSError:
            continue

    def is_below(process: int) -> bool:
        return process == driver or (process in parents and is_below(parents[process]))

    return [process for process in found if is_below(process)]


def test_a_parallel_study_has_the_figures_of_one_run_after_another_whatever_is_killed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    onelayer(*STUDY, "--output", one)
    process = start(*STUDY, "--parallel", 2, "--threads", 1, "--output", two)

    def training() -> bool:
        return any(lines(path) for path in two.glob("*/*/metrics.jsonl"))

    while not (training() and (at_work := workers(process.pid))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(at_work[0], signal.SIGKILL)
    stop_when(process, lambda: len(patches(two)) >= 3, signal.SIGKILL)  # the driver, in the middle
    assert "done" in onelayer("study", "status", two).stdout
    shown = finish(start("study", two / "study.yaml", "--parallel", 2, "--threads", 1, "--output", two))
    assert "13 of 13 done" in shown.stderr
    assert patches(two) == patches(one) and len(patches(one)) == 9
    assert figures(two) == figures(one)


@pytest.mark.parametrize("parallel", [[], ["--parallel", "2"]])
def test_a_run_that_fails_is_told_and_stops_no_other(tmp_path: Path, parallel: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A rate that no weights survive."""
    wild = [*STUDY, "study.seeds=[0]", "study.lr_grid=[3e-4]", "study.lr_by_set={layer:1: [1e30]}", "trainer.warmup_steps=0"]
    assert main([*wild, *parallel, "--output", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == ["base", "full", "layer:2"]
    (told,) = report["failed"]
    assert told.startswith("layer:1, lr 1e+30, seed 0: could not be done: ") and "not finite" in told
    assert "could not be done" in " ".join(capsys.readouterr().out.split())


def test_workers_without_memory_are_told_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ray ends the workers of a node whose memory is nearly full; here any memory counts as nearly full."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    assert main([*STUDY, "--parallel", "2", "--threads", "1", "--output", str(tmp_path), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines()[-1].startswith("onelayer: out of memory: ") and "--memory" in shown.err


def test_algorithms_of_several_domains_are_set_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The figures of the pairs are those of the algorithms' own evaluations, under one environment for all."""
    small = [*STUDY[2:], "study.trained_sets=[layer:3]", "study.seeds=[0]", "study.lr_grid=[1e-3]", "trainer.lr=1e-3"]
    words = ["study", "math", "code", "study.algorithms=[grpo,gigpo,dr_grpo]", *small, "--output", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0 and not list(tmp_path.iterdir())
    assert main(words) == 0
    found = json.loads((tmp_path / "compare.json").read_text())
    assert {section["split"] for section in found["sections"]} == {"arithmetic/test", "functions/test"}
    for section in found["sections"]:
        rates = {row["policy"]: row["sampled"]["pass_rate"]["mean"] for row in section["rows"]}
        pairs = {(pair["policy"], pair["sampled"]["other"]): pair["sampled"]["difference"] for pair in section["algorithms"]}
        assert len(pairs) == 6  # three of each trained set
        for (policy, other), difference in pairs.items():
            assert policy.split()[1] == other.split()[1] and difference["difference"] == pytest.approx(rates[policy] - rates[other])
    turns = {study.name: read_yaml_mapping(study / "study.yaml")["env"]["max_turns"] for study in tmp_path.iterdir() if study.is_dir()}
    assert turns == {f"{domain}-{name}": 2 for domain in ("math", "code") for name in ("grpo", "gigpo", "dr_grpo")}
    capsys.readouterr()
    assert main(["study", "status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("3 of 3 done") == 6


def test_without_a_study_or_a_cluster_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in (
        (["study", "status", str(tmp_path)], "no study"),
        (["study", "status"], "takes the directory"),
        ([*STUDY, "--threads", "2", "--output", str(tmp_path / "a")], "give --parallel"),
        ([*STUDY, "--parallel", "2", "--memory", "90000", "--output", str(tmp_path / "a")], "--memory 90000: no node has"),
        ([*STUDY, "--parallel", "2", "--gpus", "9", "--output", str(tmp_path / "a")], "--gpus 9: no node has"),
        ([*STUDY, "--ray", "127.0.0.1:1", "--output", str(tmp_path / "a")], "no Ray cluster"),
        ([*STUDY, "study.lr_by_set={layer:5: [1e-3]}", "--output", str(tmp_path / "a")], "layer:5 is not a set of this study"),
        ([*STUDY, "study.trained_sets=[layers:1-9]", "--output", str(tmp_path / "a")], "layers:0-5"),
        (["train", "quickstart", "trainer.trained_set=layers:each", "--output", str(tmp_path / "a")], "study.trained_sets takes it"),
    ):
        assert main(words) == 2
        shown = capsys.readouterr().err
        assert reason in shown and "Traceback" not in shown
