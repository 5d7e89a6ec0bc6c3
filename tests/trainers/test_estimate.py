"""The estimate of a run against what the learner and the engine really hold."""

from __future__ import annotations

import pytest
import torch

from onelayer.agents.config import ModelConfig
from onelayer.agents.engine import Request, Sampling, in_model
from onelayer.agents.policy import Base, load_base
from onelayer.agents.trained_sets import select
from onelayer.trainers.config import Config
from onelayer.trainers.estimate import estimate, fullest, lengths, state_of
from onelayer.trainers.learner import Learner, Totals
from onelayer.trainers.traced import Ledger

PROMPT = 30


@pytest.fixture
def base() -> Base:
    return load_base(ModelConfig())


def config_of(trained_set: str, **trainer: object) -> Config:
    settings = {"trained_set": trained_set, "prompts_per_step": 4, "group_size": 8, **trainer}
    return Config.model_validate({"agent": {"max_tokens": 40}, "trainer": settings})


@pytest.mark.parametrize(
    ("trained_set", "options"),
    [
        *((name, {}) for name in ("layer:3", "full", "head", "random:5000")),
        *((name, {"kl_coef": 0.1}) for name in ("layer:3", "lora:4")),
        ("layers:0,5", {"checkpoint_layers": True}),
    ],
    ids=str,
)
def test_the_update_holds_what_was_estimated(base: Base, trained_set: str, options: dict[str, object]) -> None:
    config = config_of(trained_set, **options)
    found = estimate(config, base.model.config, PROMPT)
    trained = select(base.model, trained_set)
    with trained.attached(0):
        learner = Learner(base.model, trained, config)
        held, moments = state_of(learner)
        there = [*base.model.parameters(), *base.model.buffers(), *held]
        with Ledger(there, base.model.config.vocab_size) as ledger:
            learner.backward(fullest(learner, lengths(config, PROMPT, 1, 1024), config.trainer), Totals())
        learner.optimizer.close()
    places = sum(chosen.nbytes for chosen in trained.places.values())
    assert found.update and sum(tensor.nbytes for tensor in held) + moments + places == found.update.trained
    constants = found.episodes * (PROMPT + 40) * base.model.config.hidden_size * 4 if learner.inputs_of is not None else 0  # handed over
    assert ledger.peak_other + constants == pytest.approx(found.update.activations, rel=0.02)
    assert ledger.peak_head == pytest.approx(found.update.head, rel=0.02)
    assert found.trained_parameters == trained.count


def test_the_engine_caches_what_was_estimated(base: Base) -> None:
    config = config_of("layer:3")
    engine = in_model(base, config.agent)
    list(engine.generate(Request([7] * PROMPT, seed, Sampling(40)) for seed in range(32)))
    assert engine._cache is not None
    held = [*engine._cache.keys.values(), *engine._cache.values.values()]
    rollout = estimate(config, base.model.config, PROMPT).rollout
    assert rollout and rollout.keys_and_values == sum(states.nbytes for states in held)


def test_lengths_of_an_episode() -> None:
    def found(**agent: object) -> tuple[list[int], list[int]]:
        config = Config.model_validate({"agent": {"max_tokens": 40, **agent}})
        made = lengths(config, PROMPT, 3, 200)
        return made.prompts, made.replies

    assert found(history=0) == ([30, 30, 30], [40, 40, 40])
    assert found(history=1) == ([30, 100, 100], [40, 40, 40])
    assert found(history="full") == ([30], [170])  # three replies and two observations are 180, and the model takes 200 in all
    assert found(history=1, max_prompt=50) == ([30, 50, 50], [40, 40, 40])


@pytest.mark.parametrize("family", ["Qwen3MoeConfig", "MixtralConfig"])
def test_mixtures_of_experts(family: str) -> None:
    import transformers

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape = getattr(transformers, family)(**sizes, vocab_size=512, head_dim=16, max_position_embeddings=512)
    config = config_of("layer:1")
    found = estimate(config.model_copy(update={"model": config.model.model_copy(update={"dtype": "bfloat16"})}), shape, PROMPT)
    assert found.update and found.update.activations > 0
    assert torch.get_default_dtype() == torch.float32
