"""compare.json: every figure of a comparison."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ..evals.records import Decoding
from ..evals.statistics import Difference
from .contribution import Contribution
from .figures import PolicyFigures
from .learning_curve import LearningCurve


class TrainedSeed(BaseModel):
    """One run of a policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: str
    seed: int = Field(description="training seed")
    finished: bool = Field(description="whether the run is complete; false: it still goes on, or was stopped")
    steps: int = Field(description="steps that the run is to take")
    seconds: float = Field(description="of the whole run where it is finished, else of its rollouts and updates so far")
    curve: LearningCurve


class ComparedPolicy(BaseModel):
    """Runs that differ in their seed alone, or what was evaluated without a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="algorithm and trained set, and what else tells it from others of its domain")
    domain: str | None = Field(default=None, description="suite it was trained on; null: no run is known")
    model: str | None = Field(default=None, description="the base: tiny, a directory or a hub name")
    algorithm: str | None = None
    trained_set: str | None = None
    settings: dict[str, JsonValue] = Field(default={}, description="the keys of the recipe that bear on the result, without the seed")
    apart: str = Field(default="", description="how its episodes differ from those that others of its domain trained on, as 2 turns")
    parameters: int | None = Field(default=None, description="parameters that were trained; null until a run is finished")
    share: float | None = Field(default=None, description="of all parameters")
    runs: list[TrainedSeed] = []


class Compared(BaseModel):
    """A policy minus another on the same items, or why there is no such figure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    other: str = Field(description="the label of the row it is compared with")
    difference: Difference | None = Field(description="paired by item, and by training seed where both have several")
    p_holm: float | None = Field(default=None, description="p corrected over the rows with the same other policy (Holm)")
    mcnemar: float | None = Field(
        default=None, description="exact McNemar p of greedy answers, not corrected; null: sampled, or over several training seeds"
    )
    seeds: int = Field(default=0, description="training seeds of each that the difference is over; one: its interval is over items only")
    not_comparable: list[str] = Field(default=[], description="what the two were measured with differently")


class Figures(PolicyFigures):
    """One row under one decoding."""

    to_base: Compared | None = Field(description="minus the base; null for a base, and where none was measured")
    contribution: Contribution | None = Field(
        default=None,
        description="C(k) against the base and the full-parameter row trained alike; null without both, or where it is no one row",
    )
    to_first: Compared | None = Field(description="minus the first policy given that is no base; null for itself and for a base")


class ComparisonRow(BaseModel):
    """One policy on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = Field(description="name of the policy")
    trained_on: str | None = Field(description="domain of the policy, by which names are unique; null: no run is known")
    seeds: list[int] = Field(description="training seeds measured; empty where no run is known")
    apart: str = Field(default="", description="what sets its protocol apart from others of the section, as 2 turns; empty: nothing does")
    directories: list[str] = Field(description="the evaluations")
    items: int
    skipped: int = Field(default=0, description="what stands among them in the data and cannot be graded")
    digest: str = Field(description="SHA-256 of the items")
    base: str = Field(description="fingerprint of the base")
    temperature: float = Field(description="of the sampled replies")
    max_tokens: int = Field(description="most tokens of one reply")
    prompt: str = Field(description="template of the prompt")
    seed: int = Field(description="seed of the evaluation")
    protocol: str = Field(
        description="SHA-256 over all that the figures rest on besides the policy: only rows with the same are subtracted"
    )
    settings: dict[str, JsonValue] = Field(description="all that protocol is made of")
    samples: int = Field(description="samples of each item; the fewest of its evaluations")
    interval_over: Literal["items", "seeds and items"]
    sampled: Figures
    greedy: Figures

    @property
    def label(self) -> str:
        """The policy, and what sets its protocol apart."""
        return f"{self.policy} ({self.apart})" if self.apart else self.policy

    def figures(self, decoding: Decoding) -> Figures:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class AlgorithmDifference(BaseModel):
    """One trained set under two algorithms, trained on the same kind of episodes and measured in the same way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str = Field(description="the label of the row that the other is subtracted from")
    trained_set: str
    sampled: Compared
    greedy: Compared = Field(description="p_holm of both: corrected over all pairs of the section")

    def figures(self, decoding: Decoding) -> Compared:
        return self.sampled if decoding is Decoding.SAMPLED else self.greedy


class Section(BaseModel):
    """Everything measured on one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    domain: str = Field(description="the split's suite")
    split: str
    rows: list[ComparisonRow] = Field(description="bases, then the others as they were given")
    algorithms: list[AlgorithmDifference] = Field(default=[], description="each trained set under each two algorithms")


class Comparison(BaseModel):
    """Everything that the terminal, compare.json and the page show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    level: float = Field(default=0.95, description="confidence level of every interval")
    policies: list[ComparedPolicy] = Field(description="in the order given")
    sections: list[Section]

    @property
    def suites(self) -> list[str]:
        """Suites that anything was measured or trained on."""
        found = [section.domain for section in self.sections] + [policy.domain for policy in self.policies if policy.domain]
        return list(dict.fromkeys(found))
