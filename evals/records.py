"""What an evaluation leaves behind: its samples as parquet, and a manifest that is written last.

A directory of an evaluation holds `samples.parquet` and `evaluation.json`; docs/run-store.md describes both. Every file appears whole or
not at all, and an evaluation without its manifest is not complete.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from ..agents.config import EndpointConfig
from ..agents.verdicts import CORRECT, OVERLONG
from ..common.cost import Cost, Hardware
from ..common.errors import UserError, first_problem
from ..common.reading import parse_json, read_bytes
from ..common.text import counted
from ..envs.items import size_text
from .replies import STATISTICS, ReplyStatistics
from .samples import SAMPLES, Sample, read_columns
from .statistics import FloatArray, Rate, majority_correct, pass_rate
from .trained import Trained, TrainedElsewhere

SCHEMA_VERSION = 3
MANIFEST = "evaluation.json"
LIMITS = "limits"
"""The directory in that of an evaluation which holds it at lower limits of tokens, each by its number (evals/cutting.py)."""
LARGEST_MANIFEST = 1 << 20
"""Bytes of the manifest of an evaluation or a run: such a one has about ten thousand."""
ROUNDING = 1e-9
CUT_OFF_SHARE = 0.2
"""Above this share of cut-off replies a figure says more of `agent.max_tokens` than of the policy, and a warning stands beside it."""


class Decoding(StrEnum):
    """How the tokens of an evaluation were drawn; every policy is measured both ways."""

    SAMPLED = "sampled"
    """n samples of each item at the sampling temperature."""
    GREEDY = "greedy"
    """One reply to each item, always the likeliest token."""


class Source(StrEnum):
    """What plays."""

    MODEL = "model"
    """A base with its patches, whose tokens are sampled here or by a vLLM server that holds the same weights."""
    ENDPOINT = "endpoint"
    """A model behind an API that takes messages and returns text."""
    BASELINE = "baseline"
    """A rule."""
    RESPONSES = "responses"
    """A file of responses that were made elsewhere."""
    LM_EVAL = "lm-eval"
    """A model, measured by lm-evaluation-harness."""


class PolicyInfo(BaseModel):
    """Who is evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="base, full, layer:3 ...")
    source: Source = Source.MODEL
    model: str = Field(default="", description="model.path of the recipe, or the model's name at an endpoint")
    base: str = Field(description="fingerprint of the base, of whoever has none: none")
    patches: list[str] = Field(default=[], description="SHA-256 of each patch applied to the base, in order")
    trained: list[Trained | None] = Field(default=[], description="where each patch comes from, as far as that is known")
    elsewhere: list[TrainedElsewhere | None] = Field(
        default=[], description="of each patch, where it was made of a model trained elsewhere"
    )
    parameters: int = Field(default=0, ge=0, description="those that a token is multiplied with, for the FLOPs; 0: not known")
    layers: int | None = Field(default=None, description="decoder layers of the model; null: not known")
    repeats: Decoding | None = Field(default=None, description="a decoding that is not measured; its records repeat the other's")
    identity: str = Field(default="", description="what else tells it from others: an endpoint's address, a file's SHA-256")

    @classmethod
    def endpoint(cls, place: EndpointConfig, model: str) -> PolicyInfo:
        """A model behind an endpoint, known by address and name."""
        identity = json.dumps([place.url, model, place.body], sort_keys=True)
        return cls(name=model, source=Source.ENDPOINT, model=model, base="none", identity=identity)

    @classmethod
    def baseline(cls, name: str) -> PolicyInfo:
        """A rule."""
        return cls(name=name, source=Source.BASELINE, base="none", identity=name)


def _checked_rate(rate: Rate) -> Rate:
    """Raises ValueError for what is no share with its interval, whatever file it comes from."""
    ordered = [0.0, rate.low, rate.mean, rate.high, 1.0]
    if not all(a <= b + ROUNDING for a, b in pairwise(ordered)) or not 0 <= rate.se < math.inf:
        raise ValueError("not a share from 0 to 1 within its interval")
    return rate


ShareWithInterval = Annotated[Rate, AfterValidator(_checked_rate)]
Share = Annotated[float, Field(ge=0, le=1)]


class TypeScore(BaseModel):
    """The items of one task type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    items: int = Field(ge=1, description="items of the type")
    pass_rate: ShareWithInterval = Field(description="pass@1, interval over its items")


class SolveRates(BaseModel):
    """How much one policy solves under one decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    samples: int = Field(ge=1, description="samples of each item")
    pass_rate: ShareWithInterval = Field(description="pass@1, interval over items")
    pass_at_k: dict[int, Share] = Field(description="unbiased pass@k for the powers of two up to the samples, and the samples")
    majority: ShareWithInterval | None = Field(
        description="majority vote over all samples of an item, interval over items; null where the environment names no answers to vote on"
    )
    mean_reward: float = Field(description="what the environment paid for a sample, mean")


class Scores(ReplyStatistics, SolveRates):
    """The figures of one policy under one decoding, all computed from the records."""

    corrected: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of actions that were spelled otherwise than the environment has them; null: not counted",
    )
    errors: int = Field(ge=0, description="samples lost to failing environments; they count as wrong")
    by_type: dict[str, TypeScore] = Field(description="the figures of each task type; empty where items have none")
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default={}, description="means of the environment's own figures, over the samples that have them"
    )
    verdicts: dict[str, NonNegativeInt] = Field(description="how often each verdict was given")


class Evaluation(BaseModel):
    """Manifest of one policy on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, description="of this file and of the records beside it")
    policy: str = Field(description="name of the policy: base, full, layer:3 ...")
    source: Source = Field(default=Source.MODEL, description="what played")
    model: str = Field(default="", description="model.path of the recipe, or the model's name at an endpoint")
    base: str = Field(description="fingerprint of the base model; none where there is no model here to take it of")
    layers: int | None = Field(
        default=None, ge=1, le=1000, description="decoder layers of the model; null where there is no model here to count them"
    )
    patches: list[str] = Field(description="SHA-256 of each patch applied to the base, in order")
    trained: list[Trained | None] = Field(default=[], description="where each patch comes from, as far as that is known")
    elsewhere: list[TrainedElsewhere | None] = Field(
        default=[], description="of each patch, where it was made of a model trained elsewhere; empty where none was"
    )
    domain: str = Field(default="other", description="math, code, alfworld or other")
    split: str = Field(description="split that the items are from")
    digest: str = Field(description="SHA-256 of the items that were played, in order")
    items: int = Field(ge=2, description="items played")
    skipped: dict[str, str] = Field(default={}, description="what stands among them in the data and cannot be graded: the reason by id")
    temperature: float = Field(ge=0, allow_inf_nan=False, description="of the sampled replies")
    max_tokens: int = Field(ge=0, description="most tokens of one reply; 0: not known")
    prompt: str = Field(description="template of the prompt")
    seed: int = Field(description="the seed that every sample's seed derives from")
    protocol: str = Field(default="", description="SHA-256 over all that an episode depends on besides its item and seed")
    tokenizer: str = Field(
        default="",
        description="SHA-256 over the prompt tokens of a fixed message and the most tokens of a prompt; empty: not recorded",
    )
    repeats: Decoding | None = Field(default=None, description="a decoding that was not measured; its records repeat the other's")
    config: dict[str, JsonValue] = Field(default={}, description="the resolved configuration: model, env, agent, pool and eval")
    samples_sha256: str = Field(default="", description="SHA-256 of samples.parquet")
    requests: dict[str, NonNegativeInt] | None = Field(
        default=None, description="to an endpoint, by what became of them; null: there was none"
    )
    cost: Cost = Field(description="what it took, summed over resumptions")
    hardware: Hardware = Field(description="the machine that finished it")
    versions: dict[str, str] = Field(description="of Python and the packages that have a part in the result")
    git_commit: str | None = Field(
        description="commit of the source that it ran from, with -dirty where files differed; null: an installed package"
    )
    finished: str = Field(default="", description="UTC time of completion, ISO 8601")
    sampled: Scores
    greedy: Scores

    @field_validator("sampled", "greedy")
    @classmethod
    def _as_measured(cls, scores: Scores, info: ValidationInfo) -> Scores:
        """lm-evaluation-harness tells nothing of the replies besides their verdicts; earlier releases recorded zeros."""
        if info.data.get("source") is not Source.LM_EVAL:
            return scores
        return scores.model_copy(update=dict.fromkeys((*STATISTICS, "corrected")))

    @property
    def size_text(self) -> str:
        """How many items it is of, in words."""
        return size_text(self.items, len(self.skipped))

    @property
    def is_best_point(self) -> bool:
        """Whether a patch of it is that of the best point of a held-out curve, and not what its run ended in."""
        return any(trained and trained.step for trained in self.trained)

    @property
    def errors(self) -> int:
        """Samples lost to failing environments, of both decodings."""
        return self.sampled.errors + self.greedy.errors

    @property
    def tokens(self) -> int:
        """Tokens sampled in all."""
        return self.cost.tokens

    @property
    def seconds(self) -> float:
        """Wall-clock seconds."""
        return self.cost.seconds

    def scores(self, decoding: Decoding) -> Scores:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy

    def warnings(self) -> list[str]:
        """What a reader of the figures must know of them: replies that were cut off, prompts that did not fit, samples that were lost."""
        found = []
        for decoding in Decoding:
            scores = self.scores(decoding)
            if decoding is not self.repeats and (warning := cut_off_warning(scores.truncated, self.max_tokens)):
                found.append(f"{warning} ({decoding.value}).")
        if overlong := sum(self.scores(decoding).verdicts.get(OVERLONG, 0) for decoding in Decoding):
            found.append(f"{counted(overlong, 'sample')} ended because the next prompt did not fit, and counted as wrong.")
        if self.errors:
            found.append(f"Environments failed in {counted(self.errors, 'sample')}, counted as wrong; the records say why.")
        return found


def cut_off_warning(share: float | None, max_tokens: int, key: str = "agent.max_tokens") -> str | None:
    """The warning, without its full stop, where more than CUT_OFF_SHARE of the replies reached max_tokens, which `key` is; else None."""
    if share is None or share <= CUT_OFF_SHARE:
        return None
    return f"{share:.0%} of the replies were cut off at {key}={max_tokens}, so their answers are not known; raise it"


class GradedSample(NamedTuple):
    """What statistics ask of a sample."""

    item: str
    sample: int
    verdict: str
    answer: str | None


@dataclass(frozen=True)
class Outcomes:
    """The records of one decoding as arrays: item by item in the split's order, samples in order."""

    items: list[str]
    correct_IS: FloatArray
    answers_IS: list[list[str | None]]

    @classmethod
    def of(cls, samples: Iterable[GradedSample | Sample]) -> Outcomes:
        """Raises ValueError where items have different numbers of samples, or a sample occurs twice."""
        by_item: dict[str, dict[int, GradedSample | Sample]] = {}
        for sample in samples:
            if by_item.setdefault(sample.item, {}).setdefault(sample.sample, sample) is not sample:
                raise ValueError(f"item {sample.item} has sample {sample.sample} twice")
        wanted = range(max((len(found) for found in by_item.values()), default=0))
        for item, found in by_item.items():
            if sorted(found) != list(wanted):
                raise ValueError(f"item {item} has samples {sorted(found)} where others have {list(wanted)}")
        rows = [[found[index] for index in wanted] for found in by_item.values()]
        correct = np.array([[sample.verdict == CORRECT for sample in row] for row in rows], dtype=np.float64)
        return cls(list(by_item), correct, [[sample.answer for sample in row] for row in rows])

    @property
    def shape(self) -> tuple[int, int]:
        """Items, and samples of each."""
        return len(self.items), len(self.answers_IS[0]) if self.items else 0

    @property
    def votable(self) -> bool:
        """Whether the environment names answers, and did in every right response: without, a majority vote has no meaning."""
        return any(answer is not None for row in self.answers_IS for answer in row) and all(
            answer is not None for i, row in enumerate(self.answers_IS) for s, answer in enumerate(row) if self.correct_IS[i, s]
        )

    def vote(self, k: int) -> Rate | None:
        """Majority vote of k samples; None where there is nothing to vote on."""
        return pass_rate(majority_correct(self.answers_IS, self.correct_IS, k)) if self.votable else None

    @property
    def rate_I(self) -> FloatArray:
        """Share of right samples per item."""
        return self.correct_IS.mean(axis=1)


@dataclass(frozen=True)
class Recorded:
    """A complete evaluation, read back."""

    manifest: Evaluation
    sampled: Outcomes
    greedy: Outcomes

    def outcomes(self, decoding: Decoding) -> Outcomes:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


def schema_version(data: bytes) -> object:
    """The version that a manifest names; None where it names none, or is not JSON. It is looked at before the rest is."""
    with suppress(ValueError):
        return found.get("schema_version") if isinstance(found := parse_json(data), dict) else None


def read_manifest(directory: Path) -> Evaluation:
    """The manifest of a complete evaluation. Raises UserError where it is missing, broken or of another version."""
    path = directory / MANIFEST
    try:
        data = read_bytes(path, LARGEST_MANIFEST)
        if (found := schema_version(data)) not in (None, SCHEMA_VERSION):
            raise UserError(f"{path}: schema version {found}, this release reads {SCHEMA_VERSION}; run this evaluation again")
        return Evaluation.model_validate_json(data)
    except OSError as error:
        raise UserError(f"{path}: no complete evaluation here ({error.strerror}); run `onelayer eval` first") from error
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; run this evaluation again") from error


def read_evaluation(directory: Path) -> Recorded:
    """Manifest and records of a complete evaluation. Raises UserError where anything is missing or broken."""
    manifest = read_manifest(directory)
    path = directory / SAMPLES
    columns = read_columns(path, ["decoding", "item", "sample", "verdict", "answer"], manifest.samples_sha256)
    found = list(zip(columns.pop("decoding"), map(GradedSample, *columns.values()), strict=True))
    outcomes = {}
    for decoding in Decoding:
        try:
            outcomes[decoding] = Outcomes.of(row for kind, row in found if kind == decoding)
        except ValueError as error:
            raise UserError(f"{path}: {decoding}: {error}; run this evaluation again") from error
        expected = (manifest.items, manifest.scores(decoding).samples)
        if (shape := outcomes[decoding].shape) != expected:
            raise UserError(
                f"{path}: {shape[0]} x {shape[1]} {decoding} records, the manifest says {expected[0]} x {expected[1]}; "
                "run this evaluation again"
            )
    return Recorded(manifest, outcomes[Decoding.SAMPLED], outcomes[Decoding.GREEDY])
