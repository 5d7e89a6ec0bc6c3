"""What only a GPU can show, in under ten minutes: speed and memory of rollouts and updates, vLLM's sync and sleep, equality of two runs.

    python bench/gpu.py --hardware h200 --output h200.json [--models Qwen/Qwen3-1.7B-Base Qwen/Qwen3-8B-Base] [--tiny]

The models have the shape of those names (agents/shapes.py) and random weights: speed and memory do not depend on the values. Each is
measured in a process of its own, whose failure costs its figures alone.

- rollout: --batch replies of --tokens tokens to eighths as many prompts of as many tokens, by the default engine, and by vLLM where it can
  be imported. Operations are counted as `onelayer estimate` counts them.
- update: one update of the middle layer and of all parameters on such replies, after one of few tokens that is not counted. `peak` is the
  most memory that PyTorch had allocated. TRL's on the same rows, where trl can be imported (it keeps no float32 masters; bench/memory.py).
- sync: seconds until vLLM has one layer, and all weights; sleep, wake: until vLLM has given its memory back, and has it again.
- determinism: whether two rollouts with the same seeds gave the same tokens, and two updates of the same rows the same bytes.

--output gets a calibration for `onelayer estimate --calibration` (docs/scaling.md). --tiny tries all of it with shapes so small that a CPU
takes seconds; such a calibration says nothing of any device.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from onelayer.agents import tiny
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.ends import Ends
from onelayer.agents.engine import Engine, Request, Sampling, in_model
from onelayer.agents.flops import multiplied, training_flops
from onelayer.agents.policy import Base, weight_hashes
from onelayer.agents.shapes import SHAPES
from onelayer.agents.trained_sets import TrainedSet, select
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.hardware import GIB, Calibration, Measured
from onelayer.trainers.learner import Learner
from onelayer.trainers.rows import TrainingRow, weighted

GROUP, WARM = 8, 8
TINY = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY |= {"head_dim": 8, "vocab_size": 1024, "max_position_embeddings": 512}


@dataclass
class Found:
    """What a process has measured of one model."""

    measured: list[dict[str, Any]] = field(default_factory=list)
    further: dict[str, Any] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hardware", help="name of the device for --hardware of onelayer estimate, as h200")
    parser.add_argument("--output", type=Path, help="file for the calibration")
    parser.add_argument("--models", nargs="+", default=["Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-8B-Base"], choices=list(SHAPES), metavar="NAME")
    parser.add_argument("--batch", type=int, default=128, help="replies of a rollout and an update")
    parser.add_argument("--tokens", type=int, default=512, help="of a reply, and of a prompt")
    parser.add_argument("--kv-cache-gib", type=float, default=16.0)
    parser.add_argument("--tiny", action="store_true", help="try it with small shapes, on any device")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.batch, args.tokens, args.kv_cache_gib = 16, 8, 0.01
    if not args.tiny and not torch.cuda.is_available():
        sys.exit("bench/gpu.py: no GPU here; --tiny tries it on a CPU")
    if args.case:
        print(json.dumps(asdict(measure(args.case, args))))
        return
    every = Found()
    for name in args.models:
        started = time.perf_counter()
        run = subprocess.run([sys.executable, *sys.argv, "--case", name], text=True, stdout=subprocess.PIPE)
        if run.returncode:
            print(f"{name}: ended with {run.returncode}")
            continue
        found = json.loads(run.stdout.splitlines()[-1])
        every.measured += found["measured"]
        every.further |= {f"{name} {what}": value for what, value in found["further"].items()}
        show(name, found, time.perf_counter() - started)
    if args.output and every.measured:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        written = Calibration(
            hardware=args.hardware or device,
            device=device,
            date=date.today().isoformat(),
            versions={
                "torch": torch.__version__,
                **{package: found for package in ("onelayer", "vllm", "trl") if (found := installed(package))},
            },
            measured=[Measured(**one) for one in every.measured],
            further=every.further,
        )
        args.output.write_text(written.model_dump_json(indent=2) + "\n")


def show(name: str, found: dict[str, Any], seconds: float) -> None:
    print(f"{name}: {seconds:.0f} s in all")
    for one in found["measured"]:
        peak = "" if one["peak_gib"] is None else f", peak {one['peak_gib']:.1f} GiB"
        rate = one["operations"] / one["seconds"]
        print(f"  {one['phase']:<8} {one['trained_set']:<9} {one['engine']:<13} {one['seconds']:9.3f} s  {rate:.3g} operations/s{peak}")
    for what, value in found["further"].items():
        print(f"  {what}: {value:.3f}" if isinstance(value, float) else f"  {what}: {value}", flush=True)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def measure(name: str, args: argparse.Namespace) -> Found:
    """All of one model. A part that does not fit, or fails, is a line of `further` that says so."""
    found = Found()
    base = random_base(name, args.tiny)
    middle = f"layer:{base.model.config.num_hidden_layers // 2}"
    row = {"model": name, "parameters": sum(weight.numel() for weight in base.model.parameters())}
    with part(found, "default engine"):
        engine = in_model(base, AgentConfig(max_tokens=args.tokens, kv_cache_gib=args.kv_cache_gib, max_batch=256))
        engine.ends = Ends()  # replies of random weights may end at once
        rollouts(found, row, engine, "transformers", base.model, args)
    if find_spec("vllm"):
        with part(found, "vllm"):
            vllm(found, row, base, middle, args)
    for trained_set in (middle, "full"):
        with part(found, f"update of {trained_set}"):
            updates(found, row, base, trained_set, args)
    if find_spec("trl"):
        for trained_set in (middle, "full"):
            with part(found, f"TRL's update of {trained_set}"):
                of_trl(found, base, trained_set, args)
    return found


@contextmanager
def part(found: Found, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # memory that is not there, and whatever vLLM and TRL raise: the other parts go on
        found.further[f"{what} failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def random_base(name: str, small: bool) -> Base:
    """A model with the shape of that name, and the tokenizer of the tiny base, which no figure depends on."""
    torch.manual_seed(0)
    shape = replace(SHAPES[name], **TINY) if small else SHAPES[name]
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(shape.config(), dtype=torch.bfloat16)
    return Base(model.eval(), AutoTokenizer.from_pretrained(tiny.PATH, trust_remote_code=False), {})


def timed(action: Callable[[], Any]) -> tuple[Any, float, float | None]:
    """What it returns, its seconds, and GiB that were allocated at most."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    result = action()
    if gpu:
        torch.cuda.synchronize()
    return result, time.perf_counter() - started, torch.cuda.max_memory_allocated() / GIB if gpu else None


def prompts(model: PreTrainedModel, args: argparse.Namespace) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(10, 1000) for _ in range(args.tokens)] for _ in range(-(-args.batch // GROUP))]


def rollouts(found: Found, row: dict[str, Any], engine: Engine, name: str, model: PreTrainedModel, args: argparse.Namespace) -> None:
    """Two of the same seeds, of which the second counts, and whether they agree."""
    given = prompts(model, args)

    def once() -> list[list[int]]:
        requests = [Request(given[at // GROUP], at, Sampling(args.tokens)) for at in range(args.batch)]
        replies = {one.index: one.token_ids for one in engine.generate(requests)}
        return [replies[at] for at in range(args.batch)]

    first = once()
    again, seconds, peak = timed(once)
    sampled = sum(map(len, again))
    operations = 2.0 * multiplied(model) * (sampled + args.batch * args.tokens)
    found.measured.append(
        row | {"trained_set": "full", "phase": "rollout", "engine": name, "operations": operations, "seconds": seconds, "peak_gib": peak}
    )
    found.further[f"{name}: sampled tokens a second"] = sampled / seconds
    found.further[f"{name}: two rollouts of the same seeds are equal"] = first == again


def vllm(found: Found, row: dict[str, Any], base: Base, middle: str, args: argparse.Namespace) -> None:
    """Rollouts, sync and sleep of vLLM beside the trainer's model."""
    from onelayer.agents.vllm_engine import in_process

    with tempfile.TemporaryDirectory() as folder:
        base.model.save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        base.model.name_or_path = folder
        (engine, seconds, _) = timed(
            lambda: in_process(base, AgentConfig(engine="vllm", max_tokens=args.tokens, kv_cache_gib=args.kv_cache_gib))
        )
        found.further["vllm: seconds to start"] = seconds
        engine.ends = Ends()
        rollouts(found, row, engine, "vllm", base.model, args)
        gap = engine.difference
        found.further["vllm: mean difference of logprobs, nats"] = gap.mean if gap else None
        for what, weights in (("one layer", select(base.model, middle).parameters), ("all", dict(base.model.named_parameters()))):
            engine.load(weights)
            found.further[f"vllm: seconds to sync {what}"] = timed(lambda weights=weights: engine.load(weights))[1]
        with part(found, "vllm asleep"):
            asleep(found, engine.backend.llm)


def asleep(found: Found, llm: Any) -> None:
    """How long vLLM takes to give back its memory, and to have it again; it must have been started with its sleep mode."""
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    found.further["vllm: seconds to sleep"] = timed(lambda: llm.sleep(level=1))[1]
    if torch.cuda.is_available():
        found.further["vllm: GiB that it gives back asleep"] = (torch.cuda.mem_get_info()[0] - free) / GIB
    found.further["vllm: seconds to wake"] = timed(llm.wake_up)[1]


def rows_of(base: Base, settings: TrainerConfig, count: int, tokens: int, args: argparse.Namespace) -> list[TrainingRow]:
    """Rows with an advantage each, in groups that share a prompt."""
    rng, given = random.Random(1), prompts(base.model, args)
    made = [
        TrainingRow(
            given[at // GROUP],
            [rng.randrange(10, 1000) for _ in range(tokens)],
            [True] * tokens,
            [-2.0] * tokens,
            [1.0 if at % 2 else -1.0] * tokens,
            [False] * tokens,
            "",
            at // GROUP,
            at,
            0,
        )
        for at in range(count)
    ]
    return weighted(made, settings, tokens)


def updates(found: Found, row: dict[str, Any], base: Base, trained_set: str, args: argparse.Namespace) -> None:
    """One update, and once more from the same weights; they are put back afterwards."""
    settings = TrainerConfig(trained_set=trained_set, lr=1e-5, warmup_steps=0, tokens_per_forward=4096)
    config = Config(trainer=settings, model=ModelConfig(path="tiny", dtype="bfloat16"), agent=AgentConfig(max_tokens=args.tokens))
    trained = select(base.model, trained_set)
    before = {name: weight.detach().to("cpu", copy=True) for name, weight in trained.parameters.items()}

    def once() -> tuple[float, float | None, dict[str, str]]:
        restore(trained, before)
        learner = Learner(base.model, trained, config)
        learner.update(rows_of(base, settings, GROUP, WARM, args))
        batch = rows_of(base, settings, args.batch, args.tokens, args)
        _, seconds, peak = timed(lambda: learner.update(batch))
        learner.optimizer.close()
        return seconds, peak, weight_hashes(base.model, trained.parameters)

    first, again = once(), once()
    restore(trained, before)
    tokens = 2 * args.batch * args.tokens
    operations = training_flops(tokens, multiplied(base.model), multiplied(base.model, trained.first_layer), trained.count, 1, False)
    found.measured.append(
        row
        | {"trained_set": trained_set, "phase": "update", "engine": "transformers", "operations": operations}
        | {"seconds": again[0], "peak_gib": again[1]}
    )
    found.further[f"two updates of {trained_set} end in the same bytes"] = first[2] == again[2]


@torch.no_grad()
def restore(trained: TrainedSet, before: dict[str, torch.Tensor]) -> None:
    for name, weight in trained.parameters.items():
        weight.copy_(before[name])
        weight.grad = None


def of_trl(found: Found, base: Base, trained_set: str, args: argparse.Namespace) -> None:
    """TRL's update of the same rows, without its rollout (trl_grpo.py)."""
    from datasets import Dataset
    from trl_grpo import Steps

    given = prompts(base.model, args)
    lengths = iter([WARM, args.tokens])

    def rollout(_: list, trainer: object) -> dict[str, list]:
        many = next(lengths)
        rows = rows_of(base, TrainerConfig(), args.batch, many, args)
        return {
            "prompt_ids": [given[at // GROUP] for at in range(args.batch)],
            "completion_ids": [list(one.token_ids) for one in rows],
            "logprobs": [[-2.0] * many] * args.batch,
        }

    def reward(completions: list, **_: object) -> list[float]:
        return [float(at % 2) for at in range(len(completions))]

    chosen = {id(weight) for weight in select(base.model, trained_set).parameters.values()}
    for weight in base.model.parameters():
        weight.requires_grad_(id(weight) in chosen)
    steps, per_pass = Steps(), min(args.batch, GROUP)
    dataset = Dataset.from_list([{"prompt": f"prompt {number}"} for number in range(args.batch // GROUP)])
    _, _, peak = timed(
        lambda: steps.run(
            base.model, str(tiny.PATH), reward, dataset, rollout,
            per_device_train_batch_size=per_pass, gradient_accumulation_steps=args.batch // per_pass, num_generations=GROUP,
            max_completion_length=args.tokens, learning_rate=1e-9, max_steps=2, use_cpu=not torch.cuda.is_available(),
        )
    )  # fmt: skip
    found.further[f"TRL's update of {trained_set}, seconds"] = steps.updates[-1]
    found.further[f"TRL's update of {trained_set}, peak GiB"] = peak


if __name__ == "__main__":
    main()
