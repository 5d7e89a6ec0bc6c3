"""One GRPO step here and in TRL 1.16: the same model, prompts, reward and sizes; seconds as ratios of one run, and memory.

    python -m venv .venv-trl && .venv-trl/bin/pip install -c constraints.txt torch && .venv-trl/bin/pip install trl==1.16.0
    OMP_NUM_THREADS=2 python bench/vs_trl.py --trl .venv-trl/bin/python [--model DIR --dtype bfloat16] [--sets full layer:3]
                                             [--batch 32x8x40] [--steps 6] [--rounds 2]

A batch of 32x8x40 is 32 arithmetic prompts x 8 samples of at most 40 new tokens, at temperature 1, and one update; the learning rate is
1e-6, so that all sides stay at the base's reply lengths. Each case is a process of its own; the cases take turns, round by round, and
the first step of each process is not counted. Three cases for each trained set: TRL, ours, and ours with the rows that have no signal,
which are left out otherwise.

- rollout, update, step: median seconds. TRL's rollout is its `_generate_and_score_completions`, its update the rest of the step.
- of TRL: the update, and the whole step, as a part of TRL's.
- GiB, of TRL: the peak of the process's resident memory, all included.
- TFLOP: the operations that the update must do, counted as in agents/flops.py; prompts go through the decoder alone, once a sample in
  TRL and once a group here. What is computed beyond that (padding, logits of prompts, activations computed again) is not counted.
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
from pathlib import Path
from typing import Any

from memory import status

LR, WARM = 1e-6, 1
SIDES = {"TRL": "TRL {}", "ours": "{}", "all rows": "{}, all rows"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", required=True, help="python of an environment with TRL")
    parser.add_argument("--model", help="directory of the model (the tiny one unless given)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--sets", nargs="+", default=["full", "layer:3"], help="full or layer:K")
    parser.add_argument("--batch", default="32x8x40", help="prompts x samples x most new tokens")
    parser.add_argument("--steps", type=int, default=6, help="steps of a process that are counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        side, trained_set = args.case
        print(json.dumps(theirs(args, trained_set) if side == "TRL" else ours(args, trained_set, skip=side == "ours")))
        return
    from onelayer.agents import tiny

    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as prompts:
        json.dump(problems((args.steps + WARM) * sizes(args.batch)[0]), prompts)
        prompts.flush()
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PROMPTS": prompts.name}
        for _ in range(args.rounds):
            for trained_set in args.sets:
                for side in SIDES:
                    python = args.trl if side == "TRL" else sys.executable
                    command = [python, *sys.argv, "--model", args.model or str(tiny.PATH), "--case", side, trained_set]
                    run = subprocess.run(command, env=environment, text=True, capture_output=True)
                    if run.returncode:
                        sys.exit(run.stderr)
                    found.setdefault((trained_set, side), []).append(json.loads(run.stdout.splitlines()[-1]))
    print(f"{'case':<20} {'rollout':>8} {'update':>8} {'of TRL':>7} {'step':>8} {'of TRL':>7} {'GiB':>6} {'of TRL':>7} {'TFLOP':>7}")
    for trained_set in args.sets:
        shape = found[trained_set, "ours"][0]["shape"]
        trl = figures(found[trained_set, "TRL"], shape)
        for side, name in SIDES.items():
            mine = figures(found[trained_set, side], shape)
            cells = [f"{mine['rollout']:>7.2f}s"]
            cells += [f"{mine[key]:>7.2f}s {mine[key] / trl[key]:>7.2f}" for key in ("update", "step")]
            cells += [f"{mine['peak']:>6.2f} {mine['peak'] / trl['peak']:>7.2f}", f"{mine['work']:>7.3f}"]
            print(f"{name.format(trained_set):<20}", *cells)


def sizes(batch: str) -> tuple[int, int, int]:
    """Prompts, samples and new tokens of PROMPTSxSAMPLESxTOKENS."""
    prompts, samples, tokens = map(int, batch.split("x"))
    return prompts, samples, tokens


def figures(runs: list[dict[str, Any]], shape: dict[str, int]) -> dict[str, float]:
    """Medians over all steps of a case, and its highest peak. A step is [rollout, update, prompt tokens, response tokens]."""
    steps = [step for run in runs for step in run["steps"]]
    return {
        "rollout": statistics.median(step[0] for step in steps),
        "update": statistics.median(step[1] for step in steps),
        "step": statistics.median(step[0] + step[1] for step in steps),
        "work": statistics.median(flops(step[2], step[3], shape) for step in steps) / 1e12,
        "peak": max(run["peak"] for run in runs),
    }


def flops(prompt: int, response: int, shape: dict[str, int]) -> float:
    """Operations of an update: the decoder on all tokens, the head on those of the responses."""
    from onelayer.agents.flops import training_flops

    head, head_trained = shape["head"], shape["head_trained"]
    decoder = training_flops(prompt + response, shape["decoder"], shape["above"], shape["trained"], 1, False)
    return decoder + training_flops(response, head, head, head_trained, 1, False)


def problems(count: int) -> list[dict[str, str]]:
    """Prompts and golds, in the environment's own words."""
    from onelayer.agents.prompts import default_prompt
    from onelayer.envs.math.arithmetic import generate

    prompt = default_prompt("onelayer/Math-v0")
    return [{"id": i.id, "prompt": prompt.format(observation=i.question), "gold": i.gold} for i in generate("train", count, 3, 0)]


def ours(args: argparse.Namespace, trained_set: str, skip: bool) -> dict[str, Any]:
    from onelayer.agents.agent import make_agent
    from onelayer.agents.config import AgentConfig, ModelConfig
    from onelayer.agents.engine import Sampling
    from onelayer.agents.episodes import Play, play
    from onelayer.agents.flops import multiplied
    from onelayer.agents.policy import load_base
    from onelayer.agents.trained_sets import select
    from onelayer.envs.pool import open_pool
    from onelayer.trainers.config import Config, TrainerConfig
    from onelayer.trainers.learner import Learner
    from onelayer.trainers.rows import make_rows
    from onelayer.trainers.train import advantages

    prompts, samples, max_tokens = sizes(args.batch)
    config = Config(
        trainer=TrainerConfig(trained_set=trained_set, lr=LR, skip_zero_rows=skip),
        model=ModelConfig(path=args.model, dtype=args.dtype, device="cpu"),
        agent=AgentConfig(max_tokens=max_tokens),
    )
    base = load_base(config.model)
    trained = select(base.model, trained_set)
    learner = Learner(base.model, trained, config)
    agent, pool = make_agent(base, config.agent, config.env), open_pool(config.env, "train", config.pool)
    ids = [problem["id"] for problem in json.loads(Path(os.environ["PROMPTS"]).read_text())]
    steps = []
    for step in range(args.steps + WARM):
        started = time.perf_counter()
        chosen = ids[step * prompts : (step + 1) * prompts]
        plays = [Play(item, group, 100 * group + number) for group, item in enumerate(chosen) for number in range(samples)]
        episodes = sorted(play(agent, pool, plays, Sampling(max_tokens)), key=lambda episode: episode.index)
        rows = make_rows(episodes, advantages(episodes, config.trainer), config.trainer, max_tokens)
        rolled_out = time.perf_counter()
        learner.update(rows)
        updated = time.perf_counter()
        kept = [row for row in rows if row.has_signal or not skip]
        counts = sum(map(len, {tuple(row.prompt_ids) for row in kept})), sum(len(row.token_ids) for row in kept)
        steps.append((rolled_out - started, updated - rolled_out, *counts))
    outputs = base.model.get_output_embeddings()
    assert outputs is not None
    head, embeddings = outputs.weight.numel(), (base.model.get_input_embeddings().weight, outputs.weight)
    shape = {
        "decoder": multiplied(base.model) - head,
        "above": multiplied(base.model, trained.first_layer) - head,
        "trained": sum(weight.numel() for weight in trained.parameters.values() if all(weight is not one for one in embeddings)),
        "head": head,
        "head_trained": head if outputs.weight.requires_grad else 0,
    }
    return {"steps": steps[WARM:], "peak": status("VmHWM"), "shape": shape}


def theirs(args: argparse.Namespace, trained_set: str) -> dict[str, Any]:
    import re

    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl_grpo import Steps, load

    prompts, samples, max_tokens = sizes(args.batch)
    data = json.loads(Path(os.environ["PROMPTS"]).read_text())
    chat = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False).chat_template is not None
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": d["prompt"]}] if chat else d["prompt"], "gold": d["gold"]} for d in data]
    )

    def reward(completions: list, gold: list[str], **_: object) -> list[float]:
        texts = [completion[0]["content"] if chat else completion for completion in completions]
        boxes = [re.findall(r"\\boxed\{(.*?)\}", text) for text in texts]
        return [float(bool(found) and found[-1] == answer) for found, answer in zip(boxes, gold, strict=True)]

    run = Steps(read=lambda batch: [int(batch[key].sum()) for key in ("prompt_mask", "completion_mask")])
    run.run(
        load(args.model, args.dtype, trained_set), args.model, reward, dataset,
        per_device_train_batch_size=prompts * samples, num_generations=samples, max_completion_length=max_tokens,
        learning_rate=LR, max_steps=args.steps + WARM,
    )  # fmt: skip
    steps = [(rollout, update, *counts) for rollout, update, counts in zip(run.rollouts, run.updates, run.found, strict=True)]
    return {"steps": steps[WARM:], "peak": status("VmHWM")}


if __name__ == "__main__":
    main()
