"""onelayer/Code-v0 as a Gymnasium user meets it."""

from __future__ import annotations

import subprocess
import sys
import warnings

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from onelayer.envs import UserError, make
from onelayer.envs.config import CodeConfig

SMALL = CodeConfig(size=40)


def test_passes_the_environment_checker() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(SMALL, "train").unwrapped)
        check_env(make(SMALL.model_copy(update={"max_turns": 3}), "train").unwrapped)


def test_one_turn() -> None:
    env = gym.make("onelayer.envs:onelayer/Code-v0", split="test", size=40)
    item = next(iter(env.get_wrapper_attr("items").values()))
    (gold,) = env.get_wrapper_attr("gold")(item.id)
    for reply, reward, verdict in (
        (gold, 1.0, "correct"),
        (item.gold, 1.0, "correct"),
        ("def f(*args): return 'no'", 0.0, "wrong"),
        ("def f(): return 1", 0.0, "raised"),
        ("def f(*args): return", 0.0, "wrong"),
        ("def f(*args:", 0.0, "raised"),
        ("def f(*args):\n    while True: pass", 0.0, "timeout"),
        ("def f(*args):\n    return ' ' * 10 ** 10", 0.0, "memory"),
        ("def f(*args):\n    return ' ' * 10 ** 8", 0.0, "output"),
        ("import os\ndef f(*args):\n    os._exit(0)", 0.0, "crashed"),
        ("import sys\ndef f(*args):\n    sys.exit(0)", 0.0, "raised"),
        ("I do not know", 0.0, "no_code"),
    ):
        question, info = env.reset(options={"item": item.id})
        assert (question, info) == (item.question, {"item": item.id, "anchor": item.question})
        expected = {"item": item.id, "verdict": verdict, "valid": verdict != "no_code", "anchor": item.question}
        expected |= {"gold": item.gold} if item.gold else {}
        assert env.step(reply) == (item.question, reward, True, False, expected)
    with pytest.raises(UserError, match="without reset"):
        env.unwrapped.step(gold)


def test_several_turns() -> None:
    env = make(SMALL.model_copy(update={"max_turns": 3}), "train")
    item = next(item for item in env.get_wrapper_attr("items").values() if item.meta["type"] == "arithmetic")
    first, second = item.question.split("\n")[1:]
    env.reset(options={"item": item.id})
    observation, reward, over, _, info = env.step("```python\ndef f(*args):\n    return 'seventeen'\n```")
    assert (reward, over, info["verdict"], info["anchor"]) == (0.0, False, "wrong", observation)
    assert observation.startswith(item.question) and "return 'seventeen'" in observation
    call, right = first.split(" == ")
    assert observation.endswith(f"{call} gave 'seventeen'. It must be {right}.")  # it stands in the task's text
    observation, _, over, _, info = env.step("nothing")
    assert not over and observation.endswith("held no Python code.") and not info["valid"]
    assert env.step(item.gold)[1:3] == (1.0, True)
    env.reset(options={"item": item.id})
    assert [env.step("nothing")[2] for _ in range(3)] == [False, False, True]
    arguments, other = call.removeprefix("f"), second.split(" == ")[1]
    by_heart = f"def f(*args):\n    return {right} if repr(args).replace(',)', ')') == {arguments!r} else {other}"
    env.reset(options={"item": item.id})
    observation, _, _, _, info = env.step(by_heart)
    assert info["verdict"] == "wrong" and "It must be" not in observation  # the other tests stay a secret


def test_what_is_shown_is_bounded() -> None:
    env = make(SMALL.model_copy(update={"max_turns": 9}), "train")
    env.reset(seed=0)
    for reply in (
        "def f(*args):\n    return 'x' * 10 ** 6",
        "def f(*args):\n    return 10 ** 10 ** 5",
        "def f(*args):\n    return [[[[list(range(1000))] * 1000]]]",
        "def f(*args):\n    raise ValueError('x' * 10 ** 6)",
        f"def f(*args):\n    return '{'x' * 100_000}'",
        "def f(*args):\n    return '\\ud800'",
    ):
        observation, reward, *_ = env.step(reply)
        assert reward == 0 and len(observation) < 6000 and observation.encode()


HOSTILE = {
    "empty": "",
    "huge": "def f(*args):\n    return 1\n" * 100_000,
    "huge line": "def f(*args): return " + "(" * 50_000,
    "deep": "def f(*args):\n    return " + "-" * 50_000 + "1",
    "fences": "```" * 50_000,
    "control characters": "".join(map(chr, range(32))) + "def f(*args):\n    return 1\x00\x1b[2J",
    "lone surrogates": "def f(*args):\n    return '\ud800\udfff'",
    "null in code": "```python\ndef f(*args):\n    return 1\x00\n```",
    "other alphabets": "def f(*args):\n    return '十二'",
    "an equal to everything": "class E:\n    def __eq__(self, other): return True\ndef f(*args): return E()",
    "an int equal to everything": "class E(int):\n    def __eq__(self, other): return True\ndef f(*args): return E(999983)",
    "frames": """import sys
def f(*args):
    frame = sys._getframe()
    while frame:
        if 'expected' in frame.f_locals:
            return frame.f_locals['expected']
        frame = frame.f_back""",
    "exit": "import os\nos._exit(0)",
    "printed verdicts": "def f(*args):\n    print('correct')\n    return 'correct'",
    "endless module": "while True: pass\ndef f(*args): return 1",
    "generator": "def f(*args):\n    yield 1",
    "deep value": "def f(*args):\n    x = []\n    for _ in range(100000): x = [x]\n    return x",
    "cycle": "def f(*args):\n    x = []\n    x.append(x)\n    return x",
    "colliding": "def f(*args):\n    return {n * (2 ** 61 - 1) for n in range(2000)}",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_replies_get_nothing(case: str) -> None:
    env = make(SMALL.model_copy(update={"max_turns": 2}), "test")
    for item in list(env.get_wrapper_attr("items"))[:5:2]:
        env.reset(options={"item": item})
        observation, reward, over, _, info = env.step(HOSTILE[case])
        assert (reward, over) == (0.0, False) and info["verdict"] != "correct" and observation.encode()


def test_importing_the_module_is_light() -> None:
    program = "import sys, onelayer.envs.code.env; print([m for m in ('torch', 'sympy', 'evalplus', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
