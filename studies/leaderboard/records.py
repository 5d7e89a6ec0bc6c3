"""leaderboard.json: tables of entries. docs/leaderboard.md says how a table is to be read."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ...evals.records import Decoding, TrainedElsewhere
from ...evals.replies import ReplyStatistics
from ...evals.statistics import Difference
from .marks import Mark


class PairedDifference(BaseModel):
    """An entry minus another on the same items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    difference: Difference = Field(description="paired by item, and by training seed where both have several")
    p_holm: float = Field(description="p corrected over the entries that are compared with the same one (Holm)")
    seeds: int = Field(description="training seeds that the difference is over; one: its interval is over items only")


class Share(BaseModel):
    """C(k)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    point: float | None = Field(description="null where it may not be shown as a figure")
    interval: tuple[float, float] | Literal["unbounded"] | None = Field(description="Fieller's set; null: a published figure has none")


class Standing(BaseModel):
    """An entry under one decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int | None = Field(description="1 + the entries measured alike whose whole interval is above this one's; null: published")
    pass_rate: float = Field(description="pass@1")
    interval: tuple[float, float] | None = Field(description="at 95%; null: a published figure has none")
    by_seed: list[float] = Field(default=[], description="pass@1 of each training seed")
    to_base: PairedDifference | None = Field(default=None, description="minus its base; null for a base, and where none was measured so")
    to_full: PairedDifference | None = Field(default=None, description="minus the full-parameter run of the same recipe; null as above")
    base_differs: list[str] = Field(default=[], description="what its base was measured with differently, which is why to_base is null")
    full_differs: list[str] = Field(default=[], description="the same for the full-parameter run")
    contribution: Share | None = Field(default=None, description="C(k); null without base or full-parameter run")
    replies: ReplyStatistics | None = Field(
        default=None, description="mean over the runs; null: a published figure, or one of lm-evaluation-harness"
    )


class TrainingCost(BaseModel):
    """What a training took: the mean over the seeds, and the largest memory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: float
    cpu_seconds: float
    gpu_seconds: float | None = Field(description="null: no GPU")
    flops: float = Field(description="estimated (docs/run-store.md)")
    tokens: float = Field(description="sampled in training")
    peak_memory: int = Field(description="bytes")
    peak_gpu_memory: int | None = Field(description="bytes; null: no GPU")


class Entry(BaseModel):
    """One row of a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="stable: a hash of what makes the entry; permalinks name it")
    mark: Mark = Field(description="how far it was verified; of several evaluations the weakest")
    model: str
    base: str = Field(description="fingerprint of the base; none where there is none")
    layers: int | None = Field(default=None, description="decoder layers of the model; null: not known")
    source: str = Field(description="what played: model, endpoint, baseline, responses, lm-eval; published: nobody here")
    trained_set: str = Field(description="what was trained, or the policy's name where nothing was")
    algorithm: str | None
    recipe: str | None = None
    lr: float | None = Field(default=None, description="peak learning rate")
    trained_on: str | None = Field(default=None, description="split")
    seeds: list[int] = Field(description="training seeds; empty where nothing was trained, and where they are not known")
    runs: int = Field(default=1, description="how many runs the figure is a mean of")
    samples: int | None = Field(default=None, description="samples of each item at the sampling temperature, the fewest of its evaluations")
    interval_over: Literal["items", "seeds and items"] | None = Field(description="null: there is no interval")
    elsewhere: list[TrainedElsewhere] = Field(
        default=[],
        description="what is known of its patches that were made of models trained elsewhere; empty: trained here, or not at all",
    )
    parameters: int | None = Field(default=None, description="trained parameters; null where not known")
    total_parameters: int | None = None
    spent: TrainingCost | None = Field(default=None, description="in training; null where nothing was trained, or it is not known")
    apart: str = Field(default="", description="what sets its protocol apart from others of the table, as 2 turns; empty: nothing does")
    protocol: dict[str, JsonValue] = Field(
        default={}, description="temperature, max_tokens, prompt, evaluation seed, and the keys of its recipe that its figures rest on"
    )
    protocol_sha256: str = Field(default="", description="over all that its figures rest on besides the policy; empty: published")
    directories: list[str] = Field(default=[], description="the evaluations, below the directory of runs")
    sampled: Standing | None = Field(description="null: not measured")
    greedy: Standing | None = Field(description="null: not measured")

    def standing(self, decoding: Decoding) -> Standing | None:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class AlgorithmDifference(BaseModel):
    """What the algorithm makes of a trained set: one policy minus another that was trained alike but for the algorithm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    trained_set: str
    algorithm: str
    minus: str = Field(description="the algorithm of the other policy")
    sampled: PairedDifference | None = Field(description="p corrected over all pairs of the table; null: not measured in the same way")
    greedy: PairedDifference | None = Field(description="as sampled")


class LeaderboardTable(BaseModel):
    """Everything measured on the same items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str
    suite: str = Field(description="SUITE/SPLIT, or what an average is of")
    averaged: dict[str, float] = Field(default={}, description="of a measured average the weight of each split; empty: one suite")
    items: int | None = Field(description="null: only published figures")
    size: str = Field(default="", description="the number of items, and of those that were skipped, in words")
    digest: str = Field(description="SHA-256 of the items; empty where there are only published figures")
    entries: list[Entry] = Field(description="the best first, by pass@1 sampled, else greedy")
    algorithms: list[AlgorithmDifference] = Field(default=[], description="algorithms compared with each other; empty: there are no two")


class LeftOut(BaseModel):
    """A directory that could not be read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    problem: str


class Leaderboard(BaseModel):
    """leaderboard.json"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    level: float = Field(default=0.95, description="confidence level of every interval")
    published: str = Field(description="where the published figures are from")
    tables: list[LeaderboardTable]
    left_out: list[LeftOut] = Field(description="what is broken, with the reason")
