"""What environments lose: who is left to learn from, and when a run stops."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from onelayer.agents.episodes import Episode, Play, Step
from onelayer.envs import UserError
from onelayer.envs.pool_env import ACTION_ERROR
from onelayer.trainers.config import TrainerConfig
from onelayer.trainers.rows import TrainingRow, make_rows, survivors
from onelayer.trainers.train import LostEpisodes, advantages


def episodes(groups: int, size: int, lost: set[int]) -> list[Episode]:
    step = Step([1], [2, 3], [-1.0, -1.0], "r", "r", 1.0, False, {})
    return [
        Episode(
            index, Play(f"item {index // size}", index // size, index), [step] * (1 + index % 2), error="broke" if index in lost else None
        )
        for index in range(groups * size)
    ]


def to_rows(episodes: list[Episode]) -> list[TrainingRow]:
    return make_rows(episodes, advantages(episodes, TrainerConfig()), TrainerConfig(), 4)


def test_the_lost_and_the_lonely_are_left_out() -> None:
    played = episodes(3, 3, {0, 3, 4})
    left = survivors(played)
    assert [episode.index for episode in left] == [1, 2, 6, 7, 8]
    rows = to_rows(left)
    assert sum(sum(row.weights) for row in rows) == pytest.approx(1)  # weights are those of what is left
    whole = [episode for episode in played if episode.play.group == 2]
    assert [row.advantages for row in to_rows(whole)] == [row.advantages for row in rows if row.group == 2]


def steps_until_stop(groups: int, size: int, share: float, steps: int, seed: int = 0) -> int | None:
    rng, losses = random.Random(seed), LostEpisodes()
    for step in range(steps):
        lost = {index for index in range(groups * size) if rng.random() < share}
        try:
            losses.watch(step, iter(episodes(groups, size, lost)), groups * size)
        except UserError:
            return step
    return None


def test_more_than_five_percent_of_a_step_stop_it_at_once() -> None:
    assert len(LostEpisodes().watch(0, iter(episodes(32, 8, set(range(0, 120, 10)))), 256)) == 256  # 12
    came = []
    told = r"^step 3: environments failed in 13 of the last 256 episodes, more than 5%; first: broke; correct the environment$"
    with pytest.raises(UserError, match=told):
        LostEpisodes().watch(3, (came.append(one) or one for one in episodes(32, 8, set(range(0, 130, 10)))), 256)
    assert len(came) == 121  # the rest was not waited for


@pytest.mark.parametrize(("groups", "size"), [(2, 4), (4, 8), (8, 8), (32, 8)])
def test_ten_percent_stop_a_run_and_two_do_not(groups: int, size: int) -> None:
    steps = 2000 // (groups * size)
    assert all(steps_until_stop(groups, size, 0.10, steps, seed) is not None for seed in range(10))
    stopped = [steps_until_stop(groups, size, 0.02, steps, seed) for seed in range(30)]
    assert sum(step is not None for step in stopped) <= 2


def test_one_failure_never_stops_a_run_and_no_group_left_does() -> None:
    for _ in range(3):
        assert survivors(LostEpisodes().watch(0, iter(episodes(1, 2, {1})), 2)) == []
    with pytest.raises(UserError, match="2 of 4 episodes, and no group is left"):
        LostEpisodes().watch(0, iter(episodes(2, 2, {0, 3})), 4)


def blamed(groups: int, size: int, share: float) -> list[Episode]:
    """Episodes of which a share ended in an error of the environment that the pool has put down to the action."""
    found = episodes(groups, size, set())
    for episode in found[: int(share * len(found))]:
        episode.steps = [replace(episode.steps[-1], reward=0.0, info={"verdict": ACTION_ERROR, "error": "KeyError: 'answer' (grade.py:7)"})]
    return found


def test_an_environment_that_raises_on_every_reply_stops_the_run_and_one_on_many_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    told = r"^step 1: environments failed in each of 32 episodes on the model's reply; first: KeyError: 'answer' \(grade.py:7\); correct"
    with pytest.raises(UserError, match=told):
        LostEpisodes().watch(1, iter(blamed(4, 8, 1.0)), 32)
    assert not caplog.records
    assert len(LostEpisodes().watch(1, iter(blamed(4, 8, 0.5)), 32)) == 32
    assert "raised on 16 of 32 replies, which get 0; first: KeyError: 'answer' (grade.py:7)" in caplog.text
    caplog.clear()
    LostEpisodes().watch(1, iter(blamed(4, 8, 0.04)), 32)
    assert not caplog.records
