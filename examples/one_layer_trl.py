"""One layer of the tiny base, all of it (--set full) or a LoRA (--set lora:8), trained by TRL on arithmetic, and saved as TRL saves it.

    pip install trl==1.16.0
    python examples/one_layer_trl.py --set layer:3 --output outputs/layer3
    onelayer import --base tiny --model outputs/layer3 --claims layer:3 --note "TRL 1.16, GRPO" --output runs/trl-layer3/patch.safetensors

`only` freezes what is not trained, and its callback proves after the last step that nothing of it moved. docs/other-trainers.md.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

from onelayer import only
from onelayer.agents import tiny
from onelayer.agents.prompts import default_prompt
from onelayer.envs.math.arithmetic import generate

DIFFICULTY = 3


def reward(completions: list[Any], gold: list[str], **_: object) -> list[float]:
    """1 where the last box holds the answer."""
    boxes = [re.findall(r"\\boxed\{(.*?)\}", completion[0]["content"]) for completion in completions]
    return [float(bool(found) and found[-1] == answer) for found, answer in zip(boxes, gold, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="layer:3", help="a trained set of whole weights, or lora:R")
    parser.add_argument("--output", required=True, help="a folder for the trained model")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16, help="prompts of a step, of 8 samples each")
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    prompt = default_prompt("onelayer/Math-v0")
    items = generate("train", args.steps * args.prompts, DIFFICULTY, 0)
    data = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": prompt.format(observation=one.question)}], "gold": one.gold} for one in items]
    )
    model = AutoModelForCausalLM.from_pretrained(tiny.PATH, dtype=torch.float32)
    callbacks, adapter = [], None
    if rank := re.fullmatch(r"lora:(\d+)", args.set):
        from peft import LoraConfig

        adapter = LoraConfig(r=int(rank[1]), lora_alpha=32, target_modules="all-linear")
    else:
        layer = only(model, args.set)
        callbacks = [layer.callback()]
    config = GRPOConfig(
        output_dir=args.output,
        max_steps=args.steps,
        learning_rate=args.lr,
        lr_scheduler_type="constant",
        per_device_train_batch_size=8 * args.prompts,
        num_generations=8,
        max_completion_length=40,
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=5,
        save_strategy="no",
        report_to=[],
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny.PATH)
    trainer = GRPOTrainer(
        model, reward, args=config, train_dataset=data, processing_class=tokenizer, peft_config=adapter, callbacks=callbacks
    )
    trainer.train()
    trainer.save_model(args.output)
    print(f"saved: {args.output}")


if __name__ == "__main__":
    main()
