"""Advantages: golden values of GiGPO's authors, and what holds for any rollout."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onelayer.common.errors import UserError
from onelayer.trainers.algorithms import gigpo as gigpo_module
from onelayer.trainers.algorithms.algorithm import Algorithm
from onelayer.trainers.algorithms.dr_grpo import DrGRPO, dr_grpo
from onelayer.trainers.algorithms.earlier import upgraded
from onelayer.trainers.algorithms.gigpo import GiGPO, gigpo, step_groups
from onelayer.trainers.algorithms.grpo import GRPO, grpo
from onelayer.trainers.algorithms.own import Own
from onelayer.trainers.algorithms.steps import Steps, discounted_returns
from onelayer.trainers.config import Config

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "gigpo.json").read_text())


def steps_of(trajectories: list[dict]) -> Steps:
    rows = [
        (float(reward), episode, trajectory["group"], anchor, bool(valid))
        for episode, trajectory in enumerate(trajectories)
        for reward, anchor, valid in zip(trajectory["reward"], trajectory["obs"], trajectory["valid"], strict=True)
    ]
    reward_N, episode_N, group_N, anchor_N, valid_N = zip(*rows, strict=True)
    return Steps(np.array(reward_N), episode_N, group_N, anchor_N, valid_N)


@st.composite
def rollouts(draw: st.DrawFn, one_turn: bool = False) -> Steps:
    number = count()
    trajectories = []
    for group in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(2, 5))):
            length = 1 if one_turn else draw(st.integers(1, 5))
            anchors = ["start"] if one_turn else [draw(st.sampled_from("abc")) for _ in range(length)]
            reward = [0.0] * (length - 1) + [draw(st.sampled_from([0.0, 0.25, 1.0]))]
            valid = [True if one_turn else draw(st.booleans()) for _ in range(length)]
            trajectories.append({"group": group, "obs": anchors, "reward": reward, "valid": valid, "number": next(number)})
    return steps_of(trajectories)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("case", GOLDEN, ids=[case["what"][:40] for case in GOLDEN])
def test_gigpo_has_the_values_of_its_authors(case: dict, scale: bool) -> None:
    name = "mean_std_norm" if scale else "mean_norm"
    settings = {"gamma": case["gamma"], "invalid_penalty": case["invalid_penalty"], "scale": scale, "per_step": case["cross_steps"]}
    steps = steps_of(case["trajectories"])
    both = gigpo(steps, step_weight=case["step_weight"], **settings)
    episode_part = gigpo(steps, step_weight=0, **settings)
    assert both == pytest.approx(np.array(case["expected"][name]), abs=1e-5)
    assert episode_part == pytest.approx(np.array(case["episode_part"][name]), abs=1e-5)
    assert both - episode_part == pytest.approx(np.array(case["step_part"][name]), abs=1e-5)


@given(rollouts(one_turn=True))
def test_in_one_turn_gigpo_is_grpo_and_with_its_steps_twice_that(steps: Steps) -> None:
    same_epsilon = grpo(steps) * 0 + gigpo(steps, step_weight=0)
    assert gigpo(steps, step_weight=1) == pytest.approx(2 * same_epsilon)
    assert same_epsilon == pytest.approx(grpo(steps), rel=2e-3, abs=1e-9)  # but for the epsilon: 1e-6 and 1e-4 beside a std of 0.1 or more
    assert gigpo(steps, step_weight=0, scale=False) == pytest.approx(dr_grpo(steps))


@given(rollouts())
def test_equal_rewards_give_no_signal(steps: Steps) -> None:
    last = {episode: at for at, episode in enumerate(steps.episode_N)}
    won = np.array([float(last[episode] == at) for at, episode in enumerate(steps.episode_N)])
    equal = replace(steps, reward_N=won, valid_N=[True] * len(won))
    assert not grpo(equal).any() and not dr_grpo(equal).any()
    assert not gigpo(equal, gamma=1.0).any()


@given(rollouts())
def test_an_invalid_action_costs_its_own_step_alone_also_with_the_papers_statistics(steps: Steps) -> None:
    valid = replace(steps, valid_N=[True] * len(steps.valid_N))
    invalid_N = ~np.array(steps.valid_N)
    for scale in (True, False):
        settings = {"step_weight": 0, "per_step": False, "scale": scale}
        found, without = gigpo(steps, **settings), gigpo(valid, **settings)
        assert found[~invalid_N] == pytest.approx(without[~invalid_N])
        assert (found[invalid_N] < without[invalid_N]).all()
        assert (np.abs(found) < 10).all()  # where all returns are equal, nothing is divided by a deviation of nothing


@given(rollouts())
@example(
    Steps(
        np.array([0, 0, 0, 0, 0, 0.25]),
        (0, 1, 1, 1, 1, 1),
        (0,) * 6,
        ("a", "b", "b", "a", "a", "a"),
        (False, True, False, False, False, False),
    )
)
def test_the_penalty_is_relative_to_the_reward_of_a_win(steps: Steps) -> None:
    """The authors' 10 for a win and 0.1 for an invalid action are 1 and 0.01 here; without the deviation, at a tenth of the scale."""
    theirs = replace(steps, reward_N=10 * steps.reward_N)
    for per_step in (True, False):
        mine = gigpo(steps, invalid_penalty=0.01, per_step=per_step, scale=False)
        assert gigpo(theirs, invalid_penalty=0.1, per_step=per_step, scale=False) == pytest.approx(10 * mine, abs=1e-9)
    with pytest.MonkeyPatch.context() as patch:  # but for the epsilon, which a small deviation feels
        patch.setattr(gigpo_module, "EPSILON", 1e-9)
        assert gigpo(theirs, invalid_penalty=0.1) == pytest.approx(gigpo(steps, invalid_penalty=0.01), rel=1e-3, abs=1e-3)


@given(rollouts(), st.randoms(use_true_random=False))
def test_the_order_of_the_episodes_does_not_matter(steps: Steps, random: object) -> None:
    episodes = sorted(set(steps.episode_N))
    random.shuffle(episodes)  # type: ignore[attr-defined]
    order = [at for episode in episodes for at, mine in enumerate(steps.episode_N) if mine == episode]
    moved = Steps(
        steps.reward_N[order],
        [steps.episode_N[at] for at in order],
        [steps.group_N[at] for at in order],
        [steps.anchor_N[at] for at in order],
        [steps.valid_N[at] for at in order],
    )
    for advantages in (grpo, dr_grpo, gigpo):
        assert advantages(moved) == pytest.approx(advantages(steps)[order])


@given(rollouts())
def test_advantages_sum_to_zero_in_a_group_and_step_groups_never_cross_groups(steps: Steps) -> None:
    scores = dict(zip(steps.episode_N, dr_grpo(steps), strict=True))
    for group in set(steps.group_N):
        mine = {episode for episode, its in zip(steps.episode_N, steps.group_N, strict=True) if its == group}
        assert sum(scores[episode] for episode in mine) == pytest.approx(0, abs=1e-9)
    keys = step_groups(steps)
    alone = [keys.count(key) == 1 for key in keys]
    step_part = gigpo(steps, invalid_penalty=0) - gigpo(steps, invalid_penalty=0, step_weight=0)
    assert step_part[alone] == pytest.approx(0, abs=1e-12)
    assert all(key[0] == group for key, group in zip(keys, steps.group_N, strict=True))  # type: ignore[index]


def test_a_users_own_function_gets_the_steps_and_returns_their_advantages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_algorithms.py").write_text(
        "def signs(steps, power=1):\n    return [power if reward > 0 else -power for reward in steps.reward_N]\n"
        "def short(steps):\n    return [0.0]\n"
        "def failing(steps):\n    raise KeyError('no such thing')\n"
        "NUMBER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    steps = steps_of([{"group": 0, "obs": "ab", "reward": [0, 1], "valid": [1, 1]}, {"group": 0, "obs": "a", "reward": [0], "valid": [1]}])
    assert Own(name="my_algorithms:signs", options={"power": 2}).advantages(steps).tolist() == [-2, 2, -2]
    for name, message in {
        "my_algorithms:short": "must return one finite number for each of 3 steps",
        "my_algorithms:failing": "raised KeyError: 'no such thing'; correct the function",
        "my_algorithms:missing": "my_algorithms has no function missing",
        "my_algorithms:NUMBER": "my_algorithms has no function NUMBER",
        "my_missing:signs": "my_missing: cannot be imported",
    }.items():
        with pytest.raises(UserError, match=message):
            Own(name=name).advantages(steps)


OLD_KEYS = {"gamma": 0.95, "step_weight": 1.0, "invalid_penalty": 0.0, "similarity": 1.0, "per_step_statistics": True}


@pytest.mark.parametrize(
    ("name", "scale", "weights", "now"),
    [
        ("grpo", True, "sequence_mean", GRPO()),
        ("grpo", True, "token_mean", GRPO(loss_weights="token_mean")),
        ("dr_grpo", False, "constant", DrGRPO()),
        ("grpo", False, "constant", DrGRPO()),
        ("gigpo", True, "token_mean", GiGPO(invalid_penalty=0.0)),
        ("dr_grpo", False, "token_mean", Own(name="onelayer.trainers.algorithms.dr_grpo:dr_grpo", loss_weights="token_mean")),
        ("grpo", True, "constant", Own(name="onelayer.trainers.algorithms.grpo:grpo", loss_weights="constant")),
    ],
)
def test_recipes_of_earlier_releases_are_read_as_what_they_were(name: str, scale: bool, weights: str, now: Algorithm) -> None:
    old = {"name": "old", "trainer": {"algorithm": name, "lr": 1e-4, "scale_advantages": scale, "loss_weights": weights, **OLD_KEYS}}
    config = Config.model_validate(upgraded(old))
    assert (config.trainer.algorithm, config.trainer.lr, config.name) == (now, 1e-4, "old")
    recipe = config.model_dump(mode="json")
    assert upgraded(recipe) == recipe
    steps = steps_of([{"group": 0, "obs": "a", "reward": [reward], "valid": [1]} for reward in (0, 0, 1)])
    expected = gigpo(steps, invalid_penalty=0) if name == "gigpo" else grpo(steps) if scale else dr_grpo(steps)
    assert now.advantages(steps).tolist() == expected.tolist()


def test_returns_are_discounted_along_each_episode() -> None:
    steps = steps_of(
        [{"group": 0, "obs": "abc", "reward": [1, 0, 4], "valid": [1, 1, 1]}, {"group": 0, "obs": "a", "reward": [3], "valid": [1]}]
    )
    assert discounted_returns(steps, 0.5).tolist() == [2.0, 2.0, 4.0, 3.0]


def test_similar_observations_are_grouped_first_fit() -> None:
    near, nearer, far = "You see a mug and a plate on the desk.", "You see a mug and a plate on the desk!", "It is dark."
    steps = steps_of([{"group": 0, "obs": [near, far, nearer], "reward": [0, 0, 1], "valid": [1, 1, 1]}])
    assert step_groups(steps, 0.95) == [(0, 0), (0, 1), (0, 0)]
    assert len(set(step_groups(steps))) == 3
