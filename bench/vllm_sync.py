"""Weight sync to vLLM: seconds for one layer against all, and how far vLLM's logprobs are from the trainer's.

    python bench/vllm_sync.py [--dtype float32 bfloat16] [--rounds 20] [--server URL] [--model DIR]

Runs in the environment of `make test-vllm`. Each round changes the weights, syncs them, one layer and all in turn; the medians
and their ratio are printed. The logprobs are those of 64 sampled replies at temperature 1, before and after. With --server the
weights go to a server started as docs/vllm.md says (float32 by default), else to vLLM in this process. Without --model: the tiny
base, and in process a random Qwen3 of 54 million parameters in 12 layers besides.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from onelayer.agents import tiny
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Request, Sampling
from onelayer.agents.engines import make_engine
from onelayer.agents.policy import load_base
from onelayer.agents.trained_sets import select
from onelayer.agents.vllm_engine import check_logprobs, whole_modules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--server", metavar="URL")
    parser.add_argument("--model", metavar="DIR")
    args = parser.parse_args()
    if len(args.dtype) > 1 and not args.server:  # a process each
        for dtype in args.dtype:
            options = ["--dtype", dtype, "--rounds", str(args.rounds), *(["--model", args.model] if args.model else [])]
            subprocess.run([sys.executable, __file__, *options], check=True)
        return
    if args.model or args.server:
        measure(args.model or str(tiny.PATH), args.dtype[0], args.rounds, args.server)
        return
    measure(str(tiny.PATH), args.dtype[0], args.rounds, None)
    with tempfile.TemporaryDirectory() as folder:
        config = Qwen3Config(
            vocab_size=32_000,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=64,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny.PATH, trust_remote_code=False).save_pretrained(folder)
        measure(folder, args.dtype[0], args.rounds, None)


@torch.no_grad()
def measure(model: str, dtype: str, rounds: int, server: str | None) -> None:
    base = load_base(ModelConfig.model_validate({"path": model, "dtype": dtype, "device": "auto"}))
    engine = make_engine(base, AgentConfig(engine=server or "vllm", max_batch=64))
    layers = base.model.config.get_text_config().num_hidden_layers
    parameters = dict(base.model.named_parameters())
    prompt = base.tokenizer.encode("12+30=?")
    requests = [Request(prompt, seed, Sampling(32)) for seed in range(64)]

    def difference() -> str:
        completions = [(requests[completion.index], completion) for completion in engine.generate(requests)]
        found = check_logprobs(base.model, completions)
        return f"mean {found.mean:.1e}, largest {found.largest:.1e}, {found.tokens} tokens"

    def synced(names: Iterable[str]) -> float:
        for name in names:
            parameters[name].add_(torch.randn_like(parameters[name]) * parameters[name].abs().mean(), alpha=1e-3)
        started = time.perf_counter()
        engine.load({name: parameters[name] for name in names})
        return time.perf_counter() - started

    before = difference()
    one, full = list(select(base.model, f"layer:{layers // 2}").parameters), list(parameters)
    for names in (one, full):  # the first ones cost more
        synced(names)
    seconds: dict[str, list[float]] = {"one": [], "full": []}
    for _ in range(rounds):
        seconds["one"].append(synced(one))
        seconds["full"].append(synced(full))
    layer, everything = (statistics.median(seconds[name]) for name in ("one", "full"))
    size = {
        name: sum(weight.numel() for weight in whole_modules(base.model, parameters, {name: parameters[name] for name in names}).values())
        for name, names in (("one", one), ("full", full))
    }
    print(
        f"{'server' if server else 'in process'}, {dtype}, {layers} layers: "
        f"one layer ({size['one'] / 1e6:.2f}M) {layer * 1e3:.1f} ms, all ({size['full'] / 1e6:.2f}M) {everything * 1e3:.1f} ms, "
        f"ratio {layer / everything:.2f}\n    logprobs before: {before}\n    logprobs after {2 * rounds + 2} syncs: {difference()}",
        flush=True,
    )


if __name__ == "__main__":
    main()
