"""Loss and gradient here and in TRL 1.16, on the same samples, rewards and weights: they are to agree to 1e-5.

    python -m venv .venv-trl && .venv-trl/bin/pip install -c constraints.txt torch && .venv-trl/bin/pip install trl==1.16.0
    python bench/vs_trl_loss.py --trl .venv-trl/bin/python

The tiny model answers 8 prompts 8 times, with replies of different length, some of them cut off. The policy that is updated is that
model with its weights moved, so that the ratios differ from 1 and clipping acts. TRL is given prompts, completions, their
log-probabilities and rewards by its own hooks (`rollout_func`, a reward function); advantages, loss and gradient are its own:
`_generate_and_score_completions`, `compute_loss`. The one thing set from outside is which log-probabilities are the old ones: those of
the samples.
Printed for each case: both losses, and the largest difference of any gradient entry beside the largest entry. Exits with 1 where a
difference of loss or gradient is above 1e-5.
RLOO is compared where its ratios are 1, with the policy that is updated as the old one: there the ratio of a reply, which TRL takes, has
the gradient of the sum of its tokens' ratios. The losses are other numbers (TRL's is minus the mean advantage, which is 0), shown as nan.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

PROMPTS, SAMPLES, MAX_TOKENS, MOVED, TOLERANCE = 8, 8, 32, 0.4, 1e-5
PLAIN_KL: dict[str, object] = {
    "use_bias_correction_kl": False
}  # TRL multiplies the KL term with the ratio unless told otherwise; docs/algorithms.md
DR: dict[str, object] = {"loss_type": "dr_grpo", "scale_rewards": "none"}
CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {  # keys of trainer here, of GRPOConfig there
    "grpo": ({}, {"loss_type": "grpo"}),
    "dr_grpo": ({"algorithm": "dr_grpo"}, DR),
    "grpo, KL 0.1": ({"kl_coef": 0.1}, {"loss_type": "grpo", "beta": 0.1, **PLAIN_KL}),
    "dr_grpo, KL 0.1": ({"algorithm": "dr_grpo", "kl_coef": 0.1}, {**DR, "beta": 0.1, **PLAIN_KL}),
    "grpo, clip 0.1 to 0.3": ({"clip": 0.1, "clip_high": 0.3}, {"loss_type": "grpo", "epsilon": 0.1, "epsilon_high": 0.3}),
    "sequence ratio (GSPO)": (
        {"ratio": "sequence", "clip": 0.05},
        {"loss_type": "grpo", "epsilon": 0.05, "importance_sampling_level": "sequence"},
    ),
    "token mean (DAPO)": ({"algorithm": {"name": "grpo", "loss_weights": "token_mean"}}, {"loss_type": "dapo"}),
    "grpo, truncated masked": ({"mask_truncated": True}, {"loss_type": "grpo", "mask_truncated_completions": True}),
    "dr_grpo, truncated masked": ({"algorithm": "dr_grpo", "mask_truncated": True}, {**DR, "mask_truncated_completions": True}),
    "token mean, truncated masked": (
        {"algorithm": {"name": "grpo", "loss_weights": "token_mean"}, "mask_truncated": True},
        {"loss_type": "dapo", "mask_truncated_completions": True},
    ),
    "rloo": ({"algorithm": "rloo"}, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", help="python of an environment with TRL")
    parser.add_argument("--theirs", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        theirs(args.theirs)
        return
    if not args.trl:
        parser.error("--trl PYTHON is needed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = sample(folder)
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        run = subprocess.run([args.trl, __file__, "--theirs", folder], env=environment, cwd=folder, text=True, capture_output=True)
        if run.returncode:
            sys.exit(run.stderr)
        lengths, rewards = [len(s["completion_ids"]) for s in samples], [s["reward"] for s in samples]
        cut = sum(s["truncated"] for s in samples)
        print(f"{len(samples)} completions of {min(lengths)} to {max(lengths)} tokens, {cut} of them cut off, {sum(rewards):g} solved")
        print(f"{'':<30} {'loss here':>12} {'in TRL':>12} {'difference':>11} {'of gradient':>11} {'largest':>9} {'clipped':>8}")
        worst = 0.0
        for case, (settings, _) in CASES.items():
            found = torch.load(folder / f"{case}.pt")
            loss, gradient, clipped = ours(folder, samples, settings)
            assert gradient.keys() == found["gradient"].keys()
            apart = max(float((gradient[key] - found["gradient"][key]).abs().max()) for key in gradient)
            largest = max(float(value.abs().max()) for value in gradient.values())
            difference = abs(loss - found["loss"])
            print(f"{case:<30} {loss:>12.8f} {found['loss']:>12.8f} {difference:>11.1e} {apart:>11.1e} {largest:>9.4f} {clipped:>8.1%}")
            worst = max(worst, apart / max(1.0, largest), 0.0 if math.isnan(difference) else difference)
    print(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    sys.exit(worst > TOLERANCE)


def sample(folder: Path) -> list[dict[str, Any]]:
    """Samples of the tiny model on its own arithmetic, the base and the moved policy in `folder`."""
    from onelayer.agents import tiny
    from onelayer.agents.agent import make_agent
    from onelayer.agents.config import ModelConfig
    from onelayer.agents.engine import Sampling
    from onelayer.agents.episodes import Play, play
    from onelayer.agents.policy import load_base
    from onelayer.envs.pool import open_pool
    from onelayer.trainers.config import Config
    from onelayer.trainers.train import training_split

    config = Config(model=ModelConfig(device="cpu"))
    base = load_base(config.model)
    items = [item.id for item in training_split(config).items[:PROMPTS]]
    plays = [Play(item, group, 100 * group + number) for group, item in enumerate(items) for number in range(SAMPLES)]
    with open_pool(config.env, "train", config.pool) as pool:
        played = play(make_agent(base, config.agent, config.env), pool, plays, Sampling(MAX_TOKENS))
        episodes = sorted(played, key=lambda episode: episode.index)
    samples = [
        {"prompt_ids": s.prompt_ids, "completion_ids": s.token_ids, "logprobs": s.logprobs, "reward": e.reward, "truncated": s.truncated}
        for e in episodes
        for s in e.steps
    ]
    (folder / "samples.json").write_text(json.dumps(samples))
    generator = torch.Generator().manual_seed(0)
    policy = {
        name: weight + MOVED * weight.std() * torch.randn(weight.shape, generator=generator)
        for name, weight in base.model.named_parameters()
    }
    torch.save({name: weight.detach() for name, weight in policy.items()}, folder / "policy.pt")
    (folder / "base").symlink_to(tiny.PATH)
    return samples


def ours(folder: Path, samples: list[dict[str, Any]], settings: dict[str, object]) -> tuple[float, dict[str, torch.Tensor], float]:
    """Loss, gradient by name, and the share of clipped tokens."""
    from onelayer.agents.config import ModelConfig
    from onelayer.agents.episodes import Episode, Play, Step
    from onelayer.agents.policy import load_base
    from onelayer.agents.trained_sets import select
    from onelayer.trainers.config import Config, TrainerConfig
    from onelayer.trainers.forward import Bucket, Pack
    from onelayer.trainers.learner import Learner, Totals
    from onelayer.trainers.rows import make_rows
    from onelayer.trainers.train import advantages

    config = Config(trainer=TrainerConfig.model_validate(settings), model=ModelConfig(device="cpu"))
    base = load_base(config.model)
    steps = [Step(s["prompt_ids"], s["completion_ids"], s["logprobs"], "", "", s["reward"], s["truncated"], {}) for s in samples]
    episodes = [Episode(at, Play("", at // SAMPLES, at), [step]) for at, step in enumerate(steps)]
    rows = make_rows(episodes, advantages(episodes, config.trainer), config.trainer, MAX_TOKENS)
    losses: list[float] = []

    class OffPolicyLearner(Learner):
        """As TRL is told in its own run: what sampled the tokens is the policy before the update."""

        def token_loss(self, bucket: Bucket, *arguments: Any) -> torch.Tensor:
            loss = super().token_loss(bucket, *arguments)
            losses.append(float(loss.detach()))
            return loss

        def backward(self, pack: Pack, totals: Totals) -> None:
            for bucket in pack.buckets:
                bucket.old_N = bucket.sampler_N
            super().backward(pack, totals)

    on_policy = config.trainer.algorithm.name == "rloo"
    learner = (Learner if on_policy else OffPolicyLearner)(base.model, select(base.model, "full"), config)
    learner.optimizer.step = lambda: 0.0
    with torch.no_grad():
        for name, weight in torch.load(folder / "policy.pt").items():
            learner.trained.parameters[name].copy_(weight)
    metrics = learner.update(rows)
    gradient = {name: weight.grad for name, weight in learner.trained.parameters.items() if weight.grad is not None}
    return math.nan if on_policy else sum(losses), gradient, metrics["clip_share"] or 0.0


def theirs(folder: Path) -> None:
    """Each case by TRL, in its own environment; writes CASE.pt."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer  # pyright: ignore[reportMissingImports]
    from trl_grpo import PLAIN, load

    samples = json.loads((folder / "samples.json").read_text())
    dataset = Dataset.from_list([{"prompt": f"prompt {at // SAMPLES}", "number": at} for at in range(len(samples))])

    def rollout(prompts: list, trainer: object) -> dict[str, list]:
        return {key: [sample[key] for sample in samples] for key in ("prompt_ids", "completion_ids", "logprobs")}

    def reward(number: list[int], **_: object) -> list[float]:
        return [samples[at]["reward"] for at in number]

    for case, (_, settings) in CASES.items():
        rloo = case == "rloo"
        config = (RLOOConfig if rloo else GRPOConfig)(
            output_dir=str(folder / "trl"), per_device_train_batch_size=len(samples), num_generations=SAMPLES,
            max_completion_length=MAX_TOKENS, **(PLAIN | settings),
        )  # fmt: skip
        model = load(str(folder / "base"))
        tokenizer = AutoTokenizer.from_pretrained(folder / "base", trust_remote_code=False)
        if rloo:  # it has no `rollout_func`
            trainer = RLOOTrainer(model, reward, args=config, train_dataset=dataset, processing_class=tokenizer)
            trainer._tokenize_prompts = lambda prompts: ([sample["prompt_ids"] for sample in samples], None, {})
            trainer._generate_single_turn = lambda *_: [sample["completion_ids"] for sample in samples]
        else:
            trainer = GRPOTrainer(model, reward, args=config, train_dataset=dataset, rollout_func=rollout, processing_class=tokenizer)
        with torch.no_grad():
            for name, weight in torch.load(folder / "policy.pt").items():
                dict(model.named_parameters())[name].copy_(weight)
        model.train()
        trainer.current_gradient_accumulation_steps = 1
        inputs = trainer._generate_and_score_completions(list(dataset))
        if not rloo:
            inputs["old_per_token_logps"] = inputs["sampling_per_token_logps"]
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        gradient = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        torch.save({"loss": float(loss.detach()), "gradient": gradient}, folder / f"{case}.pt")


if __name__ == "__main__":
    main()
