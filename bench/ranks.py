"""Training on several ranks of this machine beside training in one process: seconds of a step, and what each rank sends.

    python bench/ranks.py [--ranks 1 2] [--sets layer:3 full] [--steps 4] [--model tiny] [--batch 8x8]

Every line is a run of its own, `torchrun --nproc-per-node RANKS`, of arithmetic with a KL term and two epochs. The first step is not
counted; of the others the median is shown. `rollout` and `update` are the seconds of rank 0, which waits for the slowest rank. `sent` is
what a rank gives to be added up in one step: the trained parameters times 4 bytes times the optimiser steps. On a CPU the ranks share
memory and caches, so two ranks are less than twice as fast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from onelayer.cli.config import load
from onelayer.trainers.launch import joined
from onelayer.trainers.manifest import METRICS, complete_manifest
from onelayer.trainers.metrics import read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", default=["layer:3", "full"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch", default="8x8", help="prompts and samples of each")
    args = parser.parse_args()
    if "RANK" in os.environ:
        measure(args)
        return
    print(f"{'set':<12} {'ranks':>5} {'rollout':>9} {'update':>9} {'step':>9} {'sent':>12}  optimiser steps x parameters x 4")
    for trained_set in args.sets:
        for ranks in args.ranks:
            own = ["--sets", trained_set, "--steps", str(args.steps), "--model", args.model, "--batch", args.batch]
            words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), __file__, *own]
            subprocess.run(words, check=True, env={"OMP_NUM_THREADS": "1", **os.environ})


def measure(args: argparse.Namespace) -> None:
    """One run at one rank; rank 0 prints its line."""
    from onelayer.common import progress
    from onelayer.trainers.train import train

    progress.show(False)
    prompts, samples = args.batch.split("x")
    (trained_set,) = args.sets
    keys = [
        f"model.path={args.model}",
        f"trainer.trained_set={trained_set}",
        f"trainer.steps={args.steps}",
        "trainer.checkpoint_every=1000",
    ]
    keys += [f"trainer.prompts_per_step={prompts}", f"trainer.group_size={samples}", "trainer.kl_coef=0.01", "trainer.epochs=2"]
    config = load("quickstart", keys)
    with joined() as ranks, tempfile.TemporaryDirectory() as directory:
        run = Path(directory, "run")
        train(config, run, ranks=ranks)
        if not ranks.first:
            return
        _, *steps = read_metrics(run / METRICS)
        rollout = statistics.median(step.rollout_seconds or 0 for step in steps)
        update = statistics.median(step.update_seconds or 0 for step in steps)
        sent = getattr(ranks, "sent", 0) // args.steps
        parameters = complete_manifest(run).trained_parameters
        total = f"{sent / (4 * parameters):.0f} x {parameters} x 4"
        print(
            f"{trained_set:<12} {ranks.size:>5} {rollout:>8.3f}s {update:>8.3f}s {rollout + update:>8.3f}s {sent:>12} {total:>20}",
            flush=True,
        )


if __name__ == "__main__":
    main()
