"""An update that starts with what the rollout handed over learns what it would learn without, and runs no layer below."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from families import random_base
from reference_update import OffPolicyLearner, assert_equal
from safetensors.torch import load_file

from onelayer.agents.config import AgentConfig
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.engine import Request, Sampling, TransformersEngine
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.agents.policy import Base
from onelayer.agents.trained_sets import select
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.rows import TrainingRow, make_rows
from onelayer.trainers.train import train

LAYER, REPLY = 2, 9
PROMPTS = [(1, 7, 9, 30, 44, 5, 6, 8, 12, 13), (3,), (1, 200, 31)]


def played(base: Base, turns: int, conversation: bool, kv_cache_gib: float = 1.0) -> list[TrainingRow]:
    """Rows of groups of three, some of whose rows are learned from, after several turns."""
    engine = TransformersEngine(base.model, base.end_ids, 5, kv_cache_gib)
    episodes = [Episode(index, Play(f"item {index // 3}", index // 3, index)) for index in range(3 * len(PROMPTS))]
    prompts = [list(PROMPTS[index // 3]) for index in range(len(episodes))]
    for turn in range(turns):
        wanted = [
            Request(prompt, 100 * turn + index, Sampling(REPLY), f"session {index}" if conversation else None, LAYER)
            for index, prompt in enumerate(prompts)
        ]
        for done in engine.generate(wanted):
            episode, prompt = episodes[done.index], prompts[done.index]
            seen = (prompt, done.token_ids, done.logprobs, "", "", 0.0, False, {})
            episode.steps.append(Step(*seen, inputs=done.inputs))
            said = [*prompt, *done.token_ids] if conversation else list(PROMPTS[done.index // 3])
            prompts[done.index] = [*said, *[50 + turn] * (1 + done.index % 3)]  # what the environment answers, of several lengths
        engine.end_session("session 4")  # as if forgotten
    advantages = [float(index % 3 - 1) for index in range(len(episodes)) for _ in range(turns)]
    return make_rows(episodes, advantages, TrainerConfig(), REPLY)


@contextmanager
def counted(base: Base) -> Iterator[list[int]]:
    """Numbers of the layers that run inside the `with`."""
    ran: list[int] = []

    def noted(number: int) -> object:
        return lambda *_: ran.append(number)

    layers = decoder_layers(base.model)
    # the layer's own first part runs wherever the layer is not left out
    handles = [next(iter(layer.children())).register_forward_pre_hook(noted(number)) for number, layer in enumerate(layers)]  # pyright: ignore[reportArgumentType]
    yield ran
    for handle in handles:
        handle.remove()


def gradient(base: Base, rows: list[TrainingRow], **settings: object) -> dict[str, torch.Tensor]:
    trained = select(base.model, f"layer:{LAYER}")
    config = Config(trainer=TrainerConfig.model_validate({"trained_set": trained.spec, "lr": 1e-12, "max_grad_norm": 1e9, **settings}))
    learner, found = OffPolicyLearner(base.model, trained, config), {}
    step = learner.optimizer.step
    learner.optimizer.step = lambda: (
        found.update({n: p.grad.clone() for n, p in trained.parameters.items() if p.grad is not None}) or step()
    )
    learner.update(rows)
    learner.optimizer.close()
    return found


@pytest.mark.parametrize(
    ("family", "turns", "conversation"),
    [
        ("qwen3", 2, False),
        *((family, 3, True) for family in ("llama", "mistral, sliding window", "gemma3_text", "gemma4_text", "deepseek_v3", "gpt2")),
    ],
)
def test_the_gradient_is_the_same_and_no_layer_below_runs(family: str, turns: int, conversation: bool) -> None:
    base = random_base(family)
    rows = played(base, turns, conversation)
    assert all(row.inputs for row in rows) and len(rows) == (9 if conversation else 9 * turns)
    without = [replace(row, inputs=None) for row in rows]
    relative = 5e-5 if family == "gemma4_text" else 1e-5
    for settings in ({}, {"kl_coef": 0.1, "epochs": 2, "tokens_per_forward": 60, "checkpoint_layers": True}):
        with counted(base) as ran:
            found = gradient(base, rows, **settings)
        assert ran and min(ran) == LAYER
        with counted(base) as ran:
            assert_equal(found, gradient(base, without, **settings), relative)
        assert min(ran) == 0


def test_rows_beyond_the_memory_are_computed_from_the_first_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    base = random_base("qwen3")
    hidden = 4 * base.model.config.hidden_size
    # ten prompt tokens and two replies of the first group fit, and not much more
    rows = played(base, 1, conversation=False, kv_cache_gib=(sum(map(len, PROMPTS)) + 2 * REPLY) * hidden / 2**30)
    assert any(row.inputs for row in rows) and not all(row.inputs for row in rows)
    assert_equal(gradient(base, rows), gradient(base, [replace(row, inputs=None) for row in rows]))


def test_a_run_with_it_and_one_without(tmp_path: Path) -> None:
    sizes = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "trained_set": "layer:3", "lr": 1e-4, "warmup_steps": 0}
    lines, patches = [], []
    for hand_over in (True, False):
        config = Config(trainer=TrainerConfig.model_validate({**sizes, "hand_over": hand_over}), agent=AgentConfig(max_tokens=24))
        patches.append(load_file(train(config, tmp_path / str(hand_over))))
        lines.append([json.loads(line) for line in (tmp_path / str(hand_over) / "metrics.jsonl").read_text().splitlines()])
    assert any(line["tokens_updated"] for line in lines[0])
    assert all(line["tokens_handed_over"] == line["tokens_updated"] for line in lines[0])
    assert not any(line["tokens_handed_over"] for line in lines[1])
    assert [line["reward"] for line in lines[0]] == [line["reward"] for line in lines[1]]
    for one, other in pairwise(patches):
        assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
