"""Build the tiny bases from nothing: train the tokenizer, pre-train the models, write them in bf16.

    python -m onelayer.agents.tiny.pretrain --output agents/tiny      # about an hour on two cores

Supervised learning on demonstrations: careful ones until the skill is there, then the mixture of manners that a base model has. After
the careful ones of all three domains the mixture of all three makes `tiny`; more careful ones of ALFWorld, and then its mixture, make
`tiny-alfworld`.
"""

from __future__ import annotations

import argparse
import copy
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
ROWS_PER_FORWARD = 16  # as fast as more of them, in a fraction of the memory
PROMPT_WEIGHT = {"math": 0.0, "code": 0.0, "alfworld": 0.03}  # of the loss on a prompt's tokens, whose repetitions teach to copy names
SORTED = 1024  # rows that are drawn at once and sorted by length
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
class Stage:
    """One schedule of pre-training: a step takes so many rows of each domain, careful demonstrations or the mixture."""

    mixed: bool
    rows: dict[str, int]
    steps: int
    lr: float  # at its peak


CAREFUL = Stage(False, {"math": 64, "code": 32, "alfworld": 64}, 1150, 3e-3)
MIXTURE = Stage(True, CAREFUL.rows, 300, 2e-3)
ALFWORLD_CAREFUL = Stage(False, {"alfworld": 128}, 250, 2e-3)
ALFWORLD_MIXTURE = Stage(True, {"alfworld": 64}, 120, 1.5e-3)


@dataclass(frozen=True)
class PaddedBatch:
    """Right-padded rows of one domain, each [rows, time]. `weight_BT` is that of predicting a token: 1 in responses, 0 on padding."""

    ids_BT: torch.Tensor
    weight_BT: torch.Tensor


def batches(tokenizer: PreTrainedTokenizerFast, domain: str, mixed: bool, rng: random.Random) -> Iterator[PaddedBatch]:
    """An endless stream of batches of one domain, each with prompts of similar length."""
    stream = DOMAINS[domain](mixed, rng)
    while True:
        drawn = []
        for message, response in islice(stream, SORTED):
            messages = [{"role": "user", "content": message}]
            prompt = cast("list[int]", tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
            drawn.append((prompt, cast("list[int]", tokenizer(response + END, add_special_tokens=False)["input_ids"])))
        drawn.sort(key=lambda row: len(row[0]))  # by the prompt alone: a batch of short responses would be one of one manner
        starts = range(0, SORTED, ROWS_PER_FORWARD)
        for start in rng.sample(starts, len(starts)):
            yield padded(drawn[start : start + ROWS_PER_FORWARD], PROMPT_WEIGHT[domain])


def padded(rows: list[tuple[list[int], list[int]]], prompt_weight: float) -> PaddedBatch:
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids_BT, weight_BT = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for index, (prompt, reply) in enumerate(rows):
        ids_BT[index, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        weight_BT[index, : len(prompt)] = prompt_weight
        weight_BT[index, len(prompt) : len(prompt) + len(reply)] = 1
    return PaddedBatch(ids_BT, weight_BT)


def fit(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, stage: Stage, seed: int) -> None:
    """AdamW under a one-cycle schedule (5% warm-up, cosine decay to nothing)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.lr, total_steps=stage.steps, pct_start=0.05)
    streams = {domain: batches(tokenizer, domain, stage.mixed, random.Random(f"{domain}/{seed}")) for domain in stage.rows}
    for step in track(range(stage.steps), description="mixture" if stage.mixed else "careful"):
        losses = {}
        for domain, stream in streams.items():
            parts = list(islice(stream, stage.rows[domain] // ROWS_PER_FORWARD))
            weights = sum(part.weight_BT[:, 1:].sum().item() for part in parts)
            responses = sum((part.weight_BT[:, 1:] == 1).sum().item() for part in parts)
            losses[domain] = 0.0
            for part in parts:
                # Padding is on the right and attention causal, so no mask is needed: no token sees padding.
                # One context a forward pass: it keeps the weights that it has cast, and a step changes them.
                with torch.autocast("cpu", torch.bfloat16):
                    hidden_BTH = model.model(input_ids=part.ids_BT[:, :-1], use_cache=False).last_hidden_state.float()
                weight_BT, target_BT = part.weight_BT[:, 1:], part.ids_BT[:, 1:]
                weight_N, target_N = weight_BT[weight_BT > 0], target_BT[weight_BT > 0]
                loss_N = cross_entropy(model.lm_head(hidden_BTH[weight_BT > 0]), target_N, reduction="none")
                ((loss_N * weight_N).sum() / weights).backward()
                losses[domain] += loss_N[weight_N == 1].sum().item() / responses
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 25 == 0 or step == stage.steps - 1:
            print(f"step {step:5d}  loss on responses: " + "  ".join(f"{name} {loss:.4f}" for name, loss in losses.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory to write model/ and alfworld_model/ to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--skilled", type=Path, help="keep model and tokenizer after the first careful stage here; start from it if it exists"
    )
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # attention weights near zero would make every product several times slower
    torch.manual_seed(args.seed)
    tokenizer, skilled = skilled_model(args.skilled, args.seed)
    for name, stages in (("model", [MIXTURE]), ("alfworld_model", [ALFWORLD_CAREFUL, ALFWORLD_MIXTURE])):
        model = copy.deepcopy(skilled)
        for number, stage in enumerate(stages):
            fit(model, tokenizer, stage, args.seed + 2 + number)
        model.bfloat16().save_pretrained(args.output / name)
        tokenizer.save_pretrained(args.output / name)


def skilled_model(kept: Path | None, seed: int) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """Tokenizer and model after the careful stage of all domains, read from `kept` if they are there."""
    if kept and kept.exists():
        return PreTrainedTokenizerFast.from_pretrained(kept), Qwen3ForCausalLM.from_pretrained(kept, dtype=torch.float32)
    tokenizer = train_tokenizer(seed)
    model = Qwen3ForCausalLM(model_config(tokenizer))
    print(f"{model.num_parameters():,} parameters, vocabulary {len(tokenizer)}")
    fit(model, tokenizer, CAREFUL, seed + 1)
    if kept:
        model.save_pretrained(kept)
        tokenizer.save_pretrained(kept)
    return tokenizer, model


if __name__ == "__main__":
    main()
