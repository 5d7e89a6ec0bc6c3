"""Configuration of training and of studies; `Config` is the whole of a recipe file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from ..agents.config import SERVER, AgentConfig, ModelConfig, engine_row
from ..envs.config import EnvConfig, MathConfig, PoolConfig
from ..evals.config import EvalConfig
from ..evals.protocol import flatten
from .algorithms import AlgorithmConfig
from .algorithms.earlier import upgraded
from .algorithms.grpo import GRPO

VLLM_CAP = 2.0
"""`trainer.importance_cap` with vLLM (Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training")."""
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TrainerConfig(BaseModel):
    """One training run. Defaults are those of grpo; other algorithms set some of these keys otherwise (docs/algorithms.md)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: AlgorithmConfig = Field(
        default=GRPO(),
        description="how rewards become advantages, and what the loss is divided by: the name of an algorithm (docs/algorithms.md), or a "
        "mapping with the name and the keys of its own",
    )
    trained_set: str = Field(
        default="full",
        description="what may change: full, layer:3, layers:1,2, layer:3.mlp, layer:3.attn, mid:2, except:3 (all but layer 3), embed, "
        "norm (the last), head, several of these as layer:3+norm, random:250000@1 (so many parameters of all layers, drawn with seed 1), "
        "lora:8 (adapters of rank 8 beside the linear maps of all layers), lora:8@layer:3, lora:8@layers:1,2 (docs/trained-sets.md)",
    )
    seed: int = Field(default=0, ge=0, description="seed of item order and sampling")
    steps: int = Field(default=60, ge=1, description="rollout-and-update rounds")
    prompts_per_step: int = Field(default=32, ge=1, description="items drawn each step; each is one group")
    group_size: int = Field(default=8, ge=2, description="episodes of one item")
    lr: LearningRate = Field(default=1e-6, description="peak learning rate of AdamW")
    lr_by_layer: dict[Annotated[int, Field(ge=0)], LearningRate] = Field(
        default={}, description="learning rate of single layers, the rest at lr (Boost)"
    )
    warmup_steps: int = Field(default=3, ge=0, description="optimiser steps of linear warm-up")
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="decoupled weight decay")
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="gradients are scaled down to this norm")
    clip: float = Field(default=0.2, gt=0, lt=1, description="ratio of new to old probability is clipped to 1 - clip .. 1 + clip")
    clip_high: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="the upper bound is 1 + clip_high (null: as clip; DAPO: 0.28)"
    )
    dual_clip: float | None = Field(
        default=None,
        gt=1,
        allow_inf_nan=False,
        description="a negative advantage costs at most this multiple of itself (null: no bound)",
    )
    ratio: Literal["token", "sequence"] = Field(default="token", description="the ratio of each token, or of the sequence (GSPO)")
    importance_cap: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="correct for an engine whose probabilities differ from the trainer's, by their ratio up to this (null: no correction; "
        "with vLLM the default is 2)",
    )
    mask_truncated: bool = Field(default=False, description="replies that reached max_tokens are left out of the loss")
    dynamic_sampling: int = Field(
        default=0, ge=0, description="most further rollouts of a step in place of groups without an advantage (DAPO); 0: none"
    )
    kl_coef: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="weight of the k3 KL to the base; 0 needs no reference")
    epochs: int = Field(default=1, ge=1, description="passes over each rollout")
    minibatches: int = Field(default=1, ge=1, description="optimiser steps of one pass")
    tokens_per_forward: int | None = Field(
        default=None,
        ge=1,
        description="padded prompt and response tokens of one pass of the update, which bound its memory; gradients add up to the "
        "minibatch's (null: by the model's shape, activations of about 1 GiB with all layers trained; a run's config.yaml has the figure)",
    )
    checkpoint_layers: bool = Field(
        default=False,
        description="keep one hidden state a token of each layer that carries gradients, and compute the rest again in the backward pass: "
        "less memory, about a third more time",
    )
    hand_over: bool = Field(
        default=True,
        description="start the update at the lowest trained layer with what entered it in the rollout; where that layer is not the first, "
        "and the trainer's own model made the tokens (agent.engine=transformers). One hidden state a token is kept, in all at most "
        "agent.kv_cache_gib; other rows are computed from the first layer on",
    )
    skip_zero_rows: bool = Field(default=True, description="leave out rows that have no advantage and no KL term; the gradient is the same")
    checkpoint_every: int = Field(default=10, ge=1, description="steps between checkpoints")
    keep_episodes: bool = Field(
        default=True, description="keep what was played, with prompts, responses and advantages, as parquet in the run's directory"
    )
    shard: bool = Field(
        default=False,
        description="with several ranks (torchrun) each keeps a part of the float32 masters and moments: less memory, most of it for full; "
        "in one process nothing is split (docs/several-devices.md)",
    )
    tensorboard: bool = Field(default=False, description="also write TensorBoard event files (needs the extra [tensorboard])")

    @model_validator(mode="after")
    def _preset(self) -> Self:
        """What is not given is as the algorithm's authors set it."""
        for key, value in self.algorithm.TRAINER.items():
            if key not in self.model_fields_set:
                object.__setattr__(self, key, value)  # past `frozen`: nobody has seen the object yet
        return self

    @field_validator("minibatches")
    @classmethod
    def _a_group_each(cls, minibatches: int, info: ValidationInfo) -> int:
        if minibatches > (prompts := info.data.get("prompts_per_step", minibatches)):
            raise ValueError(
                f"{minibatches} minibatches of {prompts} prompts_per_step: each takes whole groups, so lower it to {prompts} or less"
            )
        return minibatches

    @property
    def several_passes(self) -> bool:
        """Whether an update runs its rows through the model more than once."""
        return self.epochs > 1 or self.minibatches > 1 or self.kl_coef > 0


class StudyConfig(BaseModel):
    """Base, full and the named sets under one protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_sets: list[str] = Field(
        default=["layer:3"],
        min_length=1,
        description="sets compared with base and full, e.g. [layer:1, layer:3]; layers:each, layers:every:4 and layers:8-20 stand for "
        "one set for each of these layers",
    )
    algorithms: list[str] = Field(
        default=[],
        description="names of algorithms to compare: each gets a study of its own, and all the same environment, prompts and limits "
        "(empty: trainer.algorithm alone)",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        default=[0], min_length=1, description="training seeds; every set is trained once with each"
    )
    lr_grid: list[LearningRate] = Field(
        default=[1e-6, 3e-6, 5e-6, 1e-5], min_length=1, description="learning rates tried on the validation split with the first seed"
    )
    layer_lr: LearningRate | None = Field(
        default=None, description="fixed learning rate for every set but full (the paper: 5e-6); null tries the grid"
    )
    lr_by_set: dict[str, Annotated[list[LearningRate], Field(min_length=1)]] = Field(
        default={}, description="learning rates of single sets, before lr_grid and layer_lr: {lora:8: [1e-4, 3e-4]}"
    )
    base_samples: int = Field(default=8, ge=1, description="samples of each item for the base, whose majority vote over them is a row too")
    validation_items: int = Field(default=128, ge=2, description="items of the validation split that choose the learning rate")

    limits: list[Annotated[int, Field(ge=1)]] = Field(
        default=[],
        description="lower limits of tokens: the replies of every final evaluation are also cut there and graded again, so that the report "
        "has pass rates and C(k) at each limit from the same samples; for episodes of one turn",
    )

    @field_validator("trained_sets", "algorithms", "seeds", "lr_grid", "limits")
    @classmethod
    def _distinct(cls, values: list[object]) -> list[object]:
        if twice := [value for at, value in enumerate(values) if value in values[:at]]:
            raise ValueError(f"{twice[0]} is named twice; name each once")
        return values

    @field_validator("trained_sets")
    @classmethod
    def _besides_base_and_full(cls, names: list[str]) -> list[str]:
        if given := [name for name in names if name in ("base", "full")]:
            raise ValueError(f"{given[0]} is part of every study; name only the sets to compare with base and full")
        return names

    def rates(self, trained_set: str) -> list[float]:
        """Learning rates to choose from: the set's own, else the fixed one where there is one (never for full), else the grid."""
        if own := self.lr_by_set.get(trained_set):
            return own
        return [self.layer_lr] if self.layer_lr and trained_set != "full" else self.lr_grid

    def runs(self, trained_set: str) -> int:
        """Training runs of one set: each rate with the first seed, the best with the others."""
        return len(self.rates(trained_set)) + len(self.seeds) - 1

    @property
    def chooses_lr(self) -> bool:
        """Whether any set's learning rate is chosen on the validation split."""
        return any(len(rates) > 1 for rates in (self.lr_grid, *self.lr_by_set.values()))


class Config(BaseModel):
    """A recipe: everything that a training run or a study needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the recipe, used in directory names")
    model: ModelConfig = ModelConfig()
    env: EnvConfig = MathConfig()
    pool: PoolConfig = PoolConfig()
    agent: AgentConfig = AgentConfig()
    trainer: TrainerConfig = TrainerConfig()
    eval: EvalConfig = EvalConfig()
    study: StudyConfig = StudyConfig()

    @model_validator(mode="after")
    def _corrects_for_vllm(self) -> Self:
        """vLLM's probabilities are not the trainer's to the last bit, so its runs correct for them where the recipe does not say."""
        if engine_row(self.agent.engine) in ("vllm", SERVER) and "importance_cap" not in self.trainer.model_fields_set:
            trainer = self.trainer.model_copy(update={"importance_cap": VLLM_CAP})
            object.__setattr__(self, "trainer", trainer)  # past `frozen`: nobody has seen the object yet
        return self

    @property
    def evaluated(self) -> Config:
        """The recipe as evaluations have it: `agent.max_tokens` is that of `eval` where one is given."""
        if self.eval.max_tokens is None:
            return self
        return self.model_copy(update={"agent": self.agent.model_copy(update={"max_tokens": self.eval.max_tokens})})


WITHOUT_BEARING = ("name", "pool.", "eval.", "study.", "model.device", "agent.max_batch", "trainer.seed", "trainer.checkpoint_every")
WITHOUT_BEARING += ("trainer.tensorboard", "trainer.keep_episodes", "trainer.tokens_per_forward", "trainer.skip_zero_rows")
WITHOUT_BEARING += ("trainer.hand_over", "trainer.shard")
"""Keys of a recipe that have no bearing on what is learned: where a run computes, in which portions, how it is named and measured."""
NOT_YET_THERE = ("model.quantization",)
"""Keys that runs of earlier releases do not have, and whose null says what these did."""


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys of a run's configuration that bear on what it learns, without the seed: runs that agree in them are one policy.

    The configuration may be of an earlier release; the keys are today's. `trainer.algorithm` is the algorithm's name.
    """
    flat = flatten(upgraded(dict(config)))
    named = {"trainer.algorithm" if key == "trainer.algorithm.name" else key: value for key, value in flat.items()}
    return {
        key: value for key, value in named.items() if not key.startswith(WITHOUT_BEARING) and not (key in NOT_YET_THERE and value is None)
    }


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that YAML 1.2 reads as a number (1e5), which PyYAML takes for a word."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Line breaks of Unicode's are written as escapes: as they are, a reader would fold them."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if re.search("[\x85\u2028\u2029]", text) else None)


_Dumper.add_representer(str, _text)


def dump(config: Config) -> str:
    """The configuration as YAML, every key written out; loading it gives an equal `Config`."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def decides(config: Config) -> dict[str, Any]:
    """The part of a recipe that decides what a step learns: not how many there are, since the rate is constant after warm-up."""
    return config.model_dump(
        include={"env", "agent", "trainer"}, exclude={"agent": {"engine", "kv_cache_gib", "max_batch"}, "trainer": {"steps"}}
    )
