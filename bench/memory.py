"""Memory and seconds of one update, above the weights, against the tokens in the batch; and of TRL 1.16 on the same rows.

    OMP_NUM_THREADS=2 python bench/memory.py --model DIR [--sets layer:12 full] [--batches 4x250 16x250 16x1000 64x1000]
                                             [--trl PYTHON [--trl-rows 8]] [--limit GIB] [--checkpoint]
    OMP_NUM_THREADS=2 python bench/memory.py --model DIR --sets layer:12 full --run 2x4x64

A batch ROWSxTOKENS has rows of that many random response tokens, in groups of eight that share a prompt of 60 tokens; every row has an
advantage. The model computes in bfloat16 on the CPU. Each case is a process of its own, which may hold --limit GiB of data.

- GiB: the peak of the process's resident memory above what it holds with the model loaded.
- estimated: the same as `--dry-run` estimates it before the run; TRL has none.
- of it state: gradients, moments and (here) float32 masters of what is trained, which are there whatever the batch is. TRL keeps no
  masters: gradients and moments are bfloat16, as the weights are.
- seconds: of one update, after one of replies of 8 tokens that is not counted, and after which the moments are there.

With --trl the same rows go through TRL's GRPOTrainer (its rollout hands them over; the advantages, the loss and the optimiser's step are
its own), up to the first batch that does not fit; --trl-rows is its `per_device_train_batch_size`, a whole batch unless given.
--checkpoint computes activations again in the backward pass, on both sides.

--run PROMPTSxGROUPxTOKENS measures whole runs in place of updates: two steps of `onelayer train` on arithmetic, from loading the model to
the written patch. GiB is then the peak above what the process held with all modules imported, and `estimated` what `--dry-run` shows, the
tokenizer included.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from math import nan, prod
from pathlib import Path

PROMPT, GROUP, WARM = 60, 8, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--sets", nargs="+", default=["layer:12", "full"], help="layer:K or full")
    parser.add_argument("--batches", nargs="+", default=["4x250", "16x250", "16x1000", "64x1000"], help="rows x response tokens")
    parser.add_argument("--trl", help="python of an environment with TRL (bench/vs_trl.py)")
    parser.add_argument("--trl-rows", type=int, help="rows of a forward pass of TRL's")
    parser.add_argument("--limit", type=float, help="GiB of data that a case may hold")
    parser.add_argument("--checkpoint", action="store_true", help="compute activations again in the backward pass")
    parser.add_argument("--run", metavar="PxGxT", help="prompts x group x tokens of two steps of whole runs")
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        if args.limit:
            most = int(args.limit * 2**30)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        side, trained_set = args.case
        print(json.dumps((theirs if side == "TRL" else whole_run if args.run else ours)(args, trained_set)))
        return
    print(f"{'case':<14} {'batch':>8} {'tokens':>7} {'GiB':>7} {'estimated':>9} {'of it state':>11} {'seconds':>8}")
    for side, python in [("", sys.executable), *([("TRL", args.trl)] if args.trl else [])]:
        for trained_set in args.sets:
            for batch in [args.run] if args.run else args.batches:
                tokens = prod(map(int, batch.split("x")))
                start = f"{side + ' ' * bool(side) + trained_set:<14} {batch:>8} {tokens:>7}"
                command = [python, *sys.argv, "--case", side, trained_set, "--batches", batch]
                run = subprocess.run(command, text=True, capture_output=True)
                if run.returncode:
                    print(f"{start} {reason(run, args.limit)}", flush=True)
                    break
                found = json.loads(run.stdout.splitlines()[-1])
                print(
                    f"{start} {found['peak']:>7.2f} {found.get('estimated', nan):>9.2f} {found['state']:>11.2f} {found['seconds']:>8.2f}",
                    flush=True,
                )


def sizes(batch: str) -> tuple[int, int]:
    """Rows and response tokens of ROWSxTOKENS."""
    rows, tokens = batch.split("x")
    return int(rows), int(tokens)


def reason(run: subprocess.CompletedProcess[str], limit: float | None) -> str:
    """Why a case ended without a figure."""
    if run.returncode == -9 or re.search(r"can't allocate memory|MemoryError|bad_alloc|Cannot allocate memory", run.stderr):
        return f"does not fit in {limit:g} GiB" if limit else "does not fit in memory"
    return (run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1][:100]


class Peak:
    """Resident memory of this process above that at the start, in GiB (Linux)."""

    def __init__(self) -> None:
        gc.collect()
        self.before = status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def above(self) -> float:
        return status("VmHWM") - self.before


def status(name: str) -> float:
    """A figure of /proc/self/status in GiB."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 2**20


def ids(rows: int, tokens: int, vocabulary: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and responses of random tokens, a row each."""
    rng = random.Random(0)
    prompts = [[rng.randrange(10, vocabulary) for _ in range(PROMPT)] for _ in range(-(-rows // GROUP))]
    return [prompts[row // GROUP] for row in range(rows)], [[rng.randrange(10, vocabulary) for _ in range(tokens)] for _ in range(rows)]


def ours(args: argparse.Namespace, trained_set: str) -> dict[str, float]:
    from onelayer.agents.config import AgentConfig, ModelConfig
    from onelayer.agents.policy import load_base
    from onelayer.agents.trained_sets import select
    from onelayer.trainers.config import Config, TrainerConfig
    from onelayer.trainers.estimate import estimate
    from onelayer.trainers.learner import Learner
    from onelayer.trainers.rows import TrainingRow, weighted

    count, tokens = sizes(args.batches[0])
    settings = TrainerConfig(trained_set=trained_set, lr=1e-9, checkpoint_layers=args.checkpoint)
    model = ModelConfig(path=args.model, dtype="bfloat16", device="cpu")
    base = load_base(model)

    def rows(many: int) -> list[TrainingRow]:
        drawn = zip(*ids(count, many, base.model.config.get_text_config().vocab_size), strict=True)
        made = [
            TrainingRow(
                prompt, response, [True] * many, [-2.0] * many, [1.0 if at % 2 else -1.0] * many, [False] * many, "", at // GROUP, at, 0
            )
            for at, (prompt, response) in enumerate(drawn)
        ]
        return weighted(made, settings, many)

    peak = Peak()
    config = Config(trainer=settings, model=model, agent=AgentConfig(max_tokens=tokens))
    learner = Learner(base.model, select(base.model, trained_set), config)
    learner.update(rows(WARM))
    batch = rows(tokens)
    started = time.perf_counter()
    learner.update(batch)
    seconds = time.perf_counter() - started
    found = {"peak": peak.above(), "state": 4 * sum(master.nbytes for master in learner.optimizer.masters.values()) / 2**30}
    expected = estimate(config, base.model.config, PROMPT).update
    if expected:
        found["estimated"] = (expected.total - expected.weights - expected.keys_and_values) / 2**30
    return {**found, "seconds": seconds}


def whole_run(args: argparse.Namespace, trained_set: str) -> dict[str, float]:
    from onelayer.cli.config import compose
    from onelayer.cli.plan import plan_training
    from onelayer.trainers.train import train

    prompts, group, tokens = args.run.split("x")
    words = [f"model.path={args.model}", "model.dtype=bfloat16", "model.device=cpu", f"agent.max_tokens={tokens}", "trainer.steps=2"]
    words += [f"trainer.prompts_per_step={prompts}", f"trainer.group_size={group}", f"trainer.trained_set={trained_set}"]
    words += [f"trainer.checkpoint_layers={str(args.checkpoint).lower()}", "trainer.lr=1e-9", "trainer.skip_zero_rows=false"]
    config = compose(words)
    with tempfile.TemporaryDirectory() as directory:
        peak, started = Peak(), time.perf_counter()
        train(config, Path(directory, "run"))
        found = {"peak": peak.above(), "seconds": time.perf_counter() - started}
    expected = plan_training(config, measure=False).runs[0].estimate
    assert expected.update and expected.peak
    return {**found, "estimated": (expected.peak + expected.tokenizer) / 2**30, "state": expected.update.trained / 2**30}


def theirs(args: argparse.Namespace, trained_set: str) -> dict[str, float]:
    from datasets import Dataset
    from trl_grpo import Steps, load

    count, tokens = sizes(args.batches[0])
    model = load(args.model, "bfloat16", trained_set)
    for parameter in model.parameters():
        parameter.detach().sum()  # reads the weights, which loading alone does not: they are no part of what comes on top
    lengths = iter([WARM, tokens])

    def rollout(prompts: list, trainer: object) -> dict[str, list]:
        many = next(lengths)
        drawn = dict(zip(("prompt_ids", "completion_ids"), ids(count, many, model.config.get_text_config().vocab_size), strict=True))
        return {**drawn, "logprobs": [[-2.0] * many] * count}

    def reward(completions: list, **_: object) -> list[float]:
        return [float(at % 2) for at in range(len(completions))]

    group, per_pass = min(GROUP, count), args.trl_rows or count
    peak, steps = Peak(), Steps()
    dataset = Dataset.from_list([{"prompt": f"prompt {number}"} for number in range(count // group)])
    steps.run(
        model, args.model, reward, dataset, rollout,
        per_device_train_batch_size=per_pass, gradient_accumulation_steps=count // per_pass, num_generations=group,
        max_completion_length=tokens, learning_rate=1e-9, max_steps=2, gradient_checkpointing=args.checkpoint,
    )  # fmt: skip
    state = 3 * sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return {"peak": peak.above(), "state": state / 2**30, "seconds": steps.updates[-1]}


if __name__ == "__main__":
    main()
