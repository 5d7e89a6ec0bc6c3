"""A quantised base against the same base unpacked: memory of the weights, log-probabilities, and seconds of an update.

    OMP_NUM_THREADS=2 python bench/quantized.py --model DIR-OR-FILE.gguf [--kinds int8 nf4 gguf] [--set layer:12] [--batch 8x100]

- GiB: the parameters as they are kept, and over those of the base in bfloat16.
- difference: the largest of the log-probabilities of all tokens of the vocabulary after 48 random tokens, between the base with packed
  weights and with all of them unpacked; and the mean KL divergence of the base as it is without `model.quantization` from it.
- seconds: an update of ROWSxTOKENS random tokens in groups of four, packed and unpacked, of the processor; the median of the
  rounds, after one that is not counted.
- resident: the most that the process holds in an update above the start of the case, the model itself included, packed and unpacked.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time

import torch
from memory import Peak, status

from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.packed import unpack, unpacked, weight_bytes
from onelayer.agents.policy import Base, load_base
from onelayer.agents.trained_sets import select
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.learner import Learner
from onelayer.trainers.rows import TrainingRow, weighted

GROUP, PROMPT = 4, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--kinds", nargs="+", default=["int8", "nf4"])
    parser.add_argument("--set", default="layer:3")
    parser.add_argument("--batch", default="8x100")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    plain = load_base(ModelConfig(path=args.model, dtype="bfloat16", device="cpu"))
    without, full = logprobs(plain), weight_bytes(plain.model)
    del plain
    print(
        f"{'kind':<6} {'GiB':>7} {'of bf16':>7} {'difference':>10} {'KL':>8} {'seconds':>8} {'unpacked':>8} {'resident':>8} {'unpacked':>8}"
    )
    for kind in args.kinds:
        gc.collect()
        start = Peak().before
        base = load_base(ModelConfig(path=args.model, dtype="bfloat16", device="cpu", quantization=kind))
        held, packed = weight_bytes(base.model), logprobs(base)
        gc.collect()
        Peak()  # what loading took is not counted
        seconds = [update_seconds(base, args)]
        resident = [status("VmHWM") - start]
        unpack(base.model, dict(base.model.named_parameters()))
        plain_now = logprobs(base)
        Peak()
        seconds.append(update_seconds(base, args))
        resident.append(status("VmHWM") - start)
        difference = (packed - plain_now).abs().max()
        kl = (without.exp() * (without - packed)).sum(-1).mean()
        print(
            f"{kind:<6} {held / 2**30:>7.3f} {held / full:>7.2f} {difference:>10.1e} {kl:>8.1e} {seconds[0]:>8.2f} {seconds[1]:>8.2f} "
            f"{resident[0]:>8.2f} {resident[1]:>8.2f}",
            flush=True,
        )
        del base


@torch.no_grad()
def logprobs(base: Base) -> torch.Tensor:
    rng = random.Random(0)
    ids = torch.tensor([[rng.randrange(10, base.model.config.get_text_config().vocab_size) for _ in range(48)]])
    return base.model(ids).logits[0].float().log_softmax(-1)


def update_seconds(base: Base, args: argparse.Namespace) -> float:
    count, tokens = map(int, args.batch.split("x"))
    rng, settings = random.Random(0), TrainerConfig(trained_set=args.set, lr=1e-9)
    vocabulary = base.model.config.get_text_config().vocab_size
    prompts = [[rng.randrange(10, vocabulary) for _ in range(PROMPT)] for _ in range(-(-count // GROUP))]
    made = [
        TrainingRow(
            prompts[row // GROUP], [rng.randrange(10, vocabulary) for _ in range(tokens)], [True] * tokens, [-2.0] * tokens,
            [1.0 if row % 2 else -1.0] * tokens, [False] * tokens, "", row // GROUP, row, 0,
        )
        for row in range(count)
    ]  # fmt: skip
    trained = select(base.model, args.set)
    with unpacked(base.model, trained.parameters):
        learner = Learner(base.model, trained, Config(trainer=settings, agent=AgentConfig(max_tokens=tokens)))
        rows, seconds = weighted(made, settings, tokens), []
        for _ in range(args.rounds + 1):
            started = time.process_time()
            learner.update(rows)
            seconds.append(time.process_time() - started)
        learner.optimizer.close()
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
