"""Seconds and memory of `onelayer import` on a random pair of the shape of Qwen3-8B, with fewer layers than it where the disk is short.

    OMP_NUM_THREADS=1 python bench/import.py --folder /tmp/pair [--layers 4] [--hidden 4096] [--vocab 151936]

The pair is bfloat16 in shards of at most 2 GiB: a base, a model with one layer changed, and one with all weights changed, one after the
other in the same place. The second is written as a patch. The third is claimed to be of one layer, so it is compared and no patch is
written, which in float32 would be twice as large as the model. Seconds of the processor are told beside those of the clock, which count
what else the machine did. The peak is the most resident memory of the process. The pair is removed in the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen3Config

from onelayer.agents import tiny

SHARD = 2 << 30  # bytes
CHANGED = 0.01
BLOCK = 10_000_019
"""Random numbers that all weights are filled with, one after the other: a prime, so that no two rows are alike."""
COMMAND = """
import re, sys, time
from onelayer.cli.main import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()  # getrusage would tell of the process that started this one, too
print("kilobytes and seconds:", re.search("VmHWM:\\s+([0-9]+)", status)[1], time.process_time())
sys.exit(code)
"""
"""A command that tells its own memory in the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="a new folder with place for two models")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151_936)
    args = parser.parse_args()
    args.folder.mkdir()
    try:
        base, trained, patch = (args.folder / name for name in ("base", "trained", "patch.safetensors"))
        config = shape(args)
        count = make(base, config, lambda name: 0)
        print(f"{count / 1e9:.2f} billion parameters, {sum(file.stat().st_size for file in base.iterdir()) / 2**30:.2f} GiB each")
        print(f"{'differs':<12} {'seconds':>8} {'processor':>10} {'per billion':>12} {'peak GiB':>9}")
        for name, wanted in (("layer 1", "layers.1."), ("everything", "")):
            make(trained, config, lambda weight, wanted=wanted: CHANGED * (wanted in weight))
            command = ["import", "--base", str(base), "--model", str(trained), "--claims", "layer:1", "--output", str(patch), "--quiet"]
            started = time.perf_counter()
            run = subprocess.run([sys.executable, "-c", COMMAND, *command], capture_output=True, text=True)
            seconds = time.perf_counter() - started
            proven = "layer:1: proven" in run.stdout
            if proven != (name == "layer 1") or run.returncode != (0 if proven else 1):
                sys.exit(run.stdout + run.stderr)
            peak, processor = map(float, run.stdout.split()[-2:])
            print(f"{name:<12} {seconds:>8.1f} {processor:>10.1f} {processor / count * 1e9:>12.1f} {peak / 2**20:>9.2f}", flush=True)
            shutil.rmtree(trained)
            patch.unlink(missing_ok=True)
    finally:
        shutil.rmtree(args.folder)


def shape(args: argparse.Namespace) -> Qwen3Config:
    sizes = {"hidden_size": args.hidden, "intermediate_size": 3 * args.hidden, "vocab_size": args.vocab, "num_hidden_layers": args.layers}
    heads = {"num_attention_heads": args.hidden // 128, "num_key_value_heads": 8, "head_dim": 128}
    return Qwen3Config(**sizes, **heads, tie_word_embeddings=False, architectures=["Qwen3ForCausalLM"], dtype="bfloat16")


def make(place: Path, config: Qwen3Config, change: Callable[[str], float]) -> int:
    """Write a model of random weights, the same for the same shape, with some of them moved; returns the number of parameters."""
    place.mkdir()
    config.save_pretrained(place)
    AutoTokenizer.from_pretrained(tiny.PATH, trust_remote_code=False).save_pretrained(place)
    block = torch.empty(BLOCK, dtype=torch.bfloat16).normal_(0, 0.02, generator=torch.Generator().manual_seed(0))
    count, number, index, shard = 0, 0, {}, dict[str, torch.Tensor]()
    for name, size in [*weights(config), ("", ())]:
        if not name or (sum(tensor.nbytes for tensor in shard.values()) + 2 * torch.Size(size).numel() > SHARD and shard):
            number += 1
            file = f"model-{number:05}.safetensors"
            save_file(shard, place / file)
            index |= dict.fromkeys(shard, file)
            shard = {}
        if name:
            entries = torch.Size(size).numel()
            tensor = block.repeat(-(-entries // BLOCK))[:entries].view(size).clone()
            scale = change(name)
            shard[name] = tensor.mul_(1 + scale) if scale else tensor
            count += tensor.numel()
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return count


def weights(config: Qwen3Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes."""
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    return ((name, tuple(weight.shape)) for name, weight in model.named_parameters())


if __name__ == "__main__":
    main()
