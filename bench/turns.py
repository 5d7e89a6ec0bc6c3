"""Episodes that go on as soon as their reply is there, against all that wait for the slowest reply of a turn: ratios of one run.

    OMP_NUM_THREADS=2 python bench/turns.py [--items 8] [--group 4] [--turns 10] [--lengths 8 16 64] [--rounds 3]

ALFWorld, played by its tiny base. In `own` a reply ends where the base ends it; in `mixed` each reply has as many tokens as its seed draws
of --lengths, as replies have that think now and then. The same plays in both ways, in turn; medians of the rounds. Seconds are the
processor's, of the process that decodes, so that other load on the machine does not count; what it waits for environments is not in them.
`passes` are the passes of the decoder for one token a row, `rows` the mean number of rows in them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from onelayer.agents import engine as engine_module
from onelayer.agents.agent import Agent, make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Completion, Request, Sampling, TransformersEngine
from onelayer.agents.episodes import Play, play
from onelayer.agents.policy import load_base
from onelayer.envs import load
from onelayer.envs.alfworld.config import ALFWorldConfig
from onelayer.envs.config import PoolConfig
from onelayer.envs.pool import open_pool


class Mixed(TransformersEngine):
    """Replies of lengths that seeds draw, whatever the model would end."""

    lengths: Sequence[int] = ()

    def serve(self, more: Callable[[], Sequence[Request]]) -> Iterator[Completion]:
        def cut(request: Request) -> Request:
            length = self.lengths[request.seed % len(self.lengths)]
            return replace(request, sampling=replace(request.sampling, max_tokens=length))

        return super().serve(lambda: [cut(request) for request in more()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=8)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    base, env = load_base(ModelConfig(path="tiny-alfworld", device="cpu")), ALFWorldConfig(max_steps=args.turns)
    items = [item.id for item in load(env, "train").items[: args.items]]
    plays = [Play(item, group, 100 * group + number) for group, item in enumerate(items) for number in range(args.group)]
    agent = make_agent(base, AgentConfig(max_tokens=max(args.lengths)), env)
    mixed = Mixed(base.model, set())
    mixed.lengths = args.lengths
    print(f"{'case':<8} {'steps':>6} {'tokens':>7} {'barrier s':>9} {'none s':>7} {'ratio':>6} {'passes':>12} {'rows':>11}")
    for case, engine in (("own", agent.engine), ("mixed", mixed)):
        agent.engine = engine
        seconds: dict[bool, list[float]] = {True: [], False: []}
        seen: dict[bool, tuple[int, int, int, int]] = {}
        for _ in range(args.rounds):
            for barrier in (True, False):
                started = time.process_time()
                seen[barrier] = rollout(agent, env, plays, max(args.lengths), barrier)
                seconds[barrier].append(time.process_time() - started)
        with_, without = (statistics.median(seconds[barrier]) for barrier in (True, False))
        (steps, tokens, *_), (_, _, passes, rows) = seen[True], seen[False]
        both = f"{seen[True][2]} {passes}", f"{seen[True][3] / seen[True][2]:.1f} {rows / passes:.1f}"
        print(
            f"{case:<8} {steps:>6} {tokens:>7} {with_:>9.2f} {without:>7.2f} {without / with_:>6.2f} {both[0]:>12} {both[1]:>11}",
            flush=True,
        )


def rollout(agent: Agent, env: ALFWorldConfig, plays: Sequence[Play], max_tokens: int, barrier: bool) -> tuple[int, int, int, int]:
    """Steps, tokens, passes and rows of them."""
    forward, counted = engine_module.decoder_forward, [0, 0]

    def counting(model: Any, ids_BR: Any, *others: Any) -> Any:
        counted[0] += 1
        counted[1] += len(ids_BR)
        return forward(model, ids_BR, *others)

    engine_module.decoder_forward = counting
    try:
        with open_pool(env, "train", PoolConfig()) as pool:
            if barrier:
                pool.turns = 1  # as if none went on
            episodes = list(play(agent, pool, plays, Sampling(max_tokens)))
    finally:
        engine_module.decoder_forward = forward
    return sum(len(episode.steps) for episode in episodes), sum(episode.tokens or 0 for episode in episodes), counted[0], counted[1]


if __name__ == "__main__":
    main()
