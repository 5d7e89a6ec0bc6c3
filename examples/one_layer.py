"""The whole idea in one file: train one transformer layer with GRPO, train all of them, and compare what each has gained.

    python examples/one_layer.py                    # the tiny base that ships with onelayer, layer 3: about two minutes on a CPU
    python examples/one_layer.py --model DIR --layer 13 --lr-layer 5e-6 --lr-full 1e-6

It imports torch and transformers, and nothing of onelayer. The package does the same for any environment, algorithm and trained set, faster
and with intervals, and a stopped run goes on to the same bytes; here is what it computes. Letters at the end of names are dimensions:
B replies of a batch (prompts x G), G replies to one prompt, P prompt tokens, R reply tokens, V vocabulary.
"""

from __future__ import annotations

import argparse
import copy
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TINY = Path(__file__).parents[1] / "agents" / "tiny" / "model"
REQUEST = "\nReason step by step and put the final answer in \\boxed{}."
STEPS, PROMPTS, G, REPLY, CLIP, WARMUP, HELD_OUT = 20, 16, 8, 40, 0.2, 3, 256


# The task: items with a question and a right answer, and a reward of 1 for a reply that gives it.


@dataclass(frozen=True)
class Item:
    question: str
    answer: int


def items(count: int, seed: int) -> list[Item]:
    """`count` different sums of four numbers, such as `What is 15 + 12 - 8 + 12?`, with a result of 0 to 99."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        first, *rest = (rng.randint(1, 39) for _ in range(4))
        signed = [rng.choice((1, -1)) * number for number in rest]
        results = [first + sum(signed[:length]) for length in range(4)]
        if all(0 <= result <= 99 for result in results):
            text = " ".join([str(first), *(f"{'+' if number > 0 else '-'} {abs(number)}" for number in signed)])
            found[text] = Item(f"What is {text}?", results[-1])
    return list(found.values())


def reward(item: Item, reply: str) -> float:
    boxed = re.findall(r"\\boxed\{(-?\d+)\}", reply)
    return float(bool(boxed) and int(boxed[-1]) == item.answer)


# The rollout: G replies to each prompt, sampled at temperature 1 from the policy as it is.


@dataclass(frozen=True)
class Batch:
    """Replies to prompts that are padded on the left to P tokens; the replies are padded on the right to R."""

    ids: torch.Tensor
    """[B, P + R]"""
    mask: torch.Tensor
    """[B, P + R]: 1 for tokens, 0 for padding."""
    prompt_length: int
    """P"""
    rewards: torch.Tensor
    """[B], the G replies to one prompt after each other"""

    @property
    def reply_mask(self) -> torch.Tensor:
        return self.mask[:, self.prompt_length :]


@torch.no_grad()
def rollout(model: Any, tokenizer: Any, asked: list[Item], replies: int, greedy: bool = False) -> Batch:
    """`replies` to each item, with their rewards."""
    prompts = [[{"role": "user", "content": item.question + REQUEST}] for item in asked]
    texts = [tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in prompts]
    tokenizer.padding_side = "left"
    given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    sampling = {"do_sample": False} if greedy else {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    ids = model.generate(
        input_ids=given.input_ids, attention_mask=given.attention_mask, max_new_tokens=REPLY, num_return_sequences=replies, **sampling
    )
    length = given.input_ids.shape[1]
    ends = (ids[:, length:] == tokenizer.eos_token_id).long()
    reply_mask = (ends.cumsum(1) - ends == 0).long()  # up to the first end of the reply, which is a sampled token like any other
    mask = torch.cat([given.attention_mask.repeat_interleave(replies, 0), reply_mask], 1)
    said = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    rewards = [reward(asked[at // replies], text) for at, text in enumerate(said)]
    return Batch(ids, mask, length, torch.tensor(rewards, device=ids.device))


# GRPO: from rewards to a loss.


def advantages(rewards_B: torch.Tensor) -> torch.Tensor:
    """A_i = (r_i - mean(r)) / (std(r) + 1e-4) over the G replies to one prompt [B]; 0 where all were paid alike."""
    r = rewards_B.view(-1, G)
    return ((r - r.mean(1, keepdim=True)) / (r.std(1, keepdim=True) + 1e-4)).flatten()


def logprobs(model: Any, batch: Batch) -> torch.Tensor:
    """log p(y_it), the log-probability of each token of each reply [B, R]."""
    positions = (batch.mask.cumsum(1) - 1).clamp(min=0)
    logits_BRV = model(input_ids=batch.ids, attention_mask=batch.mask, position_ids=positions).logits[:, batch.prompt_length - 1 : -1]
    return logits_BRV.log_softmax(-1).gather(-1, batch.ids[:, batch.prompt_length :, None])[..., 0]


def loss(model: Any, batch: Batch) -> torch.Tensor:
    """L = - 1/N sum_i 1/|y_i| sum_t min(rho_it A_i, clip(rho_it, 1 - eps, 1 + eps) A_i),  rho_it = p(y_it) / p_sampled(y_it).

    There is one update for each rollout, so what has sampled is the policy itself: rho is 1, but its gradient is that of log p.
    """
    logprob_BR, mask_BR = logprobs(model, batch), batch.reply_mask
    rho = (logprob_BR - logprob_BR.detach()).exp()
    A = advantages(batch.rewards)[:, None]
    gain_BR = torch.min(rho * A, rho.clamp(1 - CLIP, 1 + CLIP) * A)
    return -((gain_BR * mask_BR).sum(1) / mask_BR.sum(1)).mean()


# The trained set: one layer, or everything.


def select(model: Any, layer: int | None) -> list[torch.nn.Parameter]:
    """Freeze all but layer `layer` (None: freeze nothing); returns what is trained.

    The layer is taken as a module. A pattern of names, such as `layers.1`, would take layers 10 to 19 with it.
    """
    model.requires_grad_(layer is None)
    if layer is not None:
        model.model.layers[layer].requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def train(base: Any, tokenizer: Any, layer: int | None, lr: float, seed: int = 0) -> Any:
    """A copy of the base after STEPS steps:  theta_K <- AdamW(theta_K, dL / dtheta_K),  every other weight stays as it is."""
    model = copy.deepcopy(base)
    trained = select(model, layer)
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    torch.manual_seed(seed)
    questions = items(STEPS * PROMPTS, seed)
    for step in range(STEPS):
        batch = rollout(model, tokenizer, questions[step * PROMPTS : (step + 1) * PROMPTS], G)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / WARMUP)
        optimizer.zero_grad()
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        print(f"  step {step + 1:2d}  reward {batch.rewards.mean():.3f}", end="\r", flush=True)
    own = {id(parameter) for parameter in trained}
    before = dict(base.named_parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters() if id(weight) not in own)
    print(f"  {sum(parameter.numel() for parameter in trained):,} parameters, reward of the last step {batch.rewards.mean():.3f}")
    return model


def evaluate(model: Any, tokenizer: Any, held_out: list[Item]) -> float:
    """S: the share of right replies at temperature 1, four to an item; the same items and the same seed for every policy."""
    torch.manual_seed(1)
    return rollout(model, tokenizer, held_out, 4).rewards.mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(TINY), help="a causal model with `model.layers` (Qwen, Llama, Mistral, Gemma ...)")
    parser.add_argument("--layer", type=int, default=3, help="the layer that is trained alone, from 0")
    parser.add_argument("--lr-layer", type=float, default=1e-3)
    parser.add_argument("--lr-full", type=float, default=3e-4)
    args = parser.parse_args()
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    training = set(items(STEPS * PROMPTS, 0))
    held_out = [item for item in items(HELD_OUT + len(training), 1) if item not in training][:HELD_OUT]
    S = {"base": evaluate(base, tokenizer, held_out)}
    for name, layer, lr in (("full", None, args.lr_full), (f"layer {args.layer}", args.layer, args.lr_layer)):
        print(f"training {name}")
        S[name] = evaluate(train(base, tokenizer, layer, lr), tokenizer, held_out)
    for name, rate in S.items():
        print(f"S({name}) = {rate:.3f}")
    # The layer contribution: a ratio of two gains, each uncertain by some hundredths here. onelayer gives its interval (Fieller's).
    S_base, S_full, S_k = S.values()
    if S_full > S_base:
        print(f"C({args.layer}) = (S_k - S_base) / (S_full - S_base) = {(S_k - S_base) / (S_full - S_base):.2f}")
    else:
        print(f"no C({args.layer}): all layers together have gained nothing to compare with")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
