"""Rows: sampled steps as the loss sees them, with every normalisation fixed before any row is dropped, split or packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..agents.episodes import Episode, Step
from ..agents.layer_inputs import LayerInputs
from .algorithms.algorithm import Batch
from .config import TrainerConfig


@dataclass(frozen=True)
class TrainingRow:
    """One sequence: a step with a prompt of its own, or all steps of a conversation that grows.

    `prompt_ids` are context. `token_ids` are what follows: sampled tokens and, between the replies of a conversation, what the environment
    said. All lists run along `token_ids`.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    sampled: list[bool]
    """Whether the policy sampled the token; no other token has a part in the loss."""
    logprobs: list[float]
    """Log-probabilities at sampling time, in nats; 0 for other tokens."""
    advantages: list[float]
    truncated: list[bool]
    """Whether the token is of a reply that was cut off."""
    item: str
    group: int
    episode: int
    step: int
    """The first of its steps."""
    weights: list[float] = field(default_factory=list)
    """What each token's loss is multiplied with; the batch's loss is the plain sum."""
    inputs: LayerInputs | None = field(default=None, repr=False, compare=False)
    """What entered the lowest trained layer in the rollout, of all tokens but the last; None: it was not handed over."""

    @property
    def has_signal(self) -> bool:
        return any(advantage and weight for advantage, weight in zip(self.advantages, self.weights, strict=True))


def survivors(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes to learn from: those that the infrastructure has not lost, in groups of which at least two are left."""
    whole = [episode for episode in episodes if episode.error is None]
    left = Counter(episode.play.group for episode in whole)
    return [episode for episode in whole if left[episode.play.group] >= 2]


def make_rows(episodes: Sequence[Episode], advantages: Sequence[float], settings: TrainerConfig, max_tokens: int) -> list[TrainingRow]:
    """The rows of all episodes, weighted; `advantages` has one number for each step of each episode, in their order.

    A step whose prompt goes on from the tokens before it continues their row: prompt and replies of a conversation are computed once.
    """
    rows: list[TrainingRow] = []
    steps = [(episode, number, step) for episode in episodes for number, step in enumerate(episode.steps)]
    for (episode, number, step), advantage in zip(steps, advantages, strict=True):
        more = _continued(rows[-1], step) if number else None
        if more is None:
            play = episode.play
            rows.append(TrainingRow(step.prompt_ids, [], [], [], [], [], play.item, play.group, episode.index, number))
            more, inputs = [], _whole(step)
        else:
            inputs = rows[-1].inputs and step.inputs and rows[-1].inputs.then(step.inputs, len(more))
        row, before, count = rows[-1], len(more), len(step.token_ids)
        rows[-1] = replace(
            row,
            token_ids=[*row.token_ids, *more, *step.token_ids],
            sampled=[*row.sampled, *[False] * before, *[True] * count],
            logprobs=[*row.logprobs, *[0.0] * before, *step.logprobs],
            advantages=[*row.advantages, *[0.0] * before, *[advantage] * count],
            truncated=[*row.truncated, *[False] * before, *[step.truncated] * count],
            inputs=inputs,
        )
    return weighted(rows, settings, max_tokens)


def _continued(row: TrainingRow, step: Step) -> list[int] | None:
    """What stands between the row's last reply and the step's, where the step's prompt goes on from the row; else None."""
    seen = len(row.prompt_ids) + len(row.token_ids)
    if len(step.prompt_ids) <= seen or step.prompt_ids[:seen] != [*row.prompt_ids, *row.token_ids]:
        return None
    return step.prompt_ids[seen:]


def _whole(step: Step) -> LayerInputs | None:
    """What the step hands over, where that is of its whole prompt."""
    return step.inputs if step.inputs and len(step.inputs.prompt_TH) == len(step.prompt_ids) - 1 else None


def weighted(rows: Sequence[TrainingRow], settings: TrainerConfig, max_tokens: int) -> list[TrainingRow]:
    """The rows with the weight of each token, fixed on the whole batch: one over what the algorithm divides by.

    Tokens that are not learned from weigh nothing and count nowhere.
    """
    learned = [
        [mine and not (cut and settings.mask_truncated) for mine, cut in zip(row.sampled, row.truncated, strict=True)] for row in rows
    ]
    batch = Batch(len(rows), sum(map(sum, learned)), len({row.episode for row in rows}), max_tokens)

    def weights(mine: list[bool]) -> list[float]:
        weight = 1 / max(1, settings.algorithm.divisor(batch, sum(mine)))
        return [weight if token else 0.0 for token in mine]

    return [replace(row, weights=weights(mine)) for row, mine in zip(rows, learned, strict=True)]


def minibatches(rows: Sequence[TrainingRow], settings: TrainerConfig, max_tokens: int, seed: int) -> list[list[TrainingRow]]:
    """Whole groups dealt into `settings.minibatches` parts, each weighted as a batch of its own."""
    if settings.minibatches == 1:
        return [list(rows)]
    groups = sorted({row.group for row in rows})
    np.random.default_rng(seed).shuffle(groups)
    part_of = {group: index % settings.minibatches for index, group in enumerate(groups)}
    parts = [[row for row in rows if part_of[row.group] == index] for index in range(settings.minibatches)]
    return [weighted(part, settings, max_tokens) for part in parts if part] or [[]]
