"""Every option of the loss against a plain implementation, one row at a time on the whole model; and what a token weighs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from families import random_base
from hypothesis import given
from hypothesis import strategies as st
from reference_update import MAX_TOKENS, OffPolicyLearner, assert_equal, plain_gradient, row_logprobs, sampled_rows

from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.agents.policy import Base
from onelayer.agents.trained_sets import select
from onelayer.trainers.algorithms.dr_grpo import DrGRPO
from onelayer.trainers.algorithms.gigpo import GiGPO
from onelayer.trainers.config import Config, TrainerConfig, settings_of
from onelayer.trainers.learner import Learner
from onelayer.trainers.rows import TrainingRow, make_rows, weighted

Loss = Callable[[torch.Tensor, TrainingRow], torch.Tensor]


@pytest.fixture(scope="module")
def base() -> Base:
    return random_base("llama")


@pytest.fixture(scope="module")
def rows(base: Base) -> list[TrainingRow]:
    return sampled_rows(base)


def updated(
    base: Base, rows: Sequence[TrainingRow], learner_type: type[Learner] = OffPolicyLearner, **settings: object
) -> tuple[dict[str, torch.Tensor], dict[str, float | None]]:
    """The gradient that an update of the full model would step along, and the update's metrics."""
    learner = learner_type(base.model, select(base.model, "full"), Config(trainer=TrainerConfig.model_validate(settings)))
    learner.optimizer.step = lambda: 0.0
    metrics = learner.update(weighted(rows, learner.settings, MAX_TOKENS))
    return {name: weight.grad for name, weight in learner.trained.parameters.items() if weight.grad is not None}, metrics


def surrogate(ratio: torch.Tensor, row: TrainingRow, low: float = 0.2, high: float = 0.2) -> torch.Tensor:
    advantage = torch.tensor(row.advantages)
    return torch.min(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def old(row: TrainingRow) -> torch.Tensor:
    return torch.tensor(row.logprobs)


def test_asymmetric_clip(base: Base, rows: list[TrainingRow]) -> None:
    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        return -surrogate((logprob - old(row)).exp(), row, 0.1, 0.3).mean() / len(rows)

    found, metrics = updated(base, rows, clip=0.1, clip_high=0.3)
    assert_equal(found, plain_gradient(base.model, rows, loss))
    assert metrics["clip_share"] is not None and 0.1 < metrics["clip_share"] < 0.9


def test_dual_clip(base: Base, rows: list[TrainingRow]) -> None:
    """At 1.25, so that it acts on these rows."""

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        gain, advantage = surrogate((logprob - old(row)).exp(), row), torch.tensor(row.advantages)
        return -torch.where(advantage < 0, torch.max(gain, 1.25 * advantage), gain).mean() / len(rows)

    expected = plain_gradient(base.model, rows, loss)
    assert_equal(updated(base, rows, dual_clip=1.25)[0], expected)
    without = updated(base, rows)[0]
    assert any(not torch.allclose(without[name], expected[name], atol=1e-4) for name in without)


def test_the_ratio_of_a_sequence(base: Base, rows: list[TrainingRow]) -> None:
    """GSPO as its paper writes it: one ratio a sequence, the mean over sequences."""

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        return -surrogate((logprob - old(row)).mean().exp(), row, 0.05, 0.05)[0] / len(rows)

    found, metrics = updated(base, rows, ratio="sequence", clip=0.05)
    assert_equal(found, plain_gradient(base.model, rows, loss))
    assert metrics["clip_share"] is not None and 0.1 < metrics["clip_share"] < 0.9


def with_engine_logprobs(base: Base, rows: Sequence[TrainingRow], shift: Callable[[], float]) -> list[TrainingRow]:
    """The rows as if the engine's log-probabilities were the trainer's, but for a shift of each."""
    with torch.no_grad():
        return [replace(row, logprobs=[own + shift() for own in row_logprobs(base.model, row).tolist()]) for row in rows]


def test_importance_correction(base: Base, rows: list[TrainingRow]) -> None:
    same = with_engine_logprobs(base, rows, lambda: 0.0)
    corrected, metrics = updated(base, same, Learner, importance_cap=2.0)
    assert_equal(corrected, updated(base, same, Learner)[0])
    assert metrics["importance"] == pytest.approx(1, abs=1e-4)

    rng = random.Random(1)
    off = with_engine_logprobs(base, rows, lambda: rng.uniform(-1.5, 0.7))
    cap, importances = 1.5, []

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        now = logprob.detach()
        importances.append((now - old(row)).exp())
        return -(importances[-1].clamp(max=cap) * surrogate((logprob - now).exp(), row)).mean() / len(rows)

    expected = plain_gradient(base.model, off, loss)
    found, metrics = updated(base, off, Learner, importance_cap=cap)
    assert_equal(found, expected)
    every = torch.cat(importances)
    assert 0.2 < (every > cap).float().mean() < 0.8
    assert metrics["clip_share"] == 0  # the ratio that is clipped is the trainer's own
    kept = torch.cat([its for its, row in zip(importances, off, strict=True) if row.has_signal])
    assert metrics["importance"] == pytest.approx(kept.mean().item(), rel=1e-4)


@pytest.mark.parametrize("loss_weights", ["sequence_mean", "token_mean", "constant"])
def test_truncated_replies_are_left_out(base: Base, rows: list[TrainingRow], loss_weights: str) -> None:
    cut = [replace(row, truncated=[len(row.token_ids) == MAX_TOKENS] * len(row.token_ids)) for row in rows]
    left = [row for row in cut if not row.truncated[0]]
    assert 0 < len(left) < len(cut)
    tokens = sum(len(row.token_ids) for row in left)

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        divisor = {"sequence_mean": len(rows) * len(row.token_ids), "token_mean": tokens, "constant": len(rows) * MAX_TOKENS}
        return -surrogate((logprob - old(row)).exp(), row).sum() / divisor[loss_weights]

    settings = {"algorithm": {"name": "gigpo", "loss_weights": loss_weights}, "dual_clip": None, "kl_coef": 0}
    for size in (None, 80):  # also within a batch of longer rows
        found, _ = updated(base, cut, mask_truncated=True, tokens_per_forward=size, **settings)
        assert_equal(found, plain_gradient(base.model, left, loss))


def row_of(length: int, episode: int, step: int = 0) -> TrainingRow:
    tokens = [1] * length
    return TrainingRow([1], tokens, [True] * length, [-1.0] * length, [1.0] * length, [False] * length, "item", 0, episode, step)


@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=6), st.integers(1, 400))
def test_dr_grpo_never_divides_by_what_was_sampled(lengths: list[list[int]], longer: int) -> None:
    """Neither the length of a reply, nor that of another, nor how many turns an episode took changes the weight of a token."""
    settings = TrainerConfig(algorithm=DrGRPO())
    rows = [row_of(length, episode, step) for episode, steps in enumerate(lengths) for step, length in enumerate(steps)]
    for row in weighted(rows, settings, 40):
        assert row.weights == pytest.approx([1 / (len(lengths) * 40)] * len(row.token_ids))
    for row in weighted([row_of(longer, 0), *(row for row in rows if row.episode)], settings, 40):
        assert row.weights == pytest.approx([1 / (len(lengths) * 40)] * len(row.token_ids))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_means_over_tokens_and_over_sequences(lengths: list[int]) -> None:
    rows = [row_of(length, episode) for episode, length in enumerate(lengths)]
    by_token = weighted(rows, TrainerConfig(algorithm=GiGPO()), 40)
    assert {weight for row in by_token for weight in row.weights} == {1 / sum(lengths)}
    by_sequence = weighted(rows, TrainerConfig(), 40)
    assert [sum(row.weights) for row in by_sequence] == pytest.approx([1 / len(rows)] * len(rows))


def played(base: Base, windowed: bool) -> list[Episode]:
    """Three episodes of three turns: a conversation that grows, or a prompt of its own for each step."""
    rng = random.Random(2)
    engine = TransformersEngine(base.model, base.end_ids)

    def said(count: int) -> list[int]:
        return [rng.randrange(3, 300) for _ in range(count)]

    episodes = []
    for index in range(3):
        ids, steps = said(5), []
        for turn in range(3):
            (reply,) = engine.generate([Request(ids, 10 * index + turn, Sampling(6 + turn))])
            logprobs = [logprob + rng.uniform(-0.4, 0.4) for logprob in reply.logprobs]
            steps.append(Step(ids, reply.token_ids, logprobs, "", "", 0.0, index == turn == 1, {}))
            ids = said(6) if windowed else [*ids, *reply.token_ids, *said(1 + turn)]
        episodes.append(Episode(index, Play("item", 0, index), steps))
    return episodes


SCORES = [1.0, -0.5, 2.0, 0.0, -1.0, 0.7, 0.3, 0.0, -1.6]


def test_a_conversation_is_one_row_and_learns_as_its_steps_would(base: Base) -> None:
    episodes = played(base, windowed=False)
    steps = [step for episode in episodes for step in episode.steps]
    settings = {"algorithm": "gigpo", "kl_coef": 0, "mask_truncated": True}
    rows = make_rows(episodes, SCORES, TrainerConfig.model_validate(settings), MAX_TOKENS)
    for row, episode in zip(rows, episodes, strict=True):  # one a conversation
        assert row.prompt_ids + row.token_ids == episode.steps[-1].prompt_ids + episode.steps[-1].token_ids
        replies = [token for step in episode.steps for token in step.token_ids]
        assert [token for token, mine in zip(row.token_ids, row.sampled, strict=True) if mine] == replies
    tokens = sum(len(step.token_ids) for step in steps if not step.truncated)
    apart = [
        replace(row_of(len(step.token_ids), at), prompt_ids=step.prompt_ids, token_ids=step.token_ids, logprobs=step.logprobs)
        for at, step in enumerate(steps)
    ]

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        scored = replace(row, advantages=[SCORES[row.episode]] * len(row.token_ids))
        gain = surrogate((logprob - old(row)).exp(), scored).sum()
        return -gain / tokens * (not steps[row.episode].truncated)

    expected = plain_gradient(base.model, apart, loss)
    assert_equal(updated(base, rows, **settings)[0], expected)
    # Whatever an algorithm gives to what the environment said, nothing comes of it.
    given = [[score if mine else 50.0 for score, mine in zip(row.advantages, row.sampled, strict=True)] for row in rows]
    noisy = [replace(row, advantages=advantages) for row, advantages in zip(rows, given, strict=True)]
    assert_equal(updated(base, noisy, **settings)[0], expected)


def test_steps_with_prompts_of_their_own_are_rows_of_their_own(base: Base) -> None:
    episodes = played(base, windowed=True)
    rows = make_rows(episodes, SCORES, TrainerConfig(algorithm=GiGPO(), kl_coef=0), MAX_TOKENS)
    steps = [step for episode in episodes for step in episode.steps]
    assert [(row.prompt_ids, row.token_ids, row.advantages[0]) for row in rows] == [
        (step.prompt_ids, step.token_ids, score) for step, score in zip(steps, SCORES, strict=True)
    ]
    tokens = sum(len(step.token_ids) for step in steps)

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        return -surrogate((logprob - old(row)).exp(), row).sum() / tokens

    assert_equal(updated(base, rows, algorithm="gigpo", kl_coef=0)[0], plain_gradient(base.model, rows, loss))


def test_a_run_from_before_bases_could_be_quantised_is_the_same_policy() -> None:
    now = Config().model_dump(mode="json")
    before = {**now, "model": {key: value for key, value in now["model"].items() if key != "quantization"}}
    assert settings_of(now) == settings_of(before)
    packed = {**now, "model": {**now["model"], "quantization": "nf4"}}
    assert settings_of(packed)["model.quantization"] == "nf4"
