"""A user's own environment, engine and algorithm in one package outside of the repository, through the real commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from onelayer.evals.records import MANIFEST
from onelayer.trainers.metrics import read_metrics

PARTS = '''\
"""An environment, an engine and an algorithm."""

from pathlib import Path

import gymnasium
from gymnasium.spaces import Text

from onelayer.agents.engine import TransformersEngine


class Boxed(gymnasium.Env):
    """Pays for a box, whatever is in it."""

    observation_space = action_space = Text(1_000_000, min_length=0, charset="".join(map(chr, range(9, 127))))

    def __init__(self, split="train"):
        numbers = {"train": range(0, 40), "validation": range(40, 50), "test": range(50, 60)}[split]
        self.items = {f"item-{n}": {"number": n} for n in numbers}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.item = (options or {}).get("item") or str(self.np_random.choice(list(self.items)))
        return f"What is {self.items[self.item]['number']} + 1?", {"item": self.item}

    def step(self, action):
        return "", float("boxed{" in action), True, False, {"item": self.item}


gymnasium.register("parts/Boxed-v0", entry_point=Boxed)


class Counted:
    """The engine on the base's model; it notes how many replies it made."""

    returns_tokens = True

    def __init__(self, base, config):
        self.inner = TransformersEngine(base.model, base.end_ids, config.max_batch)
        self.context, self.load, self.end_session = self.inner.context, self.inner.load, self.inner.end_session

    def generate(self, requests):
        for completion in self.inner.generate(requests):
            with Path("replies.txt").open("a") as file:
                file.write("x")
            yield completion


def shaped(steps, scale=1.0):
    """The reward less that of the whole rollout, and never nothing."""
    Path("steps.txt").write_text(str(len(steps.reward_N)))
    mean = sum(steps.reward_N) / len(steps.reward_N)
    return [scale * (reward - mean) + 0.1 * (-1) ** at for at, reward in enumerate(steps.reward_N)]
'''


def test_a_package_of_ones_own_is_trained_with_and_evaluated(tmp_path: Path) -> None:
    package, elsewhere = tmp_path / "package" / "parts", tmp_path / "elsewhere"
    for folder in (package, elsewhere):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "all.py").write_text(PARTS)
    there = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(there), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def onelayer(*words: str) -> None:
        done = subprocess.run([sys.executable, "-m", "onelayer", *words], cwd=elsewhere, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    env, engine = "parts.all:parts/Boxed-v0", "agent.engine=parts.all:Counted"
    algorithm = ["trainer.algorithm=parts.all:shaped", "trainer.algorithm.options.scale=2"]
    small = ["trainer.steps=2", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.trained_set=layer:3", "agent.max_tokens=16"]
    onelayer("train", f"env.id={env}", engine, *algorithm, *small, "trainer.lr=1e-3", "--output", "run")
    assert (elsewhere / "replies.txt").stat().st_size == 2 * 4 * 4 and (elsewhere / "steps.txt").read_text() == "16"
    assert all(step.grad_norm and step.grad_norm > 0 for step in read_metrics(elsewhere / "run/metrics.jsonl"))
    onelayer(
        "eval", "--suite", env, engine, "agent.max_tokens=16", "--patch", "run/patch.safetensors", "--n", "2", "--output", "evaluation"
    )
    manifest = json.loads((elsewhere / "evaluation" / MANIFEST).read_text())
    assert (manifest["domain"], manifest["items"], manifest["split"]) == ("other", 10, f"{env}/test")
    assert (elsewhere / "replies.txt").stat().st_size == 32 + 10 * 3
    assert (manifest["trained"][0]["algorithm"], manifest["config"]["agent"]["engine"]) == ("parts.all:shaped", "parts.all:Counted")
