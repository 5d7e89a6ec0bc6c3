"""What an evaluation leaves behind: one JSON line per sample, and a manifest that is written last.

A directory of an evaluation holds `sampled.jsonl`, `greedy.jsonl` and `evaluation.json`. Every file appears whole or not at all, and an
evaluation without its manifest is not complete.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..agents.episodes import CORRECT
from ..envs.errors import UserError, first_problem
from ..envs.files import write_atomically
from .cost import Cost, Hardware
from .statistics import FloatArray, Rate, majority_correct, pass_rate

SCHEMA_VERSION = 3
MANIFEST = "evaluation.json"


class Decoding(StrEnum):
    """How the tokens of an evaluation were drawn; every policy is measured both ways."""

    SAMPLED = "sampled"
    """n samples of each item at the sampling temperature."""
    GREEDY = "greedy"
    """One reply to each item, always the likeliest token."""

    @property
    def file(self) -> str:
        return f"{self.value}.jsonl"


class Sample(BaseModel):
    """One reply to one item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    item: str = Field(description="id of the item in the split")
    sample: int = Field(ge=0, description="index of the sample within its item")
    seed: int = Field(ge=0, description="seed that fixed its tokens: the same for every policy")
    verdict: str = Field(
        description="the environment's last one; where it gives none, correct for a reward of 1 and wrong for less; error: it was lost"
    )
    reward: float = Field(description="what the environment paid, the sum over the steps: 1 is solved; 0 where it was lost")
    answer: str | None = Field(description="the answer found in the response; null where none was")
    tokens: int = Field(ge=0, description="tokens of the response")
    truncated: bool = Field(description="the response reached max_tokens without an end")
    steps: int = Field(ge=0, description="actions that the episode took")
    response: str = Field(description="text of the response; the turns of an episode are joined by line breaks")
    error: str | None = Field(default=None, description="how the environment failed, where the sample was lost by that")

    @property
    def correct(self) -> bool:
        return self.verdict == CORRECT


class TypeScore(BaseModel):
    """The items of one task type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: int = Field(ge=1, description="items of the type")
    pass_rate: Rate = Field(description="pass@1, interval over its items")


class Scores(BaseModel):
    """The figures of one policy under one decoding, all computed from the records."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int = Field(ge=1, description="samples of each item")
    pass_rate: Rate = Field(description="pass@1, interval over items")
    pass_at_k: dict[int, float] = Field(description="unbiased pass@k for the powers of two up to the samples, and the samples")
    majority: Rate | None = Field(
        description="majority vote over all samples of an item, interval over items; null where the environment names no answers to vote on"
    )
    mean_reward: float = Field(description="what the environment paid for a sample, mean")
    mean_tokens: float = Field(description="tokens of a response, mean")
    truncated: float = Field(description="share of responses that reached max_tokens")
    errors: int = Field(ge=0, description="samples lost to failing environments; they count as wrong")
    by_type: dict[str, TypeScore] = Field(description="the figures of each task type; empty where items have none")
    verdicts: dict[str, int] = Field(description="how often each verdict was given")


class Evaluation(BaseModel):
    """Manifest of one policy on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA_VERSION, description="of this file and of the records beside it")
    policy: str = Field(description="name of the policy: base, full, layer:3 ...")
    base: str = Field(description="fingerprint of the base model")
    patches: list[str] = Field(description="SHA-256 of each patch applied to the base, in order")
    split: str = Field(description="split that the items are from")
    digest: str = Field(description="SHA-256 of the items that were played, in order")
    items: int = Field(ge=2, description="items played")
    temperature: float = Field(description="of the sampled replies")
    max_tokens: int = Field(description="most tokens of one reply")
    prompt: str = Field(description="template of the prompt")
    seed: int = Field(description="the seed that every sample's seed derives from")
    cost: Cost = Field(description="what it took, summed over resumptions")
    hardware: Hardware = Field(description="the machine that finished it")
    versions: dict[str, str] = Field(description="of Python and the packages that have a part in the result")
    git_commit: str | None = Field(
        description="commit of the source that it ran from, with -dirty where files differed; null: an installed package"
    )
    sampled: Scores
    greedy: Scores

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


@dataclass(frozen=True)
class Outcomes:
    """The records of one decoding as arrays: item by item in the split's order, samples in order."""

    items: list[str]
    correct_IS: FloatArray
    answers_IS: list[list[str | None]]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Outcomes:
        """Raises ValueError where items have different numbers of samples, or a sample occurs twice."""
        by_item: dict[str, dict[int, Sample]] = {}
        for sample in samples:
            if by_item.setdefault(sample.item, {}).setdefault(sample.sample, sample) is not sample:
                raise ValueError(f"item {sample.item} has sample {sample.sample} twice")
        wanted = range(max((len(found) for found in by_item.values()), default=0))
        for item, found in by_item.items():
            if sorted(found) != list(wanted):
                raise ValueError(f"item {item} has samples {sorted(found)} where others have {list(wanted)}")
        rows = [[found[index] for index in wanted] for found in by_item.values()]
        correct = np.array([[sample.correct for sample in row] for row in rows], dtype=np.float64)
        return cls(list(by_item), correct, [[sample.answer for sample in row] for row in rows])

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


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """One JSON line per sample. Raises UserError where the file cannot be written."""
    write_atomically(path, "".join(sample.model_dump_json() + "\n" for sample in samples))


def read_samples(path: Path) -> list[Sample]:
    """Raises UserError with file and line where a line is no record, and where there is none."""
    samples = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    samples.append(Sample.model_validate_json(line))
                except ValidationError as error:
                    raise UserError(f"{path}:{number}: broken record ({first_problem(error)}); run this evaluation again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run this evaluation again") from error
    if not samples:
        raise UserError(f"{path}: holds no record; run this evaluation again")
    return samples


def schema_version(data: bytes) -> object:
    """The version that a manifest names; None where it names none, or is no JSON. It is looked at before the rest is."""
    with suppress(ValueError):
        return found.get("schema_version") if isinstance(found := json.loads(data), dict) else None


def read_manifest(directory: Path) -> Evaluation:
    """The manifest of a complete evaluation. Raises UserError where it is missing, broken or of another version."""
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
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
    outcomes = {}
    for decoding in Decoding:
        path = directory / decoding.file
        try:
            outcomes[decoding] = Outcomes.of(read_samples(path))
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{path}: {error}; run this evaluation again") from error
        expected = (manifest.items, manifest.scores(decoding).samples)
        if outcomes[decoding].correct_IS.shape != expected:
            found = " x ".join(map(str, outcomes[decoding].correct_IS.shape))
            raise UserError(f"{path}: {found} records, the manifest says {expected[0]} x {expected[1]}; run this evaluation again")
    return Recorded(manifest, outcomes[Decoding.SAMPLED], outcomes[Decoding.GREEDY])
