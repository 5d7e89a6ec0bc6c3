"""What recording costs an evaluation: the same episodes played alone, and played and recorded, in turn.

    OMP_NUM_THREADS=1 python bench/evaluation.py --items 200 --rounds 3

Prints seconds of both and their ratio; and how long it takes to read the records again and to go on with nothing left to do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Sampling
from onelayer.agents.episodes import play
from onelayer.agents.policy import load_base
from onelayer.envs import load
from onelayer.envs.config import MathConfig, PoolConfig
from onelayer.envs.pool import open_pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate, first_items, plan
from onelayer.evals.model_policy import model_policy
from onelayer.evals.records import Decoding, read_evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    base, env, config = load_base(ModelConfig()), MathConfig(), EvalConfig(items=options.items)
    agent, split = make_agent(base, AgentConfig(), env), load(env, "test")
    policy, plays = model_policy(base, "tiny", [], []), {decoding: [] for decoding in Decoding}
    for one in plan(first_items(split, config.items), config, config.n, ""):
        plays[one.decoding].append(one.play)
    alone, recorded, again, read = [], [], [], []
    with open_pool(env, "test", PoolConfig()) as pool, tempfile.TemporaryDirectory() as folder:
        for number in range(-1, options.rounds):  # the first round warms up
            directory = Path(folder, str(number))
            started = time.perf_counter()
            for decoding, chosen in plays.items():
                temperature = config.temperature if decoding is Decoding.SAMPLED else 0.0
                list(play(agent, pool, chosen, Sampling(agent.config.reply_length, temperature)))
            played = time.perf_counter()
            evaluate(agent, pool, split, config, directory, policy=policy)
            done = time.perf_counter()
            evaluate(agent, pool, split, config, directory, policy=policy)
            found = time.perf_counter()
            read_evaluation(directory)
            if number >= 0:
                for times, seconds in zip(
                    (alone, recorded, again, read),
                    (played - started, done - played, found - done, time.perf_counter() - found),
                    strict=True,
                ):
                    times.append(seconds)
    print(f"{options.items} items, {config.n} + 1 samples: played {statistics.median(alone):.2f} s, ", end="")
    print(f"played and recorded {statistics.median(recorded):.2f} s")
    print(f"ratio {statistics.median(b / a for a, b in zip(alone, recorded, strict=True)):.3f} (median of {options.rounds} rounds)")
    print(f"again, with nothing left to do {statistics.median(again):.3f} s; reading the outcomes {statistics.median(read):.4f} s")


if __name__ == "__main__":
    main()
