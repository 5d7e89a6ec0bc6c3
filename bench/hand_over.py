"""An update that starts with what the rollout handed over, against one that computes the layers below again: ratios of one run.

    OMP_NUM_THREADS=2 python bench/hand_over.py --model DIR [--sets layer:12] [--batch 2x8x150] [--dtype bfloat16] [--rounds 3]

A batch PROMPTSxSAMPLESxTOKENS is sampled once on arithmetic prompts, each reply of exactly that many tokens; every row has an advantage.
The two kinds of update run in turn on the same rows and the same weights (the learning rate is next to nothing). For each set:

- seconds: of an update, the median of the rounds, after one that is not counted; of the processor, so that other load on the machine does
  not count (all threads together). operations: estimated (agents/flops.py).
- GiB: the most that the process holds above what it held before the updates, with the inputs that were handed over among it.
- rollout: seconds of sampling the batch with what is handed over and without, in turn.
- difference: of the log-probabilities that the two kinds give the sampled tokens, mean absolute and k3 (nats), beside that of the trainer's
  own and the engine's; and of the gradient, the norm of the difference over the norm.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from memory import Peak

from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.agents.flops import multiplied, training_flops
from onelayer.agents.policy import Base, load_base
from onelayer.agents.trained_sets import select
from onelayer.envs.config import MathConfig
from onelayer.envs.math.arithmetic import generate
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.forward import packs
from onelayer.trainers.learner import Learner
from onelayer.trainers.loss import k3
from onelayer.trainers.rows import TrainingRow, make_rows

Result = TypeVar("Result")
HEADINGS = ("set", "seconds", "without", "ratio", "operations", "GiB", "without", "rollout", "difference", "k3", "of engine", "gradient")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sets", nargs="+", help="layer:K (default: the middle layer)")
    parser.add_argument("--batch", default="2x8x150", help="prompts x samples x tokens of a reply")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    base = load_base(ModelConfig(path=args.model, dtype=args.dtype, device="cpu"))
    middle = f"layer:{base.model.config.get_text_config().num_hidden_layers // 2}"
    print(" ".join(f"{heading:>12}" for heading in HEADINGS))
    for trained_set in args.sets or [middle]:
        print(" ".join(f"{value:>12}" for value in compare(base, trained_set, args)), flush=True)


def compare(base: Base, trained_set: str, args: argparse.Namespace) -> list[str]:
    prompts, samples, tokens = map(int, args.batch.split("x"))
    settings = TrainerConfig(trained_set=trained_set, lr=1e-12, max_grad_norm=1e12)
    trained = select(base.model, trained_set)
    config = Config(trainer=settings, agent=AgentConfig(max_tokens=tokens))
    learner = Learner(base.model, trained, config)
    chat = make_agent(base, config.agent, MathConfig()).chat
    asked = [chat.encode(item.question) for item in generate("train", prompts, 3, 0) for _ in range(samples)]

    def sampled(inputs_of: int | None) -> list[TrainingRow]:
        engine = TransformersEngine(base.model, set(), len(asked))
        wanted = [Request(prompt, seed, Sampling(tokens), inputs_of=inputs_of) for seed, prompt in enumerate(asked)]
        episodes = [Episode(index, Play("", index // samples, index)) for index in range(len(asked))]
        for done in engine.generate(wanted):
            seen = (asked[done.index], done.token_ids, done.logprobs, "", "", 0.0, False, {})
            episodes[done.index].steps.append(Step(*seen, inputs=done.inputs))
        return make_rows(episodes, [float(2 * (index % 2) - 1) for index in range(len(asked))], settings, tokens)

    sampling: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(args.rounds if args.rounds < 3 else 2):
        for hands_over in (False, True):
            seconds, rows = timed(lambda hands_over=hands_over: sampled(learner.inputs_of if hands_over else None))
            sampling[hands_over].append(seconds)
    kinds = {True: rows, False: [replace(row, inputs=None) for row in rows]}
    assert all(row.inputs for row in rows)

    gradients: dict[bool, torch.Tensor] = {}
    step, masters = learner.optimizer.step, list(learner.optimizer.masters.values())

    def stepped(hands_over: bool) -> float:
        gradients[hands_over] = torch.cat([master.grad.flatten() for master in masters if master.grad is not None])
        return step()

    updating: dict[bool, list[float]] = {True: [], False: []}
    peaks: dict[bool, float] = {}
    held = sum(part.nbytes for row in rows if row.inputs for part in row.inputs.rest_RH)
    held += sum({id(row.inputs.prompt_TH): row.inputs.prompt_TH.nbytes for row in rows if row.inputs}.values())
    for round_ in range(args.rounds + 1):
        for hands_over in (True, False):
            learner.optimizer.step = lambda hands_over=hands_over: stepped(hands_over)
            peak = Peak()
            seconds, _ = timed(lambda hands_over=hands_over: learner.update(kinds[hands_over]))
            if round_:
                updating[hands_over].append(seconds)
                peaks[hands_over] = max(peaks.get(hands_over, 0.0), peak.above() + hands_over * held / 2**30)
    found = {kind: [packs(kinds[kind], learner.tokens_per_forward, base.model.device)] for kind in kinds}
    for (parts,) in found.values():
        for pack in parts:
            learner.keep_old(pack)
    old = {kind: torch.cat([b.old_N for pack in parts for b in pack.buckets if b.old_N is not None]) for kind, (parts,) in found.items()}
    engine = torch.cat([bucket.sampler_N for pack in found[True][0] for bucket in pack.buckets])
    count = sum(len(row.prompt_ids) + len(row.token_ids) for row in rows)
    all_, above = multiplied(base.model), multiplied(base.model, trained.first_layer)
    operations = [training_flops(count, all_, above, trained.count, 1, False, handed) for handed in (count, 0)]
    with_, without = (statistics.median(updating[kind]) for kind in (True, False))
    learner.optimizer.close()
    return [
        trained_set,
        f"{with_:.2f}",
        f"{without:.2f}",
        f"{with_ / without:.2f}",
        f"{operations[0] / operations[1]:.2f}",
        f"{peaks[True]:.3f}",
        f"{peaks[False]:.3f}",
        f"{min(sampling[True]) / min(sampling[False]):.2f}",
        f"{(old[True] - old[False]).abs().mean():.1e}",
        f"{k3(old[True], old[False]).mean():.1e}",
        f"{(old[False] - engine).abs().mean():.1e}",
        f"{(gradients[True] - gradients[False]).norm() / gradients[False].norm():.1e}",
    ]


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


if __name__ == "__main__":
    main()
