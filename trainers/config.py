"""Configuration of training and of studies; `Config` is the whole of a recipe file."""

from __future__ import annotations

import re
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ..agents.config import AgentConfig, ModelConfig
from ..envs.config import EnvConfig
from ..evals.config import EvalConfig


class TrainerConfig(BaseModel):
    """One training run. An algorithm's defaults are its vetted setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["grpo"] = Field("grpo", description="how rewards become advantages and advantages a loss")
    trained_set: str = Field("full", description="what may change: full, layer:3, layers:1,2, layer:3.mlp, layer:3.attn, mid:2, embed, head")
    seed: int = Field(0, ge=0, description="seed of item order and sampling")
    steps: int = Field(60, ge=1, description="rollout-and-update rounds")
    prompts_per_step: int = Field(32, ge=1, description="items drawn each step; each is one group")
    group_size: int = Field(8, ge=2, description="episodes of one item")
    lr: float = Field(1e-6, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW")
    lr_by_layer: dict[int, float] = Field({}, description="learning rate of single layers, the rest at lr (Boost)")
    warmup_steps: int = Field(3, ge=0, description="optimiser steps of linear warm-up")
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, allow_inf_nan=False, description="gradients are scaled down to this norm")
    clip: float = Field(0.2, gt=0, lt=1, description="ratio of new to old probability is clipped to 1 - clip .. 1 + clip")
    kl_coef: float = Field(0.0, ge=0, allow_inf_nan=False, description="weight of the k3 KL to the base; 0 needs no reference")
    epochs: int = Field(1, ge=1, description="passes over each rollout")
    minibatches: int = Field(1, ge=1, description="optimiser steps of one pass")
    rows_per_forward: int = Field(256, ge=1, description="rows held in memory together; gradients add up to the minibatch's")
    skip_zero_rows: bool = Field(True, description="leave out rows that have no advantage and no KL term; the gradient is the same")
    checkpoint_every: int = Field(10, ge=1, description="steps between checkpoints")
    tensorboard: bool = Field(False, description="also write TensorBoard event files (needs the extra [tensorboard])")


class StudyConfig(BaseModel):
    """Base, full and the named sets under one protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_sets: list[str] = Field(["layer:3"], min_length=1, description="sets compared with base and full, e.g. [layer:1, layer:3]")
    seeds: list[int] = Field([0], min_length=1, description="training seeds; every set is trained once with each")
    lr_grid: list[float] = Field([1e-6, 3e-6, 5e-6, 1e-5], min_length=1, description="learning rates tried on the validation split with the first seed")
    layer_lr: float | None = Field(None, gt=0, allow_inf_nan=False, description="fixed learning rate for every set but full (the paper: 5e-6); null tries the grid")
    base_samples: int = Field(8, ge=1, description="samples of each item for the base, whose majority vote over them is a row too")
    validation_items: int = Field(128, ge=2, description="items of the validation split that choose the learning rate")

    @property
    def chooses_lr(self) -> bool:
        """Whether any set's learning rate is chosen on the validation split."""
        return len(self.lr_grid) > 1


class Config(BaseModel):
    """A recipe: everything that a training run or a study needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the recipe, used in directory names")
    model: ModelConfig = ModelConfig()
    env: EnvConfig = EnvConfig()
    agent: AgentConfig = AgentConfig()
    trainer: TrainerConfig = TrainerConfig()
    eval: EvalConfig = EvalConfig()
    study: StudyConfig = StudyConfig()


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that YAML 1.2 reads as a number (1e5), which PyYAML takes for a word."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def dump(config: Config) -> str:
    """The configuration as YAML, every key written out; loading it gives an equal `Config`."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
