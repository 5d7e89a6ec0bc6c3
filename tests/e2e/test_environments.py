"""Environments of one's own: the page that builds one, and a stranger's package, by command line alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-environment.md"
STRANGER = '''\
"""Say a number that the question names, in two turns."""

import re

import gymnasium
from gymnasium.spaces import Text

SPLITS = {"train": range(10, 60), "validation": range(60, 70), "test": range(70, 99)}


class Echo(gymnasium.Env):
    observation_space = action_space = Text(1_000_000, min_length=0, charset="".join(map(chr, range(9, 127))))

    def __init__(self, split="train"):
        self.items = {f"echo-{n}": {"number": n, "type": "even" if n % 2 == 0 else "odd"} for n in SPLITS[split]}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.item = (options or {}).get("item") or str(self.np_random.choice(list(self.items)))
        self.number, self.turn = self.items[self.item]["number"], 0
        return f"What is {self.number} + 0?", {"item": self.item}

    def step(self, action):
        self.turn += 1
        solved = re.findall(r"[0-9]+", action)[-1:] == [str(self.number)]
        return f"What is 0 + {self.number}?", float(solved), solved, self.turn == 2 and not solved, {"valid": True}

    def gold(self, item):
        return [str(self.items[item]["number"])]


gymnasium.register("echo/Echo-v0", entry_point=Echo)
'''
PROJECT = """\
[project]
name = "echo-environment"
version = "1"
[tool.setuptools]
py-modules = ["echo_environment"]
"""
SETTINGS = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: build with the setuptools that is here
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def bash(command: str, directory: Path, **settings: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=directory, env=SETTINGS | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def uninstalled() -> Iterator[None]:
    yield
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-y", "-q", "estimate"], check=True)


def test_the_page_builds_trains_and_evaluates_one(tmp_path: Path, uninstalled: None) -> None:
    shown = ""
    for language, file, text in re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        if language == "bash":
            shown += bash(text, tmp_path)
        elif file:
            (tmp_path / file).write_text(text)
        else:  # what the page says is printed, but for the speed of the machine
            assert [line for line in text.splitlines() if "a second" not in line] == [
                line for line in shown.splitlines() if line.startswith(("ok", "estimate:")) and "a second" not in line
            ]
    rewards = [json.loads(line)["reward"] for line in (tmp_path / "runs/estimate/metrics.jsonl").read_text().splitlines()]
    assert rewards[0] < 0.65 and rewards[-1] > 0.85
    base, layer = (
        json.loads((tmp_path / f"runs/estimate-{policy}/evaluation.json").read_text())["sampled"]["pass_rate"]
        for policy in ("base", "layer3")
    )
    assert base["high"] < layer["low"]


def test_a_strangers_package_is_trained_and_evaluated(tmp_path: Path) -> None:
    assert len((STRANGER + PROJECT).splitlines()) <= 40
    package, site, elsewhere = tmp_path / "package", tmp_path / "site", tmp_path / "elsewhere"
    for directory in (package, elsewhere):
        directory.mkdir()
    (package / "echo_environment.py").write_text(STRANGER)
    (package / "pyproject.toml").write_text(PROJECT)
    bash(f"pip install -q --no-deps --target {site} {package}", elsewhere)
    env = "echo_environment:echo/Echo-v0"
    assert "keeps the contract" in bash(f"onelayer env check {env}", elsewhere, PYTHONPATH=str(site))
    small = "trainer.steps=2 trainer.prompts_per_step=8 trainer.group_size=4 trainer.lr=1e-3 trainer.trained_set=layer:3"
    bash(f"onelayer train env.id={env} {small} --output run", elsewhere, PYTHONPATH=str(site))
    bash(f"onelayer eval --suite {env} --patch run/patch.safetensors --n 2 --output evaluation", elsewhere, PYTHONPATH=str(site))
    manifest = json.loads((elsewhere / "evaluation/evaluation.json").read_text())
    assert manifest["items"] == 29 and set(manifest["sampled"]["by_type"]) == {"even", "odd"}
