"""One GRPO step here and in TRL 1.16: the same tiny model, prompts, reward and sizes; seconds as ratios of one run.

    python -m venv .venv-trl && .venv-trl/bin/pip install -c constraints.txt torch && .venv-trl/bin/pip install trl==1.16.0
    python bench/vs_trl.py --trl .venv-trl/bin/python [--rounds 2] [--steps 6] [--threads 2]

32 prompts x 8 samples, at most 40 new tokens, temperature 1, one update a batch, learning rate 1e-6 (so that all sides
stay at the base's reply lengths). Each case is a process of its own; the cases take turns, round by round, and the first
two steps of each are not counted. TRL's rollout is its `_generate_and_score_completions`, its update the rest of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROMPTS, SAMPLES, MAX_TOKENS, LR, WARM = 32, 8, 40, 1e-6, 2
OURS = {"full": ("full", True), "full, all rows": ("full", False), "layer:3": ("layer:3", True), "layer:3, all rows": ("layer:3", False)}
THEIRS = {"TRL full": "full", "TRL layer 3": "layer:3"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", help="python of an environment with TRL")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        step = theirs if args.case in THEIRS else ours
        print(json.dumps(step(args)))
        return
    if not args.trl:
        parser.error("--trl PYTHON is needed")
    from onelayer.agents import tiny

    seconds: dict[str, list[tuple[float, float]]] = {}
    env = os.environ | {"OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text(json.dumps(problems((args.steps + WARM) * PROMPTS)))
        for _ in range(args.rounds):
            for case in (*THEIRS, *OURS):
                python = args.trl if case in THEIRS else sys.executable
                sizes = ["--steps", str(args.steps), "--threads", str(args.threads)]
                command = [python, __file__, "--case", case, "--model", str(tiny.PATH), *sizes]
                result = subprocess.run(command, env=env | {"PROMPTS": str(prompts)}, cwd=folder, text=True, capture_output=True)
                if result.returncode:
                    sys.exit(result.stderr)
                seconds.setdefault(case, []).extend(json.loads(result.stdout.splitlines()[-1]))
    print(f"{'case':<20} {'rollout':>8} {'update':>8} {'step':>8} {'of TRL':>8}")
    for case, steps in seconds.items():
        rollout, update = (statistics.median(column) for column in zip(*steps, strict=True))
        total = statistics.median(a + b for a, b in steps)
        against = statistics.median(a + b for a, b in seconds["TRL layer 3" if "layer" in case else "TRL full"])
        print(f"{case:<20} {rollout:>7.3f}s {update:>7.3f}s {total:>7.3f}s {total / against:>8.2f}")


def problems(count: int) -> list[dict[str, str]]:
    """Prompts and golds, in the environment's own words."""
    from onelayer.agents.prompts import default_prompt
    from onelayer.envs.math.arithmetic import generate

    prompt = default_prompt("onelayer/Math-v0")
    return [{"id": i.id, "prompt": prompt.format(observation=i.question), "gold": i.gold} for i in generate("train", count, 3, 0)]


def ours(args: argparse.Namespace) -> list[tuple[float, float]]:
    import torch

    from onelayer.agents.agent import make_agent
    from onelayer.agents.config import ModelConfig
    from onelayer.agents.engine import Sampling
    from onelayer.agents.episodes import Play, play
    from onelayer.agents.policy import load_base
    from onelayer.agents.trained_sets import select
    from onelayer.envs.pool import open_pool
    from onelayer.trainers.config import Config, TrainerConfig
    from onelayer.trainers.learner import Learner
    from onelayer.trainers.rows import make_rows
    from onelayer.trainers.train import advantages

    torch.set_num_threads(args.threads)
    trained_set, skip = OURS[args.case]
    config = Config(trainer=TrainerConfig(trained_set=trained_set, lr=LR, skip_zero_rows=skip), model=ModelConfig(device="cpu"))
    base = load_base(config.model)
    learner = Learner(base, select(base.model, trained_set), config)
    agent, pool = make_agent(base, config.agent, config.env), open_pool(config.env, "train", config.pool)
    ids = [problem["id"] for problem in json.loads(Path(os.environ["PROMPTS"]).read_text())]
    timed = []
    for step in range(args.steps + WARM):
        started = time.perf_counter()
        chosen = ids[step * PROMPTS : (step + 1) * PROMPTS]
        plays = [Play(item, group, 100 * group + number) for group, item in enumerate(chosen) for number in range(SAMPLES)]
        episodes = sorted(play(agent, pool, plays, Sampling(MAX_TOKENS)), key=lambda episode: episode.index)
        rows = make_rows(episodes, advantages(episodes, config.trainer), config.trainer, MAX_TOKENS)
        rolled_out = time.perf_counter()
        learner.update(rows)
        timed.append((rolled_out - started, time.perf_counter() - rolled_out))
    return timed[WARM:]


def theirs(args: argparse.Namespace) -> list[tuple[float, float]]:
    import re

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, trust_remote_code=False)
    if THEIRS[args.case] != "full":
        model.requires_grad_(False)
        model.model.layers[3].requires_grad_(True)
    data = json.loads(Path(os.environ["PROMPTS"]).read_text())
    dataset = Dataset.from_list([{"prompt": [{"role": "user", "content": d["prompt"]}], "gold": d["gold"]} for d in data])

    def reward(completions: list, gold: list[str], **_: object) -> list[float]:
        boxes = [re.findall(r"\\boxed\{(.*?)\}", completion[0]["content"]) for completion in completions]
        return [float(bool(found) and found[-1] == answer) for found, answer in zip(boxes, gold, strict=True)]

    settings = GRPOConfig(
        output_dir="trl", per_device_train_batch_size=PROMPTS * SAMPLES, num_generations=SAMPLES, max_completion_length=MAX_TOKENS,
        learning_rate=LR, max_steps=args.steps + WARM, beta=0.0, loss_type="grpo", temperature=1.0, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True, shuffle_dataset=False,
    )  # fmt: skip
    rollouts, steps = [], []

    def timed(function: Callable) -> Callable:
        def run(*inputs: object) -> object:
            started = time.perf_counter()
            result = function(*inputs)
            rollouts.append(time.perf_counter() - started)
            return result

        return run

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            steps.append(time.perf_counter() - self.started)

    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    trainer = GRPOTrainer(model, reward, args=settings, train_dataset=dataset, processing_class=tokenizer, callbacks=[Clock()])
    trainer._generate_and_score_completions = timed(trainer._generate_and_score_completions)
    trainer.train()
    return [(rollout, step - rollout) for rollout, step in list(zip(rollouts, steps, strict=True))[WARM:]]


if __name__ == "__main__":
    main()
