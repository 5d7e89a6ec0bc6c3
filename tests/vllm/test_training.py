"""GRPO and evaluation through vLLM: what comes out is what the Transformers engine gives, within the noise of sampling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from onelayer.agents import patch
from onelayer.agents.agent import Agent, make_agent
from onelayer.agents.config import AgentConfig
from onelayer.agents.policy import Base
from onelayer.agents.trained_sets import select
from onelayer.cli.main import main
from onelayer.envs import load
from onelayer.envs.config import MathConfig, PoolConfig
from onelayer.envs.pool import open_pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate
from onelayer.evals.records import Evaluation, PolicyInfo
from onelayer.evals.samples import SAMPLES, read_samples
from onelayer.trainers import train as training
from onelayer.trainers.config import Config, TrainerConfig

ENV = MathConfig(suite="arithmetic", difficulty=3)


PLAIN = AgentConfig(max_tokens=40)
VLLM = AgentConfig(max_tokens=40, engine="vllm", max_batch=64, kv_cache_gib=0.25)


def rewards(folder: Path, agent: AgentConfig, trained_set: str, lr: float, seed: int, steps: int = 6) -> list[float]:
    """Mean reward of each step of one run."""
    trainer = TrainerConfig(trained_set=trained_set, seed=seed, steps=steps, prompts_per_step=16, group_size=8, lr=lr)
    training.train(Config(env=ENV, agent=agent, trainer=trainer), folder)
    return [json.loads(line)["reward"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("trained_set", "lr"), [("layer:3", 1e-3), ("full", 3e-4)])
def test_grpo_learns_as_through_transformers(trained_set: str, lr: float, tmp_path: Path):
    """Three seeds each; the same items step by step.

    384 episodes a step leave a standard error of 0.026 in each curve at most, so of 0.036 in a difference and of 0.015 in the mean of six.
    """
    plain = np.array([rewards(tmp_path / f"plain-{seed}", PLAIN, trained_set, lr, seed) for seed in range(3)])
    vllm = np.array([rewards(tmp_path / f"vllm-{seed}", VLLM, trained_set, lr, seed) for seed in range(3)])
    print(f"{trained_set}: Transformers {plain.mean(0).round(3).tolist()}, vLLM {vllm.mean(0).round(3).tolist()}")
    for curve in (plain.mean(0), vllm.mean(0)):
        assert curve[-2:].mean() > curve[:2].mean() + 0.1, "it learns"
    difference = vllm.mean(0) - plain.mean(0)
    assert abs(difference.mean()) < 0.06
    assert np.abs(difference).max() < 0.15


def test_adapters_are_trained_through_vllm(tmp_path: Path):
    """Each step's replies are checked against the model with its adapters."""
    first, *_ = rewards(tmp_path / "run", VLLM, "lora:4@layers:2,3", 1e-3, seed=0, steps=3)
    plain, *_ = rewards(tmp_path / "plain", PLAIN, "lora:4@layers:2,3", 1e-3, seed=0, steps=1)
    assert abs(first - plain) < 0.2  # of 128 episodes each


def test_evaluation_through_vllm(base: Base, tmp_path: Path):
    """A patched policy, then the base again, in the same vLLM; greedy answers are the same ones, sampled ones as good."""
    parameters = select(base.model, "layer:3").parameters
    generator = torch.Generator().manual_seed(0)
    changed = {name: weight + 0.02 * torch.randn(weight.shape, generator=generator) for name, weight in parameters.items()}
    for name, patches in (("patched", [patch.Patch(base.fingerprint, "layer:3", changed)]), ("base", [])):
        with patch.applied(base, patches):
            plain = play(make_agent(base, PLAIN, ENV), base, tmp_path / name / "transformers")
            vllm = play(make_agent(base, VLLM, ENV), base, tmp_path / name / "vllm")
        assert plain.greedy == vllm.greedy
        assert plain.sampled.pass_rate.low <= vllm.sampled.pass_rate.mean <= plain.sampled.pass_rate.high
    greedy = [greedy_steps(tmp_path / name / "vllm") for name in ("patched", "base")]
    assert greedy[0] != greedy[1], "the patch makes a difference"


def greedy_steps(folder: Path) -> list:
    return [(sample.item, sample.verdict, sample.steps) for sample in read_samples(folder / SAMPLES) if sample.decoding == "greedy"]


def play(agent: Agent, base: Base, folder: Path) -> Evaluation:
    with open_pool(ENV, "test", PoolConfig()) as pool:
        return evaluate(
            agent, pool, load(ENV, "test"), EvalConfig(items=64, n=4), folder, policy=PolicyInfo(name="test", base=base.fingerprint)
        )


def test_the_commands(tmp_path: Path, server: str):
    """A study in process: base, all layers and one, each on the vLLM that the one before it used; then its patch on a server."""
    settings = ["agent.engine=vllm", "agent.max_batch=64", "agent.kv_cache_gib=0.25", "env.suite=arithmetic", "env.difficulty=3"]
    settings += ["trainer.steps=2", "trainer.prompts_per_step=4", "eval.items=16", "eval.n=2", "study.trained_sets=[layer:3]"]
    study = ["study", "quickstart", *settings, "study.lr_grid=[3e-4]", "--output", tmp_path / "study"]
    subprocess.run([sys.executable, "-m", "onelayer", *map(str, study)], check=True)
    (found,) = (tmp_path / "study" / "layer-3").glob("*/patch.safetensors")
    result = ["--suite", "arithmetic", "--items", "16", "--n", "2", "--patch", found, "env.difficulty=3"]
    for name, engine in {"server": server, "vllm": "vllm", "plain": "transformers"}.items():
        settings = [f"agent.engine={engine}", "agent.max_batch=64", "agent.kv_cache_gib=0.25"]
        assert main(["eval", *map(str, result), *settings, "--output", str(tmp_path / name)]) == 0
    greedy = [greedy_steps(tmp_path / name) for name in ("server", "vllm", "plain")]
    assert greedy[0] == greedy[1] == greedy[2]
