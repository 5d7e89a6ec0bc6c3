"""Build the tiny base from nothing: train the tokenizer, pre-train the model, measure it, write it in bf16.

    python -m onelayer.agents.tiny.pretrain --output agents/tiny/model      # about 25 minutes on two cores

Two stages of supervised learning on `demonstrations`: careful solutions until the skill is there, then the mixture of
manners that a base model has. Loss is taken on the response alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from .demonstrations import demonstrations

VOCABULARY = 384  # at most: the merges run out before that
BATCH = 128
CAREFUL_STEPS, MIXED_STEPS = 1100, 260
PEAK_LR, MIXED_LR = 3e-3, 1e-3
END, PAD = "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the demonstrations; every digit is a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (text for pair in islice(demonstrations(True, random.Random(seed)), 5000) for text in ("assistant\n", "user\n", *pair))
    bpe.train_from_iterator(texts, trainer)
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


def batches(tokenizer: PreTrainedTokenizerFast, mixed: bool, steps: int, seed: int) -> Iterable[dict[str, torch.Tensor]]:
    """`steps` right-padded batches of token ids, attention mask and labels (-100 off the response), each [BATCH, time]."""
    stream = demonstrations(mixed, random.Random(seed))
    for _ in range(steps):
        pairs = list(islice(stream, BATCH))
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False)
            for prompt, _ in pairs
        ]
        rows = [
            (p, tokenizer(response + END, add_special_tokens=False)["input_ids"]) for p, (_, response) in zip(prompts, pairs, strict=True)
        ]
        width = max(len(p) + len(r) for p, r in rows)
        pad = tokenizer.pad_token_id
        yield {
            "input_ids": torch.tensor([p + r + [pad] * (width - len(p) - len(r)) for p, r in rows]),
            "attention_mask": torch.tensor([[1] * (len(p) + len(r)) + [0] * (width - len(p) - len(r)) for p, r in rows]),
            "labels": torch.tensor([[-100] * len(p) + r + [-100] * (width - len(p) - len(r)) for p, r in rows]),
        }


def fit(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, mixed: bool, steps: int, lr: float, seed: int) -> None:
    """AdamW under a one-cycle schedule (5% warm-up, cosine decay to nothing)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    for step, batch in enumerate(track(batches(tokenizer, mixed, steps, seed), total=steps, description="pre-training")):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="directory to write the model and its tokenizer to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skilled", type=Path, help="keep the model after the careful stage here; start from it if it exists")
    args = parser.parse_args()
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
