"""The published figures that the leaderboard shows as reference rows: single runs, no interval, not measured by this project."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Percent = Annotated[float, Field(ge=0, le=100)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Publication(_Frozen):
    """Where the figures are from."""

    title: str
    authors: str
    arxiv: str = Field(description="arXiv number with version")
    date: str = Field(description="year and month of that version")


class PublishedRow(_Frozen):
    """One trained set, one run."""

    trained_set: str = Field(alias="set", description="base, full or layer:K")
    scores: list[Percent] = Field(description="in the order of the study's measures")
    contributions: list[float] = Field(alias="C", description="C(k) as printed, in the order of the study's contributions")


class RepeatedRow(_Frozen):
    """A mean of three runs."""

    trained_set: str = Field(alias="set", description="full, mid:K, or the best K: trained alone, or at twice the rate (boost)")
    math: Percent = Field(description="math average")


class PublishedVote(_Frozen):
    """A majority vote, or what it is compared with, on OlympiadBench."""

    of: str
    score: Percent


class PublishedStudy(_Frozen):
    """One model's table."""

    model: str
    layers: int = Field(description="decoder layers of the model")
    scanned: int = Field(description="layers that were trained alone; the table prints some of them")
    algorithm: str
    trained_on: str
    domain: str
    measures: list[str] = Field(description="suites and averages, one for each score of a row")
    averages: dict[str, list[str]] = Field(default={}, description="measures that are plain means of others")
    contributions: dict[str, str] = Field(description="name of each C and the measure it is of")
    rows: list[PublishedRow]
    repeated: list[RepeatedRow] = []
    votes: list[PublishedVote] = []

    @model_validator(mode="after")
    def _complete(self) -> PublishedStudy:
        for row in self.rows:
            if (len(row.scores), len(row.contributions)) != (len(self.measures), len(self.contributions)):
                raise ValueError(f"{self.model}, {row.trained_set}: a score for each measure and a C for each contribution are needed")
        return self

    def score(self, trained_set: str, measure: str) -> float:
        """Percent as printed. Raises KeyError where the table has no such row, ValueError where it has no such measure."""
        by_set = {row.trained_set: row for row in self.rows}
        return by_set[trained_set].scores[self.measures.index(measure)]


class Published(_Frozen):
    """All tables of one paper."""

    source: Publication
    studies: list[PublishedStudy]


@cache
def published() -> Published:
    """The figures of studies/paper.yaml."""
    return Published.model_validate(yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8")))
