"""The command itself: help, exit codes, and what counts as a defect."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from onelayer.cli import doctor, main
from onelayer.cli.config import load

VERBS = ["train", "study", "eval", "compare", "export", "grade", "env", "runs", "doctor"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        *([verb, "--help"] for verb in VERBS),
        ["grade", "math", "--help"],
        ["grade", "code", "--help"],
        *(["runs", verb, "--help"] for verb in ("list", "show", "diff", "delete")),
        *(["env", verb, "--help"] for verb in ("list", "check", "play", "new", "generate")),
    ],
)
def test_help_explains_with_an_example(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 0
    shown = capsys.readouterr().out
    if len(arguments) > 1:
        assert f"onelayer {' '.join(arguments[:-1])}" in shown
    else:
        assert [verb for verb in VERBS if f"\n  {verb} " not in shown] == []


def test_the_short_options_and_an_empty_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"onelayer {version('onelayer')}\n"
    assert main.main(["train", "-h"]) == 0
    assert "onelayer train quickstart" in capsys.readouterr().out
    assert main.main(["train", "quickstart", "--output", ""]) == 2
    assert capsys.readouterr().err == "onelayer: an argument is empty; leave it out, or give it a value\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "onelayer: interrupted\n"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs/x"), 2, "onelayer: runs/x: permission denied\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x"), 2, "onelayer: runs/x: no space left on device\n"),
        (ModuleNotFoundError("No module named 'datasets'", name="datasets"), 2, "onelayer: the package datasets is missing; "),
    ],
)
def test_what_is_not_a_defect_is_one_line(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: (_ for _ in ()).throw(error))
    assert main.main(["doctor"]) == code
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ValueError("a defect"), OSError("without a path")])
def test_a_defect_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: (_ for _ in ()).throw(error))
    with pytest.raises(type(error)):
        main.main(["doctor"])


def test_doctor_names_what_is_missing_and_what_brings_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main.main(["doctor"]) == 0
    versions = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("scipy", "datasets") else versions(name))
    capsys.readouterr()
    assert main.main(["doctor"]) == 1
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "missing, required" in lines["scipy"]
    assert "pip install scipy" in lines["scipy"]
    assert "missing, optional" in lines["datasets"]
    assert "pip install 'onelayer[hub]'" in lines["datasets"]


@pytest.mark.parametrize("verb", ["train", "study"])
def test_a_dry_run_shows_the_prompt_the_parameters_and_the_items(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    overrides = ["trainer.trained_set=layer:2", "study.trained_sets=[layer:2]", "env.size=64", "study.validation_items=32"]
    assert main.main([verb, "quickstart", *overrides, "--dry-run", "--full"]) == 0
    shown, _, recipe = capsys.readouterr().out.partition("\n\nname: ")
    assert "Reason step by step and put the final answer in \\boxed{}.<|im_end|>" in shown
    assert re.search(r"^ layer:2 +213,312 +15.1% ", shown, re.MULTILINE)
    assert "64 items, sha256 " in shown
    Path("shown.yaml").write_text(f"name: {recipe}")
    found = load("shown.yaml")
    settled = f"trainer.tokens_per_forward={found.trainer.tokens_per_forward}"  # which the recipe leaves to the model's shape
    assert found == load("quickstart", [*overrides, settled])
    assert list(tmp_path.iterdir()) == [tmp_path / "shown.yaml"]


def test_eval_prints_both_decodings_and_where_the_records_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["eval", "--suite", "arithmetic", "--items", "4", "--n", "2", "env.difficulty=2"]) == 0
    shown = capsys.readouterr().out
    (directory,) = (tmp_path / "runs").iterdir()
    result = json.loads((directory / "evaluation.json").read_text())
    for scores in (result["sampled"], result["greedy"]):
        assert f"{scores['pass_rate']['mean']:.3f}" in shown
    assert directory.name in shown
    assert (result["items"], result["sampled"]["samples"], result["split"]) == (4, 2, "arithmetic/test")


def test_sigint_ends_the_process_with_130(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"  # a shell's background job ignores it
    code += "import onelayer.cli.doctor as d, time; d.examine = lambda: (print('ready', flush=True), time.sleep(60));"
    code += "from onelayer.cli.main import main; raise SystemExit(main(['doctor']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == "onelayer: interrupted\n"
    assert process.returncode == 130
