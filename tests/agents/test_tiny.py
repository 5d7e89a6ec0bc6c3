"""The tiny base is a fair stand-in: it can solve the task but mostly does not, sampled or greedy."""

from __future__ import annotations

from collections import Counter

import torch
from safetensors import safe_open

from onelayer.agents import tiny
from onelayer.agents.agent import derive_seed, make_agent
from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import Sampling
from onelayer.agents.episodes import Play, play
from onelayer.agents.policy import decoder_layers, load_base
from onelayer.envs import MathConfig, load
from onelayer.envs.config import PoolConfig
from onelayer.envs.pool import open_pool


def test_it_is_small_and_stored_in_bfloat16():
    assert sum(file.stat().st_size for file in tiny.PATH.iterdir()) < 8_000_000
    with safe_open(tiny.PATH / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    base = load_base(ModelConfig())
    assert 6 <= len(decoder_layers(base.model)) <= 8
    assert base.tokenizer.chat_template


def test_it_can_but_mostly_does_not():
    agent, config = make_agent(load_base(ModelConfig()), AgentConfig(), MathConfig()), MathConfig()
    pool, ids = open_pool(config, "test", PoolConfig()), [item.id for item in load(config, "test").items[:256]]
    rates = {}
    for temperature in (1.0, 0.0):
        plays = [Play(item, group, derive_seed(item, sample)) for group, item in enumerate(ids) for sample in range(4)]
        episodes = list(play(agent, pool, plays, Sampling(40, temperature)))
        rates[temperature] = sum(episode.reward for episode in episodes) / len(episodes)
        solved = Counter(episode.play.item for episode in episodes if episode.reward)
        if temperature:
            assert len(solved) > 0.6 * len(ids), "most items are within reach"
    assert 0.20 <= rates[1.0] <= 0.50
    assert rates[0.0] <= 0.60
