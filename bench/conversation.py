"""Full history with the keys and values kept from turn to turn, against encoding the whole conversation again each turn.

    OMP_NUM_THREADS=1 python bench/conversation.py [--turns 12] [--episodes 32] [--rounds 3]      # the tiny base

The same conversations twice: replies are sampled with the same seeds, and after each an answer of the length of an ALFWorld
observation with its commands comes back. Prints seconds per episode, their ratio, and the largest difference of a log-probability.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import torch

from onelayer.agents.config import ModelConfig
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.policy import load_base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--answer", type=int, default=60, help="tokens of what the environment says")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    base = load_base(ModelConfig(device="cpu"))
    print(f"{args.episodes} episodes of {args.turns} turns, {args.answer} tokens an answer, {torch.get_num_threads()} threads")
    seconds: dict[bool, list[float]] = {True: [], False: []}
    worst = 0.0
    for _ in range(args.rounds):
        logprobs = {}
        for kept in (True, False):
            engine = TransformersEngine(base.model, base.end_ids)
            started = time.perf_counter()
            logprobs[kept] = converse(engine, args.turns, args.episodes, args.answer, kept)
            seconds[kept].append((time.perf_counter() - started) / args.episodes)
        worst = max(worst, *(abs(one - other) for one, other in zip(logprobs[True], logprobs[False], strict=True)))
    kept, again = (statistics.median(seconds[kept]) for kept in (True, False))
    print(f"kept {kept:.3f} s an episode, encoded again {again:.3f} s: {again / kept:.2f} times")
    print(f"largest difference of a log-probability: {worst:.1e}")


def converse(engine: TransformersEngine, turns: int, episodes: int, answer: int, kept: bool) -> list[float]:
    """The log-probabilities of all sampled tokens, turn by turn."""
    rng, logprobs = random.Random(0), []
    prompts = [[rng.randrange(10, 250) for _ in range(2 * answer)] for _ in range(episodes)]
    for turn in range(turns):
        sampling = Sampling(12)
        requests = [
            Request(prompt, 1000 * turn + index, sampling, f"episode {index}" if kept else None) for index, prompt in enumerate(prompts)
        ]
        for done in sorted(engine.generate(requests), key=lambda completion: completion.index):
            logprobs += done.logprobs
            prompts[done.index] += [*done.token_ids, *(rng.randrange(10, 250) for _ in range(answer))]
    return logprobs


if __name__ == "__main__":
    main()
