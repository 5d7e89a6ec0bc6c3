"""The gradient is the algorithm's, whatever is shared, skipped, split or reused; and nothing outside the trained set moves."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import FAMILIES, MORE_FAMILIES, random_base
from hypothesis import given
from hypothesis import strategies as st
from reference_update import MAX_TOKENS, OffPolicyLearner, assert_equal, plain_gradient, row_logprobs, sampled_rows

from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import Base, load_base, part_hashes, weight_hashes
from onelayer.agents.trained_sets import TrainedSet, select
from onelayer.trainers import head
from onelayer.trainers.algorithms.grpo import grpo
from onelayer.trainers.algorithms.steps import Steps
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.forward import packs
from onelayer.trainers.learner import Learner, Totals
from onelayer.trainers.rows import TrainingRow, minibatches

CLIP, KL = 0.2, 0.1


def paper_gradient(model: torch.nn.Module, reference: torch.nn.Module, rows: list[TrainingRow], kl_coef: float) -> dict[str, torch.Tensor]:
    """GRPO's loss as the paper writes it."""

    def loss(logprob: torch.Tensor, row: TrainingRow) -> torch.Tensor:
        ratio, advantage = (logprob - torch.tensor(row.logprobs)).exp(), torch.tensor(row.advantages)
        surrogate = torch.min(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
        log_ratio = row_logprobs(reference, row).detach() - logprob
        return -(surrogate - kl_coef * (log_ratio.exp() - log_ratio - 1)).mean() / len(rows)

    return plain_gradient(model, rows, loss)


def learner_gradient(
    base: Base, spec: str | TrainedSet, rows: list[TrainingRow], passes: int = 1, **settings: object
) -> dict[str, torch.Tensor]:
    trained = select(base.model, spec) if isinstance(spec, str) else spec
    config = Config(trainer=TrainerConfig.model_validate({"trained_set": trained.spec, "clip": CLIP, **settings}))
    learner = OffPolicyLearner(base.model, trained, config)
    if learner.reference:
        learner.reference = {name: weight + 0.1 for name, weight in learner.reference.items()}
    kept = [row for row in rows if row.has_signal or config.trainer.kl_coef or not config.trainer.skip_zero_rows]
    prepared = packs(kept, learner.tokens_per_forward, base.model.device)
    for _ in range(passes):
        base.model.zero_grad()
        for pack in prepared:
            learner.backward(pack, Totals())
    moved = {id(parameter) for parameter in trained.parameters.values()}
    assert all(parameter.grad is None for parameter in base.model.parameters() if id(parameter) not in moved)
    return {name: parameter.grad for name, parameter in learner.trained.parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_the_papers(family: str):
    base = random_base(family)
    rows = sampled_rows(base)
    expected = paper_gradient(base.model, base.model, rows, kl_coef=0)
    for spec in ("full", "layer:5", "layers:2,9", "layer:7.mlp", "layer:0", "head"):
        assert_equal(learner_gradient(base, spec, rows), expected)
        assert_equal(learner_gradient(base, spec, rows, skip_zero_rows=False), expected)


@pytest.mark.parametrize("spec", ["full", "layer:5", "layer:11", "head"])
def test_packing_epochs_and_the_reference_leave_the_gradient_alone(spec: str):
    base = random_base("llama")
    rows = sampled_rows(base)
    reference = copy.deepcopy(base.model)
    with torch.no_grad():
        for name in select(base.model, spec).parameters:
            dict(reference.named_parameters())[name].add_(0.1)
    expected = paper_gradient(base.model, reference, rows, kl_coef=KL)
    assert_equal(learner_gradient(base, spec, rows, kl_coef=KL), expected)
    assert_equal(
        learner_gradient(base, spec, rows, kl_coef=KL, tokens_per_forward=60, epochs=2, passes=3, checkpoint_layers=True), expected
    )
    without_kl = paper_gradient(base.model, base.model, rows, kl_coef=0)
    assert_equal(learner_gradient(base, spec, rows, tokens_per_forward=40, epochs=2, passes=2), without_kl)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_trained_set_moves(dtype: torch.dtype):
    base = random_base("qwen3")
    base = Base(base.model.bfloat16() if dtype == torch.bfloat16 else base.model, base.tokenizer, weight_hashes(base.model))
    rows = sampled_rows(base)
    config = Config(trainer=TrainerConfig(trained_set="layer:1", lr=1e-3, weight_decay=0.1, epochs=2, minibatches=3, kl_coef=0.05))
    learner = Learner(base.model, select(base.model, "layer:1"), config)
    metrics = learner.update(rows)
    after = weight_hashes(base.model)
    assert {name for name in after if after[name] != base.hashes[name]} == set(learner.trained.parameters)
    assert all(value is not None and np.isfinite(value) for value in metrics.values()) and metrics["kl"]
    assert all(master.dtype == torch.float32 for master in learner.optimizer.masters.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_entries_drawn_at_random_move(dtype: torch.dtype):
    base = random_base("qwen3")
    model = base.model.bfloat16() if dtype == torch.bfloat16 else base.model
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trained = select(model, "random:3000")
    kept = part_hashes(trained)
    learner = Learner(base.model, trained, Config(trainer=TrainerConfig(trained_set="random:3000", lr=1e-2, warmup_steps=0)))
    learner.update(sampled_rows(base))
    moved = {name: (parameter != before[name]).flatten().nonzero()[:, 0] for name, parameter in model.named_parameters()}
    assert 2000 < sum(map(len, moved.values())) <= 3000
    assert all(set(moved[name].tolist()) <= set(trained.places[name].tolist()) for name in moved if len(moved[name]))
    assert part_hashes(trained) == kept
    assert sum(master.numel() for master in learner.optimizer.masters.values()) == 3000


def test_the_same_rows_give_the_same_bits():
    """Sums over threads must not depend on their timing: many rows share a prompt, on two threads, again and again."""
    base, threads = load_base(ModelConfig(device="cpu")), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rows = sampled_rows(base, groups=32, group_size=8, longest=60)
        first, *others = [learner_gradient(base, "full", rows) for _ in range(6)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_steps_without_any_signal_decay_the_moments_alike():
    """A batch of zero advantages is skipped whole, yet the optimiser goes on as if it had been computed."""
    ends = []
    for skip in (True, False):
        base = random_base("llama")
        rows = sampled_rows(base)
        flat = [replace(row, advantages=[0.0] * len(row.token_ids)) for row in rows]
        config = Config(trainer=TrainerConfig(trained_set="layer:4", lr=1e-3, skip_zero_rows=skip))
        learner = Learner(base.model, select(base.model, "layer:4"), config)
        for batch in (rows, flat, rows):
            learner.update(batch)
        ends.append(torch.cat([master.detach().flatten() for master in learner.optimizer.masters.values()]))
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_a_learning_rate_per_layer():
    base = random_base("qwen3")
    before = {name: parameter.detach().clone() for name, parameter in base.model.named_parameters()}
    config = Config(trainer=TrainerConfig(trained_set="layers:3,4", lr=1e-5, lr_by_layer={4: 1e-3}, warmup_steps=0))
    Learner(base.model, select(base.model, "layers:3,4"), config).update(sampled_rows(base))
    moved = {name: (parameter - before[name]).abs().max().item() for name, parameter in base.model.named_parameters()}
    assert 0 < max(moved[name] for name in moved if ".layers.3." in name) < 2e-5
    assert 5e-4 < max(moved[name] for name in moved if ".layers.4." in name) < 2e-3


@pytest.mark.parametrize("algorithm", ["grpo", {"name": "grpo", "loss_weights": "token_mean"}, "dr_grpo"])
def test_minibatches_deal_whole_groups_and_weigh_each_as_a_batch_of_its_own(algorithm: object):
    rows = sampled_rows(random_base("llama"), groups=7)
    settings = TrainerConfig.model_validate({"minibatches": 3, "algorithm": algorithm})
    parts = minibatches(rows, settings, MAX_TOKENS, seed=5)
    assert sorted(row.episode for part in parts for row in part) == list(range(len(rows)))
    assert all({row.group for row in one}.isdisjoint(row.group for row in other) for one in parts for other in parts if one is not other)
    for part in parts:
        share = 1.0 if algorithm != "dr_grpo" else sum(len(row.token_ids) for row in part) / (len(part) * MAX_TOKENS)
        assert sum(sum(row.weights) for row in part) == pytest.approx(share)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=16))
def test_grpo_advantages(rewards: list[float]):
    many = len(rewards)
    found = grpo(Steps(np.array(rewards), range(many), [0] * many, [""] * many, [True] * many))
    if len(set(rewards)) == 1:
        assert not found.any()
    else:
        expected = (np.array(rewards) - np.mean(rewards)) / (torch.tensor(rewards, dtype=torch.float64).std().item() + 1e-4)
        assert found == pytest.approx(expected)


def shifted(model: torch.nn.Module, trained: TrainedSet, by: float) -> torch.nn.Module:
    """A copy of the model with another trained set."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in trained.parameters.values():
            other.get_parameter(names[id(parameter)]).add_(by)
    return other


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_values_and_gradients_of_all_families(family: str, monkeypatch: pytest.MonkeyPatch):
    """As the model's own forward pass and autograd have them, row by row; a head in chunks, layers computed twice, epochs, a reference."""
    base = random_base(family)
    rows = sampled_rows(base, groups=2, group_size=3)
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * 320 * 10)  # ten tokens
    relative = 5e-5 if family == "gemma4_text" else 1e-5  # its plain gradient in float32 is 8e-5 from that in float64
    small = {"tokens_per_forward": 60, "checkpoint_layers": True, "epochs": 2, "kl_coef": KL}
    plain = paper_gradient(base.model, base.model, rows, kl_coef=0)
    for spec in ("full", "layer:1", "embed", "head", "lora:3"):
        trained = select(base.model, spec)
        with trained.attached(seed=0):
            if spec == "lora:3":
                stir(trained)
                plain = paper_gradient(base.model, base.model, rows, kl_coef=0)
            own_name = {id(parameter): name for name, parameter in base.model.named_parameters()}
            names = {name: own_name[id(parameter)] for name, parameter in trained.parameters.items()}
            with_reference = paper_gradient(base.model, shifted(base.model, trained, 0.1), rows, kl_coef=KL)
            found, again = learner_gradient(base, trained, rows), learner_gradient(base, trained, rows, passes=2, **small)
            assert found.keys() >= again.keys() == trained.parameters.keys()
            assert_equal(found, {name: plain[own] for name, own in names.items()}, relative)
            assert_equal(again, {name: with_reference[own] for name, own in names.items()}, relative)
            assert_values(base, trained, rows)


def stir(trained: TrainedSet) -> None:
    """Factors as training might leave them, away from their beginning."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained.parameters.values():
            parameter.add_(0.02 * torch.randn_like(parameter))


def assert_values(base: Base, trained: TrainedSet, rows: list[TrainingRow]) -> None:
    learner = Learner(base.model, trained, Config(trainer=TrainerConfig(trained_set=trained.spec)))
    prepared = packs(rows, 60, base.model.device)
    for pack in prepared:
        learner.keep_old(pack)
    found = torch.cat([bucket.old_N for pack in prepared for bucket in pack.buckets if bucket.old_N is not None])
    expected = torch.cat([row_logprobs(base.model, row).detach() for row in rows])
    assert torch.allclose(found.sort()[0], expected.sort()[0], atol=1e-5, rtol=1e-5)
