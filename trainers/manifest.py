"""What a training run leaves for those who read it: the names of its files, and the manifest of a complete one (docs/run-store.md).

A manifest of an earlier release stays readable: of the configuration in it only the keys that readers need must be there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ..common.cost import Cost, Hardware
from ..common.errors import UserError, first_problem
from ..common.reading import read_bytes
from ..envs.config import EnvConfig
from ..evals.config import EvalConfig
from ..evals.protocol import algorithm_of
from ..evals.records import LARGEST_MANIFEST, Trained, schema_version
from .config import Config

SCHEMA_VERSION = 2
CONFIG, METRICS, HELD_OUT, EPISODES, CHECKPOINT = "config.yaml", "metrics.jsonl", "held_out.jsonl", "episodes", "checkpoint.pt"
PATCH, MANIFEST = "patch.safetensors", "run.json"


class RecordedTrainer(BaseModel):
    """Of a recorded configuration what readers need of its section `trainer`; other keys are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    algorithm: JsonValue
    trained_set: str
    seed: int = Field(ge=0)
    lr: float = Field(ge=0, allow_inf_nan=False)
    steps: int = Field(ge=1)
    prompts_per_step: int = Field(ge=1)
    group_size: int = Field(ge=1)

    @property
    def algorithm_name(self) -> str:
        return algorithm_of({"algorithm": self.algorithm}) or "unknown"


class RecordedConfig(BaseModel):
    """A configuration as a manifest records it, of this or of an earlier release."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    model: dict[str, JsonValue]
    env: dict[str, JsonValue]
    trainer: RecordedTrainer


class BestPoint(BaseModel):
    """The point of the held-out curve with the highest share of right sampled replies; its patch is best-STEP.safetensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = Field(ge=1, description="steps done before")
    patch_sha256: str = Field(description="SHA-256 of its patch")


class Manifest(BaseModel):
    """What a complete run was and what came of it (run.json)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, description="version of this format")
    config: RecordedConfig = Field(description="the resolved configuration")
    base: str = Field(description="fingerprint of the base model")
    trained_set: str = Field(description="what was trained")
    trained_parameters: int = Field(ge=1, description="how many parameters that is")
    total_parameters: int = Field(ge=1, description="parameters of the whole model")
    split: str = Field(description="name of the split trained on")
    split_digest: str = Field(description="SHA-256 of its items")
    skipped: int = Field(default=0, ge=0, description="what stands among them in the data and cannot be graded")
    patch_sha256: str = Field(description="SHA-256 of patch.safetensors")
    best: BestPoint | None = Field(default=None, description="the best point of the held-out curve; null without eval.keep_best")
    cost: Cost = Field(
        description="what the training took, summed over resumptions; steps that were lost with a killed process are not in it"
    )
    dropped: int = Field(default=0, ge=0, description="episodes left out of the training, since environments failed")
    no_signal: bool = Field(default=False, description="no group of any step had an advantage: nothing was learned, the patch is the base")
    truncated: float | None = Field(
        default=None, ge=0, le=1, description="share of replies that reached agent.max_tokens, mean over the steps"
    )
    ranks: int = Field(default=1, ge=1, description="processes that trained it together, when it was finished")
    hardware: Hardware = Field(description="the machine that finished it")
    versions: dict[str, str] = Field(description="of Python and the packages that have a part in the result")
    git_commit: str | None = Field(
        description="commit of the source that it ran from, with -dirty where files differed; null: an installed package"
    )
    finished: str = Field(description="UTC time of completion, ISO 8601")
    extended: list[int] = Field(default=[], description="numbers of steps that it was to have before it was extended, in order")

    @model_validator(mode="after")
    def _is_a_part(self) -> Self:
        if self.trained_parameters > self.total_parameters:
            raise ValueError(f"{self.trained_parameters} trained parameters of {self.total_parameters}")
        return self

    def has_made(self, patch: str) -> bool:
        """Whether a patch of this SHA-256 is the one that the run ended in, or that of its best point."""
        return patch == self.patch_sha256 or (self.best is not None and patch == self.best.patch_sha256)

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training."""
        return self.cost.seconds


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a complete run, None where the run is not complete. Raises UserError for a damaged one."""
    path = directory / MANIFEST
    if not path.exists():
        return None
    try:
        data = read_bytes(path, LARGEST_MANIFEST)
        if (found := schema_version(data)) not in (None, SCHEMA_VERSION):
            raise UserError(
                f"{path}: schema version {found}, and this release reads {SCHEMA_VERSION}; take the release that wrote it, or train again"
            )
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"{path}: not a manifest of this version ({first_problem(error)}); remove it and resume the run") from error


def complete_manifest(directory: Path) -> Manifest:
    """The manifest of a complete run. Raises UserError where the run is not complete."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise UserError(f"{directory}: no finished run here, it has no {MANIFEST}; `onelayer train` writes it at the end")
    return manifest


def training_of(manifest: Manifest, patch: str | None = None) -> Trained:
    """What an evaluation tells of the run that its patch comes from. patch: its SHA-256; null: the one that the run ended in."""
    step = manifest.best.step if manifest.best and patch == manifest.best.patch_sha256 != manifest.patch_sha256 else None
    settings = manifest.config.trainer
    return Trained(
        algorithm=settings.algorithm_name,
        trained_set=manifest.trained_set,
        seed=settings.seed,
        lr=settings.lr,
        parameters=manifest.trained_parameters,
        total_parameters=manifest.total_parameters,
        recipe=manifest.config.name,
        split=manifest.split,
        split_digest=manifest.split_digest,
        cost=manifest.cost,
        step=step,
    )


def recipe_of(config: Config, env: EnvConfig, settings: EvalConfig) -> dict[str, JsonValue]:
    """The part of a recipe that an evaluation rests on."""
    return config.model_copy(update={"env": env, "eval": settings}).model_dump(
        mode="json", include={"model", "env", "agent", "pool", "eval"}
    )
