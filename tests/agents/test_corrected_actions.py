"""Actions that an environment took in another spelling: recorded as they were played, and counted."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from onelayer.agents.agent import Agent
from onelayer.agents.baselines import Scripted
from onelayer.agents.config import AgentConfig
from onelayer.agents.engine import Completion, FinishReason, Sampling
from onelayer.agents.episodes import Play, play
from onelayer.envs.pool import Pool
from onelayer.evals.evaluator import summarise
from onelayer.evals.samples import Sample, columns_of, read_samples, write_samples
from onelayer.trainers.train import rollout_metrics


class Spelled(gym.Env[str, str]):
    """Three steps; takes `look` in any case. An item says what `info["played"]` holds instead."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        self.item, self.count = (options or {})["item"], 0
        return "start", {"admissible": ["look"]}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.count += 1
        over = self.count == 3
        played = {"played": action.lower()} if action != action.lower() else {}
        if self.item == "cards":
            played = {"played": ["ace", 2]}  # an environment's own meaning of the word
        return f"seen {self.count}", float(over), over, False, {"admissible": ["look"], **played}


def episodes(item: str) -> list[Any]:
    player = Scripted("any case", lambda item, seed: lambda admissible, turn: ["look", "LOOK", "Look"][turn])
    with Pool(Spelled) as pool:
        return list(play(player, pool, [Play(item, number, number) for number in range(2)], Sampling(8)))


def test_an_action_is_recorded_as_it_was_played_and_the_share_is_a_figure_of_its_own(tmp_path: Any) -> None:
    played = episodes("a")
    assert [step.action for step in played[0].steps] == ["look"] * 3
    assert [step.response for step in played[0].steps] == ["look", "LOOK", "Look"], "the reply stays what it was"
    assert [step.corrected for step in played[0].steps] == [False, True, True]
    metrics = rollout_metrics(played, [])
    assert metrics["corrected_actions"] == pytest.approx(2 / 3) and metrics["valid_actions"] == 1
    more: dict[str, Any] = {"decoding": "greedy", "type": None, "sample": 0}
    made = [columns_of(one, lambda ids: "", False) | {"key": f"k{one.index}", "item": f"i{one.index}"} for one in played]
    samples = [Sample.model_validate(more | one) for one in made]
    assert summarise(samples).corrected == pytest.approx(2 / 3)
    write_samples(tmp_path / "samples.parquet", samples)
    assert read_samples(tmp_path / "samples.parquet") == samples
    assert np.mean([bool(step.corrected) for sample in samples for step in sample.steps]) == pytest.approx(2 / 3)


def test_another_meaning_of_the_key_changes_nothing() -> None:
    played = episodes("cards")
    assert [step.action for step in played[0].steps] == ["look", "LOOK", "Look"]
    assert rollout_metrics(played, [])["corrected_actions"] == 0


def test_the_history_in_a_prompt_has_what_was_played() -> None:
    class Characters:
        chat_template = None

        def encode(self, text: str) -> list[int]:
            return list(map(ord, text))

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return "".join(map(chr, ids))

    agent: Any = Agent(None, Characters(), AgentConfig(), "{history}{observation}", history=2)  # type: ignore[arg-type]
    window = agent.begin("an item", 0)
    window.hear("start", {"admissible": ["look"]})
    window.say(Completion(0, list(map(ord, "<Action>LOOK</Action>")), [], FinishReason.STOP))
    prompt = window.hear("seen", {"admissible": ["look"], "played": "look"})
    assert prompt and "".join(map(chr, prompt)) == "Observation: start\nAction: look\nseen"
