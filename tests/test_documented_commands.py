"""Commands of README, docs and examples: each is parsed as the command line would parse it, and some are run in order, made small.

A command is a line of a fenced block, or text in backquotes, that begins with `onelayer`, `make` or `python`. Text with a placeholder
(FILE, DIR, NAME, ...) is the form of a command: its verb, its options and its keys must exist, too.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from onelayer.cli import main as cli
from onelayer.cli.arguments import split_recipe
from onelayer.cli.board import read_board
from onelayer.cli.config import compose, compose_suite, load_studies
from onelayer.evals import suites

ROOT = Path(cli.__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDER = re.compile(r"\b(RECIPE|FILE|DIR|NAME|URL|VERB|RUN|RUNS_DIR|TASK|SET|ID|PYTHON|QWEN|GEMMA|HOST|N|M)\b|\.\.\.")

TRAINING = ["trainer.steps=1", "trainer.prompts_per_step=8", "trainer.group_size=4"]
MEASURING = ["eval.items=8", "eval.n=1", "study.base_samples=1", "study.validation_items=8"]
SMALL = {
    "train": TRAINING,
    "study": [*TRAINING, *MEASURING, "study.seeds=[0]", "study.lr_grid=[1e-3]", "study.trained_sets=[layer:3]"],
    "eval": ["--items", "8", "--n", "1"],
    "check": ["--items", "2"],
}
RUNNABLE = [
    "onelayer env list",
    "onelayer env new riddles",
    "onelayer env check riddles:riddles/Riddles-v0",
    "onelayer train env.id=riddles:riddles/Riddles-v0 trainer.trained_set=layer:3 --output runs/riddles",
    "onelayer study quickstart 'study.trained_sets=[layer:0,layer:3,layer:5]' 'study.seeds=[0,1,2]' --output runs/profile",
    "onelayer train quickstart trainer.trained_set=mid:2 trainer.lr=1e-3 --output runs/mid2",
    "onelayer train --resume runs/mid2",
    "onelayer train --resume runs/mid2 trainer.steps=40",
    "onelayer eval --suite arithmetic",
    "onelayer eval --suite arithmetic --patch runs/mid2/patch.safetensors agent.max_tokens=40 --output runs/mid2/test",
    "onelayer compare runs/profile runs/mid2 --output runs/comparison",
    "onelayer runs list",
    "onelayer leaderboard runs --output site",
    "onelayer submit runs/profile --output profile.tar",
    "onelayer verify profile.tar --regenerate 20",
    "onelayer export --run runs/mid2 --output models/mid2",
    "onelayer grade math --input responses.jsonl --output graded.jsonl",
    "onelayer doctor",
]
"""In the order of README, so that what a command reads was made by one before it."""
REPLACED = {"trainer.steps=40": "trainer.steps=2"}
"""Words of these commands in whose place shorter ones stand."""
NOT_RUN = {
    r"^onelayer [a-z]+( [a-z]+)?$": "the name of a verb",
    PLACEHOLDER.pattern: "the form of a command",
    r"^make |^python ": "CI calls the targets itself; scripts of bench/ take minutes to hours, and some need other packages",
    r"Qwen/|real/|hub:|lm-eval:": "needs a model or data from the hub",
    r"math500|humaneval|paper-|gsm8k": "needs published problem sets",
    r" play |^onelayer view": "waits for a person",
    r"--ray|--parallel": "needs Ray",
    r"vllm|http://": "needs vLLM or a server",
    r"ours\.|my_algorithms": "runs code of the page, which tests/e2e/test_own_parts.py does",
    r"outputs/|runs/trl-|runs/ours-layer3": "imports and evaluates what TRL has made, as tests/other_trainers does",
    r"^onelayer grade cut": "tests/evals/test_cutting.py runs it",
    r"^onelayer eval --file": "tests/e2e/test_board.py runs such files",
    r"^onelayer estimate|paper/": "tests/cli/test_estimate.py and tests/e2e/test_paper_recipes.py run smaller ones",
    r"estimate": "tests/e2e/test_environments.py runs every command of the page",
    r"^onelayer study (math|code|alfworld|quickstart)": "takes minutes to hours, as one that is run here does with other keys",
    r"mine\.tar|theirs|runs/quickstart|--dry-run": "as one that is run here, with other directories",
    r"--output site$": "run above",
}
"""Why the other commands are parsed and not run."""


def commands(page: Path) -> Iterator[str]:
    """Every command of a page, without comments, prompts and variables of the environment."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines += [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        for part in re.sub(r"\s+#\s.*$", "", line).split(" && "):
            part = re.sub(r"^(\$ )?([A-Z_]+=\S+ )*", "", part.strip())
            if re.match(r"(onelayer|make|python) \S", part) and "import " not in part:
                yield part


def examples() -> Iterator[tuple[str, str]]:
    """Every command of the scripts in examples/, as bash expands it, beside a command that only writes its arguments down."""
    with tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), Path(name) / "log"
        (folder / "onelayer").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {log}\necho >> {log}\n[ "$2" != new ] || mkdir -p "$3"\n')
        (folder / "onelayer").chmod(0o755)
        python = Path(sys.executable).parent
        for script in sorted((ROOT / "examples").glob("*.sh")):
            log.write_text("")
            # A directory that is there stands for the model and for the results.
            arguments = [str(folder), str(folder)] if script.stem == "own_model" else [str(folder)]
            path = os.pathsep.join([name, str(python), os.environ["PATH"]])
            subprocess.run(["bash", script, *arguments], check=True, env={**os.environ, "PATH": path}, capture_output=True)
            for words in log.read_text().strip().split("\n\n"):
                yield shlex.join(["onelayer", *words.split("\n")]).replace(name, "DIR"), script.name


DOCUMENTED = sorted({(command, page.name) for page in PAGES for command in commands(page)})


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb and its parameters. Raises what the command line would report."""
    command: Any = get_command(cli.app)
    name = "onelayer"
    while hasattr(command, "commands") and words:
        name, *words = words
        command = command.commands[name]
    if not words:
        return name, {}  # a verb alone is its name
    return name, command.make_context(name, words).params


@pytest.mark.parametrize(("command", "page"), [*[one for one in DOCUMENTED if one[0].startswith("onelayer")], *examples()])
def test_every_command_is_one_that_the_command_line_takes(command: str, page: str) -> None:
    form = PLACEHOLDER.search(command)
    verb, found = parsed(shlex.split(command.replace("RECIPE", "quickstart").replace("[KEY=VALUE...]", ""))[1:])
    keys = found.get("overrides") or []
    if verb == "study" and found.get("recipe") not in (None, "status"):
        words = [found["recipe"], *keys]
        load_studies([word for word in words if "=" not in word] or [None], [word for word in words if "=" in word])
    elif verb == "train" and found.get("resume"):
        compose(split_recipe(found["recipe"], keys)[1])
    elif verb == "train" and found:
        recipe, keys = split_recipe(found["recipe"], keys)
        load_studies([recipe], keys)
    elif verb == "eval" and (board := found.get("file")):
        if not form and board.name != "BOARD.yaml":
            read_board(ROOT / board, keys, found["output"])
    elif verb == "eval" and found:
        selection = suites.select(found["suite"])
        for suite in selection.suites:
            if not suite.startswith(suites.LM_EVAL) and not form:
                compose_suite(suite, [*selection.overrides, *keys])


def test_a_command_is_run_or_there_is_a_reason() -> None:
    rest = [one for one in DOCUMENTED if one[0] not in RUNNABLE and not any(re.search(pattern, one[0]) for pattern in NOT_RUN)]
    assert rest == [], "run these in test_the_readme_runs_in_order, or say in NOT_RUN why not"


@pytest.mark.parametrize(("command", "page"), [one for one in DOCUMENTED if one[0].startswith("make")])
def test_every_target_is_in_the_makefile(command: str, page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert [word for word in shlex.split(command)[1:] if "=" not in word and word not in targets] == []


@pytest.mark.parametrize(("command", "page"), [one for one in DOCUMENTED if one[0].startswith("python")])
def test_every_script_is_there_and_has_the_options(command: str, page: str) -> None:
    script, *words = shlex.split(command)[1:]
    if script == "-m":
        return  # modules of others, and onelayer.cli.reference, which `make docs` runs
    text = (ROOT / script).read_text()
    assert [word for word in words if word.startswith("--") and f'"{word.partition("=")[0]}"' not in text] == []


def test_all_pages_are_reached_from_the_readme() -> None:
    reached, due = set[Path](), [ROOT / "README.md"]
    while due:
        page = due.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8"))
        due += [target for link in links if (target := (page.parent / link).resolve()) not in reached]
    assert [page.name for page in PAGES if page not in reached] == []


def test_the_readme_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer steps and items. What `pip install --editable riddles` does, a path does here."""
    documented = {command for command, _ in DOCUMENTED}
    assert [command for command in RUNNABLE if command not in documented] == []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "riddles"), *sys.path]))
    monkeypatch.syspath_prepend(str(tmp_path / "riddles"))
    (tmp_path / "responses.jsonl").write_text('{"response": "so it is 2", "gold": "2"}\n')
    for command in RUNNABLE:
        words = [REPLACED.get(word, word) for word in shlex.split(command)[1:]]
        small = SMALL.get(next((word for word in words[:2] if word in SMALL), ""), [])
        words += [] if "--resume" in words else small
        code, said = cli.main(words), capsys.readouterr().err
        assert code == 0 or (code == 1 and "nothing was learned" in said), (command, said)  # of so few episodes
        assert "not evaluated" not in said, command
    assert "layer:3" in (tmp_path / "runs" / "comparison" / "compare.json").read_text()
