"""The tiny bases are a fair stand-in: they can solve the tasks of all three domains but mostly do not, sampled or greedy."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open

from onelayer.agents import tiny
from onelayer.agents.agent import make_agent
from onelayer.agents.config import ModelConfig
from onelayer.agents.decoder import decoder_layers
from onelayer.agents.engine import Sampling
from onelayer.agents.episodes import Play, play
from onelayer.agents.policy import load_base
from onelayer.cli.config import load as load_recipe
from onelayer.common.seeds import derive_seed
from onelayer.envs import load
from onelayer.envs.pool import open_pool


def test_together_they_are_small():
    assert sum(file.stat().st_size for folder in tiny.PATHS.values() for file in folder.iterdir()) < 8_000_000


@pytest.mark.parametrize("name", tiny.PATHS)
def test_it_is_stored_in_bfloat16_with_a_chat_template(name: str):
    with safe_open(tiny.PATHS[name] / "model.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    base = load_base(ModelConfig(path=name))
    assert sum(parameter.numel() for parameter in base.model.parameters()) < 3_000_000
    assert 6 <= len(decoder_layers(base.model)) <= 8
    assert base.tokenizer.chat_template


@pytest.mark.parametrize(
    ("recipe", "items", "samples"),
    [("math", 256, 4), ("code", 256, 4), pytest.param("alfworld", 128, 2, marks=pytest.mark.alfworld)],
)
def test_it_can_but_mostly_does_not(recipe: str, items: int, samples: int):
    config = load_recipe(recipe)
    agent = make_agent(load_base(config.model), config.agent, config.env)
    ids = [item.id for item in load(config.env, "test").items[:items]]
    rates = {}
    with open_pool(config.env, "test", config.pool) as pool:
        for temperature, each in ((1.0, samples), (0.0, 1)):
            plays = [Play(item, group, derive_seed(item, sample)) for group, item in enumerate(ids) for sample in range(each)]
            episodes = list(play(agent, pool, plays, Sampling(agent.config.reply_length, temperature)))
            rates[temperature] = sum(episode.reward for episode in episodes) / len(episodes)
            assert all(len(step.prompt_ids) < 400 for episode in episodes for step in episode.steps)
            if temperature:
                solved = {episode.play.item for episode in episodes if episode.reward}
                assert len(solved) / len(ids) > 1.3 * rates[1.0], "samples of an item differ: a group has something to teach"
    assert 0.20 <= rates[1.0] <= 0.60
    assert rates[0.0] <= 0.55
