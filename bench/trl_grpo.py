"""TRL 1.16's GRPOTrainer as the benchmarks drive it; imported in an environment with TRL alone (bench/vs_trl.py tells how to make it)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

PLAIN: dict[str, Any] = {
    "temperature": 1.0,
    "beta": 0.0,
    "use_cpu": True,
    "bf16": False,  # no autocast: the model computes in the format in which it is loaded
    "gradient_checkpointing": False,
    "report_to": [],
}
"""Settings of all comparisons: on-policy GRPO without a KL term."""


def load(path: str, dtype: str = "float32", trained_set: str = "full") -> Any:
    """The model, with all parameters frozen but those of `trained_set`: full or layer:K."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), trust_remote_code=False)
    if trained_set != "full":
        model.requires_grad_(False)
        layers: Any = model.get_decoder().layers
        layers[int(trained_set.removeprefix("layer:"))].requires_grad_(True)
    return model


class Steps(TrainerCallback):
    """Seconds of each step of a trainer and of the rollout in it, `_generate_and_score_completions`; and what the rollout returned."""

    def __init__(self, read: Callable[[dict[str, Any]], Any] = lambda _: None) -> None:
        self.steps: list[float] = []
        self.rollouts: list[float] = []
        self.found: list[Any] = []
        self.read = read

    def run(self, model: Any, path: str, reward: Callable, dataset: Dataset, rollout: Callable | None = None, **settings: Any) -> None:
        """Train with GRPO on whole batches in the order of the dataset, each used for one step."""
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        with tempfile.TemporaryDirectory() as folder:
            config = GRPOConfig(
                output_dir=folder, save_strategy="no", logging_strategy="no", disable_tqdm=True, shuffle_dataset=False,
                loss_type="grpo", **(PLAIN | settings),
            )  # fmt: skip
            trainer = GRPOTrainer(
                model, reward, args=config, train_dataset=dataset, processing_class=tokenizer, callbacks=[self], rollout_func=rollout
            )
            generate = trainer._generate_and_score_completions

            def timed(inputs: Any) -> Any:
                started = time.perf_counter()
                result = generate(inputs)
                self.rollouts.append(time.perf_counter() - started)
                self.found.append(self.read(result))
                return result

            trainer._generate_and_score_completions = timed
            trainer.train()

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.steps.append(time.perf_counter() - self.started)

    @property
    def updates(self) -> list[float]:
        """Seconds of each step without its rollout."""
        return [step - rollout for rollout, step in zip(self.rollouts, self.steps, strict=True)]
