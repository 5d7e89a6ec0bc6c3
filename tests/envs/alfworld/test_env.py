"""onelayer/ALFWorld-v0 as a Gymnasium user meets it."""

from __future__ import annotations

import random
import sys
import warnings
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from onelayer.envs import UserError
from onelayer.envs.alfworld.env import ALFWorldEnv

pytestmark = pytest.mark.alfworld
INFO = {"item", "type", "admissible", "anchor", "task"}


def walk(env: ALFWorldEnv, item: str, steps: int = 30) -> list[Any]:
    """A random walk, the same for the same item."""
    rng = random.Random(item)
    told: list[Any] = [env.reset(options={"item": item})]
    for _ in range(steps):
        info = told[-1][-1]
        if "verdict" in info:
            break
        told.append(env.step(info["admissible"][int(rng.random() * len(info["admissible"]))]))
    return told


def test_passes_the_environment_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("onelayer.envs:onelayer/ALFWorld-v0", disable_env_checker=True).unwrapped)


def test_an_episode_won_by_the_walkthrough() -> None:
    env = ALFWorldEnv(split="valid_unseen")
    for item in list(env.items)[:6]:
        observation, info = env.reset(options={"item": item})
        assert observation.startswith("-= Welcome to TextWorld, ALFRED! =-") and "Your task is to: " in observation
        assert set(info) == INFO and info["anchor"] == observation and info["admissible"] == sorted(info["admissible"])
        *before, last = env.gold(item)
        for command in before:
            observation, reward, terminated, truncated, info = env.step(command)
            assert (reward, terminated, truncated) == (0.0, False, False)
            assert set(info) == INFO | {"valid", "won"} and info["valid"] and not info["won"] and info["anchor"] == observation
        _, reward, terminated, truncated, info = env.step(last)
        assert (reward, terminated, truncated) == (1.0, True, False)
        assert (info["verdict"], info["won"], info["item"], info["type"]) == ("correct", True, item, env.items[item].meta["type"])
        with pytest.raises(UserError, match="after the end"):
            env.step("look")


def test_a_lost_episode_ends_after_max_steps() -> None:
    env = ALFWorldEnv(max_steps=3)
    env.reset(seed=0)
    told = [env.step("look") for _ in range(3)]
    assert [step[1:4] for step in told] == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    assert told[-1][4]["verdict"] == "wrong"


BAD = ["", " ", "\n", "look\x00", "go to", "go to drawer 999", "x" * 10_000_000, "look " * 1000, "ё" * 400, "\ud800"]
BAD += ["look\nlook", "{o}", "#look.feedback#", "[" * 400, "%s%n", "take {0.__class__} from r", "\u202elook", "help; ls", "\x1b[31mlook"]


CAPITALS = ["GO TO DRAWER 1", "Look", "look."]  # possible, but under the strict rule


@pytest.mark.parametrize("strict", [False, True])
def test_any_text_is_a_command(strict: bool) -> None:
    bad = BAD + CAPITALS * strict
    env = ALFWorldEnv(max_steps=len(bad) + 2, strict=strict)
    item = next(iter(env.items))
    _, first = env.reset(options={"item": item})
    for command in bad:
        observation, reward, terminated, truncated, info = env.step(command)
        assert (observation, reward, terminated, truncated) == ("Nothing happens.", 0.0, False, False), ascii(command[:40])
        assert not info["valid"] and info["admissible"] == first["admissible"], ascii(command[:40])
    assert env.step(" look \n")[4]["valid"], "white space around a command does not matter, as in textworld"


def test_games_do_not_leak_into_each_other() -> None:
    items = list(ALFWorldEnv().items)[:8]
    alone = {item: walk(ALFWorldEnv(), item) for item in items}
    one = ALFWorldEnv()
    for item in [*items, *reversed(items)]:
        assert walk(one, item) == alone[item], "after other games"
    envs = {item: ALFWorldEnv() for item in items}
    rngs = {item: random.Random(item) for item in items}
    told: dict[str, list[Any]] = {item: [envs[item].reset(options={"item": item})] for item in items}
    for _ in range(30):
        for item in items:
            info: dict[str, Any] = told[item][-1][-1]
            if "verdict" not in info:
                told[item].append(envs[item].step(info["admissible"][int(rngs[item].random() * len(info["admissible"]))]))
    assert told == alone, "in turn"
    same = [ALFWorldEnv() for _ in range(2)]
    same[0].reset(options={"item": items[0]})
    for command in same[0].gold(items[0]):
        same[0].step(command)
    assert walk(same[1], items[0]) == alone[items[0]], "the same game, just won by another"


def test_the_seed_decides_the_item() -> None:
    def draws() -> list[str]:
        env = ALFWorldEnv()
        return [env.reset(seed=3)[1]["item"], *(env.reset()[1]["item"] for _ in range(10))]

    assert draws() == draws() and len(set(draws())) > 8


def test_an_unknown_item_names_the_nearest() -> None:
    env = ALFWorldEnv()
    known = next(iter(env.items))
    with pytest.raises(UserError, match=f"no item.*{known}"):
        env.reset(options={"item": known[:-1]})


def test_the_process_is_left_as_it_is() -> None:
    before = (list(sys.argv), sys.stdout)
    env = ALFWorldEnv()
    env.gold(next(iter(env.items)))
    assert (list(sys.argv), sys.stdout) == before
