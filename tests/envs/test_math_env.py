"""onelayer/Math-v0 as a Gymnasium user meets it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from onelayer.envs import MathConfig, UserError, load, make, parse_suite


def test_passes_the_environment_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(MathConfig(), "train").unwrapped)


def test_one_episode() -> None:
    env = gym.make("onelayer.envs:onelayer/Math-v0", suite="arithmetic", split="test")
    item = load(MathConfig(), "test").items[7]
    question, info = env.reset(options={"item": item.id})
    assert (question, info) == (item.question, {"item": item.id, "anchor": item.question})
    right, wrong = item.gold, str(int(item.gold) + 1)
    for response, reward, verdict, answer in (
        (f"It is \\boxed{{{right}}}", 1.0, "correct", right),
        (f"\\boxed{{{wrong}}}", 0.0, "wrong", wrong),
        ("I do not know", 0.0, "unparsed", None),
    ):
        env.reset(options={"item": item.id})
        observation, *outcome, info = env.step(response)
        assert (observation, *outcome) == (item.question, reward, True, False)
        expected = {"item": item.id, "verdict": verdict, "answer": answer, "valid": answer is not None, "anchor": item.question}
        expected["gold"] = item.gold
        assert info == expected


def test_a_wrong_answer_comes_back_until_the_turns_are_used_up() -> None:
    env = make(MathConfig(max_turns=3), "test")
    item = load(MathConfig(), "test").items[7]
    wrong = str(int(item.gold) + 1)
    env.reset(options={"item": item.id})
    observation, reward, over, _, info = env.step(f"\\boxed{{{wrong}}}")
    assert (reward, over, info["anchor"]) == (0.0, False, observation)
    assert observation.startswith(item.question) and observation.endswith(f"wrong: {wrong}")
    observation, *_ = env.step("no idea")
    assert observation == f"{item.question}\n\nYour last reply held no answer."
    assert env.step(f"\\boxed{{{item.gold}}}")[1:4] == (1.0, True, False)
    env.reset(options={"item": item.id})
    assert [env.step("")[2] for _ in range(3)] == [False, False, True]
    with pytest.raises(UserError, match="turns are used up"):
        env.step("")


def test_the_seed_decides_the_item() -> None:
    first, second = make(MathConfig(), "train"), make(MathConfig(), "train")

    def draws(env: gym.Env) -> list[str]:
        return [env.reset(seed=3)[1]["item"], *(env.reset()[1]["item"] for _ in range(20))]

    assert draws(first) == draws(second) == draws(first)
    assert len(set(draws(first))) > 15


def test_an_unknown_item_names_the_nearest() -> None:
    env = make(MathConfig(), "test")
    known = load(MathConfig(), "test").items[0].id
    with pytest.raises(UserError, match=f"no item.*{known}"):
        env.reset(options={"item": known[:-1]})


def test_the_split_is_shared_between_environments() -> None:
    assert make(MathConfig(), "test").get_wrapper_attr("split") is load(*parse_suite("arithmetic"))


def test_importing_the_room_is_light() -> None:
    program = "import sys, onelayer.envs; print([m for m in ('torch', 'sympy', 'math_verify', 'datasets', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
