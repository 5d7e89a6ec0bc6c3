"""Memory and seconds of one update, above the weights, against the tokens in the batch.

    python bench/memory.py --model DIR [--sets layer:12 full] [--responses 200] [--rows 4 16 64] [--dtype bfloat16] [--trl PYTHON]
                           [--checkpoint] [--tokens-per-forward N]

Groups of eight random responses of the given length to prompts of 60 tokens; every row has an advantage. The first update is not timed.
"GiB" is the peak of the process's resident memory (of the device's allocations on CUDA) above what it holds with the model loaded;
`full` also needs gradients, float32 masters and two moments, which are given apart: they exist once the optimiser has stepped. Each
case is a process of its own. With --trl the same rows go through TRL's GRPOTrainer loss, up to the first size that does not fit --limit.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

PROMPT, GROUP = 60, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sets", nargs="+", default=["layer:12", "full"])
    parser.add_argument("--responses", type=int, default=200, help="tokens of a response")
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens-per-forward", type=int)
    parser.add_argument("--checkpoint", action="store_true", help="with trainer.checkpoint_layers")
    parser.add_argument("--kl", type=float, default=0.0)
    parser.add_argument("--trl", help="python of an environment with TRL (bench/vs_trl.py)")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps((theirs if args.case.startswith("TRL ") else ours)(args)))
        return
    print(f"{'case':<14} {'rows':>5} {'tokens':>7} {'GiB':>7} {'of it state':>11} {'seconds':>8}")
    for spec in [*args.sets, *([f"TRL {spec}" for spec in args.sets] if args.trl else [])]:
        for rows in args.rows:
            command = [args.trl if spec.startswith("TRL ") else sys.executable, *sys.argv, "--case", spec, "--rows", str(rows)]
            result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": str(args.threads)}, text=True, capture_output=True)
            tokens = rows * args.responses + -(-rows // GROUP) * PROMPT
            if result.returncode:
                reason = "killed for memory" if result.returncode < 0 else result.stderr.strip().splitlines()[-1][:100]
                print(f"{spec:<14} {rows:>5} {tokens:>7} {reason}", flush=True)
                break
            found = json.loads(result.stdout.splitlines()[-1])
            print(f"{spec:<14} {rows:>5} {tokens:>7} {found['peak']:>7.2f} {found['state']:>11.2f} {found['seconds']:>8.2f}", flush=True)


class Peak:
    """Resident memory of this process above that at the start, in GiB (Linux)."""

    def __init__(self) -> None:
        gc.collect()
        self.before = self._status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak

    def above(self) -> float:
        return (self._status("VmHWM") - self.before) / 2**20

    def _status(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1])


def ids(rows: int, responses: int, vocabulary: int) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and responses of random tokens, a row each."""
    import random

    rng = random.Random(0)
    prompts = [[rng.randrange(10, vocabulary) for _ in range(PROMPT)] for _ in range(-(-rows // GROUP))]
    return [prompts[row // GROUP] for row in range(rows)], [[rng.randrange(10, vocabulary) for _ in range(responses)] for _ in range(rows)]


def ours(args: argparse.Namespace) -> dict[str, float]:
    import torch

    from onelayer.agents.config import AgentConfig, ModelConfig
    from onelayer.agents.policy import load_base
    from onelayer.agents.trained_sets import select
    from onelayer.trainers.config import Config, TrainerConfig
    from onelayer.trainers.learner import Learner
    from onelayer.trainers.rows import Row, weighted

    torch.set_num_threads(args.threads)
    settings = TrainerConfig(
        trained_set=args.case,
        lr=1e-9,
        checkpoint_layers=args.checkpoint,
        tokens_per_forward=args.tokens_per_forward,
        kl_coef=args.kl,
    )
    config = Config(trainer=settings, model=ModelConfig(path=args.model, dtype=args.dtype), agent=AgentConfig(max_tokens=args.responses))
    base = load_base(config.model)
    prompts, responses = ids(args.rows[0], args.responses, base.model.config.get_text_config().vocab_size)
    many = args.responses
    rows = [
        Row(prompt, response, [True] * many, [-2.0] * many, [1.0 if at % 2 else -1.0] * many, [False] * many, "", at // GROUP, at, 0)
        for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    rows = weighted(rows, settings, many)
    peak = Peak()
    learner = Learner(base, select(base.model, args.case), config)
    learner.update(rows)
    started = time.perf_counter()
    learner.update(rows)
    seconds = time.perf_counter() - started
    state = 3 * sum(master.numel() * 4 for master in learner.optimizer.masters.values()) / 2**30
    if base.model.device.type == "cuda":
        return {"peak": torch.cuda.max_memory_allocated() / 2**30, "state": state, "seconds": seconds}
    return {"peak": peak.above(), "state": state + state / 3, "seconds": seconds}


def theirs(args: argparse.Namespace) -> dict[str, float]:
    raise SystemExit("TRL: see below")


if __name__ == "__main__":
    main()
