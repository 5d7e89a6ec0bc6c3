"""What a step learns from, and what stops a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from onelayer.agents.baselines import Silent
from onelayer.agents.config import AgentConfig
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.envs import UserError
from onelayer.envs.items import Item, Split
from onelayer.trainers import train as training
from onelayer.trainers.algorithms.gigpo import GiGPO
from onelayer.trainers.config import Config, TrainerConfig
from onelayer.trainers.manifest import read_manifest
from onelayer.trainers.train import Group, LostEpisodes, rollout, rollout_metrics, scored, train

TIMES = {"rollout_seconds", "update_seconds", "sync_seconds", "tokens_per_second"}


def step_of(reward: float, anchor: str = "") -> Step:
    return Step([1], [2, 3], [-1.0, -1.0], "r", "r", reward, False, {}, anchor)


class Table:
    """Plays by the items' names: "mixed" ones are solved every other time, others never. Keeps what was asked for."""

    def __init__(self) -> None:
        self.rounds: list[list[Play]] = []

    def __call__(self, agent: object, pool: object, plays: Sequence[Play], sampling: object, inputs_of: object) -> Iterator[Episode]:
        self.rounds.append(list(plays))
        for index, play in reversed(list(enumerate(plays))):
            yield Episode(index, play, [step_of(float("mixed" in play.item and index % 2))])


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    table = Table()
    monkeypatch.setattr(training, "play", table)
    return table


def roll(items: Sequence[str], step: int = 0, **settings: object) -> tuple[list[Episode], list[Group]]:
    split = Split("some", tuple(Item(item, "", "") for item in items))
    sizes = {"prompts_per_step": 6, "group_size": 4} | settings
    unused: Any = None
    config = Config(trainer=TrainerConfig.model_validate(sizes), agent=AgentConfig(max_tokens=4))
    return rollout(unused, unused, split, config, step, LostEpisodes())


ITEMS = [f"mixed {number}" if number % 3 == 0 else f"hard {number}" for number in range(60)]


def test_groups_without_an_advantage_make_way_for_others(table: Table) -> None:
    once, plain = roll(ITEMS)
    assert len(once) == 24 and sum(group.has_signal for group in plain) < 6
    played, groups = roll(ITEMS, dynamic_sampling=20)
    assert len(groups) == 6 and all(group.has_signal for group in groups)
    first, *further = table.rounds[1:]
    assert first == table.rounds[0]  # the step's own items come first, as without it
    assert [group.episodes for group in groups][: len([g for g in plain if g.has_signal])] == [g.episodes for g in plain if g.has_signal]
    items = [plays[::4] for plays in (first, *further)]
    names = [play.item for plays in items for play in plays]
    assert len(set(names)) == len(names)  # no item twice, as long as there are others
    kept = 0
    for before, after in pairwise(items):  # each round plays as many as are missing
        kept += sum("mixed" in play.item for play in before)
        assert len(after) == 6 - kept
    assert [episode.index for episode in played] == list(range(len(played)))
    assert [episode.play.group for episode in played] == [index // 4 for index in range(len(played))]
    metrics = rollout_metrics(played, groups)
    assert metrics["groups_sampled"] == len(names) and metrics["groups_kept"] == 6
    assert metrics["tokens"] == 2 * len(played) == 8 * len(names)  # all that was sampled
    assert metrics["reward"] == pytest.approx(sum("mixed" in name for name in names) / len(names) / 2)


def test_further_rollouts_are_the_same_again_and_come_to_an_end(table: Table) -> None:
    roll(ITEMS, step=3, dynamic_sampling=2)
    roll(ITEMS, step=3, dynamic_sampling=2)
    assert table.rounds[:3] == table.rounds[3:]
    roll(ITEMS, step=4, dynamic_sampling=2)
    assert table.rounds[6:][1] != table.rounds[1]
    table.rounds.clear()
    played, groups = roll(["hard 1", "hard 2"], dynamic_sampling=2)
    assert [len(plays) for plays in table.rounds] == [24, 24, 24]
    assert len(groups) == 6 and len(played) == 72  # those without a better one stay: a batch is always as large
    assert len({play.seed for plays in table.rounds for play in plays}) == 72


def test_it_is_advantages_that_count_and_not_returns() -> None:
    """Wins of different length: equal returns, and yet under gigpo the quicker one from the same place is the better."""
    play = Play("item", 0, 0)
    quick = Episode(0, play, [step_of(0, "start"), step_of(1, "near")])
    slow = Episode(1, play, [step_of(0, "start"), step_of(0, "far"), step_of(1, "near")])
    (group,) = scored([quick, slow], TrainerConfig(algorithm=GiGPO()))
    assert group.has_signal
    (group,) = scored([quick, slow], TrainerConfig(algorithm=GiGPO(gamma=1)))
    assert not group.has_signal
    (group,) = scored([quick, slow], TrainerConfig())
    assert not group.has_signal
    parts = [Episode(2, play, [step_of(part) for part in (0.1, 0.2, 0.7)]), Episode(3, play, [step_of(part) for part in (0.7, 0.2, 0.1)])]
    assert not scored(parts, TrainerConfig())[0].has_signal  # though their sums differ in the last bit


def test_a_run_with_dynamic_sampling_is_the_same_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"steps": 4, "prompts_per_step": 4, "group_size": 3, "checkpoint_every": 2, "trained_set": "layer:3", "lr": 1e-3}
    config = Config(trainer=TrainerConfig.model_validate({**sizes, "dynamic_sampling": 3}), agent=AgentConfig(max_tokens=12))
    train(config, tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert any(line["groups_sampled"] > 4 for line in lines)
    assert all(line["episodes"] == 3 * line["groups_sampled"] for line in lines)

    class Killed(BaseException):
        pass

    play, calls = training.play, iter(range(1000))
    last = sum(1 + (line["groups_sampled"] > 4) for line in lines[:3])

    def dying(*arguments: Any) -> Iterator[Episode]:
        if next(calls) == last:
            raise Killed
        return play(*arguments)

    monkeypatch.setattr(training, "play", dying)
    with pytest.raises(Killed):
        train(config, tmp_path / "killed")
    monkeypatch.setattr(training, "play", play)
    train(config, tmp_path / "killed", resume=True)
    assert (tmp_path / "killed" / "patch.safetensors").read_bytes() == (tmp_path / "whole" / "patch.safetensors").read_bytes()
    again = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [{**line, **dict.fromkeys(TIMES)} for line in again] == [{**line, **dict.fromkeys(TIMES)} for line in lines]


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (AgentConfig(max_prompt=3), r"^arithmetic/train: every prompt .* is longer than agent.max_prompt, 3 tokens; raise it, or shorten"),
        (
            AgentConfig(max_tokens=2044),
            r"^arithmetic/train: .* longer than the 4 tokens that the model takes beside a reply of agent.max_tokens \(2044\); lower it",
        ),
        (AgentConfig(max_tokens=3072), r"^agent.max_tokens is 3072, and the model takes 2048 tokens, .*; set it to 1024 or less"),
    ],
)
def test_prompts_that_no_reply_fits_are_refused_before_the_first_episode(agent: AgentConfig, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(Config(trainer=TrainerConfig(prompts_per_step=2, group_size=2), agent=agent), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def short(**agent: Any) -> Config:
    return Config(trainer=TrainerConfig(steps=2, prompts_per_step=2, group_size=2), agent=AgentConfig(**agent))


def test_a_run_without_any_advantage_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reply of one token is never right: all groups are paid alike."""
    train(short(max_tokens=1), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert manifest and manifest.no_signal and manifest.truncated == 1
    (warning,) = [record.getMessage() for record in caplog.records]  # told once
    assert (
        warning
        == f"{tmp_path / 'run'}: step 0: 100% of the replies were cut off at agent.max_tokens=1, so their answers are not known; raise it"
    )


def test_the_length_of_replies_is_written_where_the_recipe_leaves_it_open(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(short(), tmp_path / "run")
    manifest = read_manifest(tmp_path / "run")
    assert (
        manifest and manifest.config.model_dump()["agent"]["max_tokens"] == 40 and not manifest.no_signal and manifest.truncated is not None
    )
    assert "  max_tokens: 40\n" in (tmp_path / "run" / "config.yaml").read_text()
    train(short(max_tokens=40), tmp_path / "run", resume=True)  # the very same run
    assert not caplog.records


def test_an_engine_without_tokens_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_agent = training.make_agent

    def without_tokens(*arguments: Any) -> Any:
        agent = make_agent(*arguments)
        agent.engine = Silent()
        return agent

    monkeypatch.setattr(training, "make_agent", without_tokens)
    with pytest.raises(UserError, match=r"^training learns from the tokens that were sampled, and Silent returns only their text; take an"):
        train(Config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
