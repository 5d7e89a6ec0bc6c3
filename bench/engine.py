"""The engine against `model.generate` of Transformers: the same sequences, tokens per second, as ratios of one run.

    python bench/engine.py [--rounds 5] [--threads 2]

Greedy on the tiny base, so that both make the same tokens (checked). Equal lengths: no end token, 40 new tokens each; own
lengths: the base stops where it stops. Groups: 8 requests a prompt, as in training; single: every prompt differs, as in an
evaluation. The two run in turn, round by round; the medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from transformers import GenerationConfig

from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.policy import Base, load_base
from onelayer.envs.config import MathConfig
from onelayer.envs.math.arithmetic import generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    base = load_base(ModelConfig(device="cpu"))
    end_ids = base.end_ids
    base.model.generation_config = GenerationConfig()  # each case brings its own end token
    print(f"{'batch':>5} {'case':<19} {'mean/max tokens':>16} {'generate tok/s':>15} {'engine tok/s':>13} {'ratio':>6}")
    for batch in (64, 256):
        for group in (8, 1):
            prompts = problems(base, batch, group)
            for lengths in ("equal", "own"):
                case = f"{'groups of 8' if group > 1 else 'single'}, {lengths}"
                compare(base, batch, case, prompts, 40, end_ids if lengths == "own" else set(), args.rounds)


def problems(base: Base, count: int, group: int) -> list[list[int]]:
    agent = make_agent(base, AgentConfig(), MathConfig())
    return [agent.chat.encode(item.question) for item in generate("train", count // group, 3, 0) for _ in range(group)]


def compare(base: Base, batch: int, case: str, prompts: list[list[int]], limit: int, end_ids: set[int], rounds: int) -> None:
    engine = TransformersEngine(base.model, end_ids, max_batch=batch)
    requests = [Request(prompt, 0, Sampling(limit, temperature=0)) for prompt in prompts]

    def ours() -> list[list[int]]:
        return [c.token_ids for c in sorted(engine.generate(requests), key=lambda c: c.index)]

    model: Any = base.model
    width = max(map(len, prompts))
    pad = base.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    configuration = GenerationConfig(max_new_tokens=limit, do_sample=False, pad_token_id=pad, eos_token_id=sorted(end_ids) or None)

    def theirs() -> list[list[int]]:
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=mask, generation_config=configuration)
        return [cut(row, end_ids) for row in out[:, width:].tolist()]

    expected, found = theirs(), ours()
    same = sum(a == b for a, b in zip(expected, found, strict=True))
    tokens = sum(map(len, found))
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    for _ in range(rounds):
        for name, run in (("theirs", theirs), ("ours", ours)):
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    slow, fast = (statistics.median(seconds[name]) for name in ("theirs", "ours"))
    lengths = f"{tokens / len(found):.1f}/{max(map(len, found))}"
    print(
        f"{batch:>5} {case:<19} {lengths:>16} {tokens / slow:>15.0f} {tokens / fast:>13.0f} {slow / fast:>6.2f}   same: {same}/{len(found)}"
    )


def cut(row: list[int], end_ids: set[int]) -> list[int]:
    return next((row[: at + 1] for at, token in enumerate(row) if token in end_ids), row)


if __name__ == "__main__":
    main()
