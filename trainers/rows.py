"""Rows: sampled steps as the loss sees them, with every normalisation fixed before any row is dropped, split or packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..agents.episodes import Episode


@dataclass(frozen=True)
class Row:
    """One step. `prompt_ids` are context; the action is `token_ids`, and all lists run along it."""

    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    """Log-probabilities at sampling time, in nats."""
    advantages: list[float]
    weights: list[float]
    """What each token's loss is multiplied with; the batch's loss is the plain sum."""
    item: str
    group: int
    episode: int
    step: int
    version: int
    """Optimiser steps the sampling policy had seen."""
    truncated: bool

    @property
    def has_signal(self) -> bool:
        return any(self.advantages)


def survivors(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes to learn from: those that the infrastructure has not lost, in groups of which at least two are left."""
    whole = [episode for episode in episodes if episode.error is None]
    left = Counter(episode.play.group for episode in whole)
    return [episode for episode in whole if left[episode.play.group] >= 2]


def make_rows(episodes: Sequence[Episode], advantages: Sequence[float], version: int) -> list[Row]:
    """One row a step, weighted by `sequence_mean`; `advantages` has one number an episode."""
    rows = [
        Row(
            step.prompt_ids,
            step.token_ids,
            step.logprobs,
            [advantage] * len(step.token_ids),
            [],
            episode.play.item,
            episode.play.group,
            episode.index,
            number,
            version,
            step.truncated,
        )
        for episode, advantage in zip(episodes, advantages, strict=True)
        for number, step in enumerate(episode.steps)
    ]
    return sequence_mean(rows)


def sequence_mean(rows: Sequence[Row]) -> list[Row]:
    """Weights of DeepSeekMath's loss: the mean over a response's tokens, then over responses: 1 / (rows x length)."""
    return [replace(row, weights=[1 / (len(rows) * len(row.token_ids))] * len(row.token_ids)) for row in rows]


def minibatches(rows: Sequence[Row], count: int, seed: int) -> list[list[Row]]:
    """Whole groups dealt into `count` parts, each weighted as a batch of its own would be on average."""
    groups = sorted({row.group for row in rows})
    if count == 1:
        return [list(rows)]
    np.random.default_rng(seed).shuffle(groups)
    part_of = {group: index % count for index, group in enumerate(groups)}
    parts = [[row for row in rows if part_of[row.group] == index] for index in range(count)]
    return [[replace(row, weights=[weight * len(rows) / len(part) for weight in row.weights]) for row in part] for part in parts if part]
