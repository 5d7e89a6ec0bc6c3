"""Build the tiny base from nothing: train the tokenizer, pre-train the model, measure it, write it in bf16.

    python -m onelayer.agents.tiny.pretrain --output agents/tiny/model      # about an hour on two cores

Two stages of supervised learning on the demonstrations of all three domains, the same number of steps for each: careful ones until
the skill is there, then the mixture of manners that a base model has.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from rich.progress import track
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from .demonstrations import DOMAINS

VOCABULARY = 1024
ROWS = {"math": 64, "code": 32, "alfworld": 64}  # of a step; ALFWorld has most to learn, and ten tokens a response
CAREFUL_STEPS, MIXED_STEPS = 1150, 300
PEAK_LR, MIXED_LR = 3e-3, 2e-3
PROMPT_WEIGHT = {"math": 0.0, "code": 0.0, "alfworld": 0.03}  # of the loss on a prompt's tokens, whose repetitions teach to copy names
SORTED = 16  # batches that are drawn at once and sorted by length
END, PAD = "<|im_end|>", "<|endoftext|>"
TAGS = ("<think>", "</think>", "<action>", "</action>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the demonstrations; every digit is a token of its own, with the space before it if there is one."""
    bpe = Tokenizer(models.BPE())
    words = pre_tokenizers.Split(Regex(r" ?\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+"), behavior="isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(TAGS),
        special_tokens=[PAD, "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(seed)
    pairs = [pair for demonstrations in DOMAINS.values() for pair in islice(demonstrations(True, rng), 3000)]
    bpe.train_from_iterator((text for pair in pairs for text in ("assistant\n", "user\n", *pair)), trainer)
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False
    )


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.get_vocab()[END],
        pad_token_id=tokenizer.get_vocab()[PAD],
    )


@dataclass(frozen=True)
class Batch:
    """Right-padded rows of one domain, each [rows, time]. `weight_BT` is that of predicting a token: 1 in responses, 0 on padding."""

    ids_BT: torch.Tensor
    weight_BT: torch.Tensor


def batches(tokenizer: PreTrainedTokenizerFast, domain: str, mixed: bool, rng: random.Random) -> Iterator[Batch]:
    """An endless stream of batches of one domain, each with prompts of similar length."""
    stream, rows = DOMAINS[domain](mixed, rng), ROWS[domain]
    while True:
        drawn = []
        for message, response in islice(stream, SORTED * rows):
            messages = [{"role": "user", "content": message}]
            prompt = cast("list[int]", tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
            drawn.append((prompt, cast("list[int]", tokenizer(response + END, add_special_tokens=False)["input_ids"])))
        drawn.sort(key=lambda row: len(row[0]))  # by the prompt alone: a batch of short responses would be one of one manner
        for start in rng.sample(range(0, len(drawn), rows), SORTED):
            yield padded(drawn[start : start + rows], PROMPT_WEIGHT[domain])


def padded(rows: list[tuple[list[int], list[int]]], prompt_weight: float) -> Batch:
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids_BT, weight_BT = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for index, (prompt, reply) in enumerate(rows):
        ids_BT[index, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        weight_BT[index, : len(prompt)] = prompt_weight
        weight_BT[index, len(prompt) : len(prompt) + len(reply)] = 1
    return Batch(ids_BT, weight_BT)


def fit(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, mixed: bool, steps: int, lr: float, seed: int) -> None:
    """AdamW under a one-cycle schedule (5% warm-up, cosine decay to nothing); a step takes a batch of every domain."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    streams = {domain: batches(tokenizer, domain, mixed, random.Random(f"{domain}/{seed}")) for domain in DOMAINS}
    for step in track(range(steps), description="mixture" if mixed else "careful"):
        losses = {}
        for domain, stream in streams.items():
            batch = next(stream)
            # Padding is on the right and attention causal, so no mask is needed: no token sees padding.
            hidden_BTH = model.model(input_ids=batch.ids_BT[:, :-1], use_cache=False).last_hidden_state
            weight_BT, target_BT = batch.weight_BT[:, 1:], batch.ids_BT[:, 1:]
            weight_N, target_N = weight_BT[weight_BT > 0], target_BT[weight_BT > 0]
            loss_N = cross_entropy(model.lm_head(hidden_BTH[weight_BT > 0]), target_N, reduction="none")
            ((loss_N * weight_N).sum() / weight_N.sum()).backward()
            losses[domain] = loss_N[weight_N == 1].mean().item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss on responses: " + "  ".join(f"{name} {loss:.4f}" for name, loss in losses.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory to write the model and its tokenizer to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skilled", type=Path, help="keep the model after the careful stage here; start from it if it exists")
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # attention weights near zero would make every product several times slower
    torch.manual_seed(args.seed)
    tokenizer = train_tokenizer(args.seed)
    if args.skilled and args.skilled.exists():
        model = Qwen3ForCausalLM.from_pretrained(args.skilled, dtype=torch.float32)
    else:
        model = Qwen3ForCausalLM(model_config(tokenizer))
        print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
        fit(model, tokenizer, False, CAREFUL_STEPS, PEAK_LR, seed=args.seed + 1)
        if args.skilled:
            model.save_pretrained(args.skilled)
    fit(model, tokenizer, True, MIXED_STEPS, MIXED_LR, seed=args.seed + 2)
    model.bfloat16().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()
