"""What environments do to their processes, and that it stays with them: one episode ends, the others go on as if nothing had been."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest
from failing_environments import Unruly, dies, unmakable
from hypothesis import given, settings
from hypothesis import strategies as st

from onelayer.envs import MathConfig, UserError, load, pool_process, pool_worker
from onelayer.envs.config import PoolConfig
from onelayer.envs.pool import Pool, open_pool
from onelayer.envs.pool_env import InfrastructureError, PoolEnv, Turn

GRAVE = {
    "exit": "the process ended itself with exit code 7",
    "pipe": "what the process sent is no reply",
    "segfault": "the process died of SIGSEGV",
    "leak": "it took 0.2 GiB of memory (pool.memory_gib=0.25)",
    "bomb": "MemoryError (failing_environments.py:",
}
MILD = {"raise": "IndexError: out of range (failing_environments.py:", "quit": "SystemExit: so there (failing_environments.py:"}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(Unruly, workers=2, memory_gib=0.25) as shared:
        yield shared


def unpid(turn: Turn) -> tuple[object, ...]:
    return turn.observation, turn.reward, turn.over, {key: value for key, value in turn.info.items() if key != "pid"}


def play(pool: Pool, item: str, *actions: str, seed: int = 5) -> list[Turn]:
    env = pool.env()
    try:
        return [env.reset(item, seed).result(), *(env.step(action).result() for action in actions)]
    finally:
        env.close()


@pytest.mark.parametrize("what", GRAVE | MILD)
def test_one_fails_and_the_innocent_go_on(pool: Pool, what: str) -> None:
    """Ten episodes share two processes; in one of them the environment fails: at reset, at its second step, or by an action."""
    expected = [unpid(turn) for turn in play(Pool(Unruly), "a", "x", "y", "z")]
    reason = (GRAVE | MILD)[what]
    envs = [pool.env() for _ in range(10)]
    turns = [[env.reset("a", 5).result()] for env in envs]
    guilty = pool.env()
    with pytest.raises(InfrastructureError) as error:
        guilty.reset(f"reset {what}", 5).result()
    assert reason in str(error.value) and str(error.value).endswith(f"item reset {what}, reset") and "\n" not in str(error.value)
    for number, action in enumerate("xyz"):
        asked = [env.step(action) for env in envs]
        if number == 1:
            guilty.reset(f"later {what}", 5).result()
            guilty.step("x").result()
            with pytest.raises(InfrastructureError, match=f"item later {what}, step 2$"):
                guilty.step("x").result()
        if number == 2:
            guilty.reset("b", 5).result()
            guilty.step("x").result()
            turn = guilty.step(what).result()  # the action's doing: no way around the zero
            assert (turn.reward, turn.terminated, turn.info["verdict"]) == (0.0, True, "action_error")
            assert reason in turn.info["error"]
        for mine, future in zip(turns, asked, strict=True):
            mine.append(future.result())
    assert [[unpid(turn) for turn in mine] for mine in turns] == [expected] * 10


def test_harmless_oddities_are_no_failures(pool: Pool) -> None:
    for odd in ("print", "stdin"):
        assert play(pool, "a", odd, "y", "z")[-1].reward == 1
    info = play(pool, "a", "unpicklable")[-1].info
    assert info["number"] == 0.5 and info["set"] == "{1}" and info["nested"] == {"5": [1, 2]} and "lambda" in info["function"]
    pickle.dumps(info)
    assert play(pool, "a", "", "é\ud800\x00\n" * 10_000, "z")[-1].reward == 1


def test_what_does_not_fail_again_is_nobodys_fault(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="exit code 1"):
        play(pool, "a", f"once {tmp_path / 'once'}")
    assert play(pool, "a", f"once {tmp_path / 'once'}", "x", "x")[-1].reward == 1


def test_one_hangs_and_the_innocent_go_on() -> None:
    with Pool(Unruly, workers=1, step_seconds=1.5) as pool:
        innocent, guilty = pool.env(), pool.env()
        innocent.reset("a", 5).result()
        guilty.reset("later hang", 5).result()
        guilty.step("x").result()
        failing, going_on = guilty.step("x"), innocent.step("x")
        assert unpid(going_on.result()) == unpid(play(Pool(Unruly), "a", "x")[-1])
        with pytest.raises(InfrastructureError, match=r"no answer within 1.5 s, item later hang, step 2"):
            failing.result()
        assert play(pool, "a", "hang")[-1].info["verdict"] == "action_error"


def test_a_large_observation_is_read_in_time_that_grows_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(Unruly, workers=1, step_seconds=20) as pool:
        env = pool.env()
        env.reset("a", 5).result()
        began = time.monotonic()
        assert len(env.step("wide 80").result().info["wide"]) == 80 << 20
        assert time.monotonic() - began < 15, "31 seconds where every part is put together with all before it"
        assert env.step("y").result().observation.startswith("2 y")
        env.reset("a", 5).result()
        monkeypatch.setattr(pool_process, "LONGEST_REPLY", 8 << 20)
        assert "its reply is longer than 8 MiB" in env.step("wide 10").result().info["error"]


@pytest.mark.parametrize("what", ["trickle", "tick"])
def test_what_trickles_is_no_answer(what: str) -> None:
    """The time of a step is over when it is over, whether or not the process is silent."""
    with Pool(Unruly, workers=1, step_seconds=1) as pool:
        began = time.monotonic()
        turn = play(pool, "a", what)[-1]
        assert turn.info["verdict"] == "action_error" and time.monotonic() - began < 30
        assert play(pool, "a", "x", "y", "z")[-1].reward == 1


@pytest.mark.parametrize("what", ["forge", "forge-later", "begin"])
def test_no_reply_reaches_another_episode(what: str) -> None:
    """An environment that writes replies of its own to the pipe ends its process; nobody takes them for what was asked."""
    expected = [unpid(turn) for turn in play(Pool(Unruly), "a", "x", "y", "z")]
    with Pool(Unruly, workers=1) as pool:
        innocent, guilty = pool.env(), pool.env()
        turns = [innocent.reset("a", 5).result()]
        guilty.reset("b", 5).result()
        for action in "xyz":
            asked, mine = guilty.step(what if action == "x" else action), innocent.step(action)
            turns.append(mine.result())
            if action == "x":
                if what != "forge-later":
                    assert asked.result().info["verdict"] == "action_error"
                    guilty.reset("b", 5).result()
                time.sleep(0.5)
            assert asked.exception() or "forged" not in asked.result().info
        assert [unpid(turn) for turn in turns] == expected


@pytest.mark.parametrize("end", ["close", "exit", "hang"])
def test_no_process_that_an_environment_starts_outlives_its_worker(end: str, tmp_path: Path) -> None:
    """Neither in its group nor out of it, however the worker ends."""
    with Pool(Unruly, workers=1, step_seconds=2) as pool:
        env = pool.env()
        env.reset("a", 5).result()
        env.step(f"child {tmp_path / 'pids'}").result()
        gone(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2)
        first = (tmp_path / "pids").read_text().split()
        assert all(runs(pid) for pid in first)
        if end != "close":
            wait([env.step(end)])
    pids = (tmp_path / "pids").read_text().split()
    assert set(first) <= set(pids)
    gone(lambda: not any(runs(pid) for pid in pids))


def runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_slow_leak_replaces_the_process_and_loses_nothing(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """Each episode leaks 20 MiB, well under half of what is allowed."""
    with Pool(Unruly, workers=1, memory_gib=0.25) as leaking:
        episodes = [play(leaking, "a", "x", "drip", "z") for _ in range(14)]
    expected = [unpid(turn) for turn in play(Pool(Unruly), "a", "x", "drip", "z")]
    assert all([unpid(turn) for turn in turns] == expected for turns in episodes)
    assert len({turn.info["pid"] for turns in episodes for turn in turns[1:]}) == 2
    assert "GiB of memory" in caplog.text


def test_an_episode_that_can_not_be_brought_back_is_lost(pool: Pool) -> None:
    with Pool(Unruly, workers=1) as one:
        env, other = one.env(), one.env()
        env.reset("a", 5).result()
        env.step("random").result()
        other.reset("b", 5).result()
        other.step("exit").result()
        with pytest.raises(InfrastructureError, match="lost with its worker: RuntimeError: the same item, seed and actions led to other"):
            env.step("y").result()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=3), st.lists(st.text(max_size=5), max_size=4)), min_size=1, max_size=8))
def test_the_number_of_workers_does_not_show(pool: Pool, episodes: list[tuple[str, list[str]]]) -> None:
    def together(which: Pool) -> list[list[object]]:
        envs = [which.env() for _ in episodes]
        turns = [[future.result()] for future in [env.reset(item, 3) for env, (item, _) in zip(envs, episodes, strict=True)]]
        for number in range(3):
            going = [
                (env, mine, actions[number]) for env, mine, (_, actions) in zip(envs, turns, episodes, strict=True) if number < len(actions)
            ]
            for mine, future in [(mine, env.step(action)) for env, mine, action in going]:
                mine.append(future.result())
        for env in envs:
            env.close()
        return [[unpid(turn) for turn in mine] for mine in turns]

    assert together(pool) == together(Pool(Unruly))


def test_hundreds_of_environments_on_two_processes() -> None:
    with Pool(Unruly, workers=2) as pool:
        envs = [pool.env() for _ in range(256)]
        resets = [env.reset(f"item {number}", number) for number, env in enumerate(envs)]
        assert [future.result().observation.split(":")[0] for future in resets] == [f"item {n}, {n}" for n in range(256)]
        for action in "xyz":
            turns = [future.result() for future in [env.step(action) for env in envs]]
        assert all(turn.over for turn in turns) and len({turn.info["pid"] for turn in turns}) == 2
        again = [future.result() for future in [env.reset("a", 5) for env in envs]]
        assert len({turn.observation for turn in again}) == 1  # an environment used again is as good as new


def test_mistakes_of_the_user_are_said_as_such() -> None:
    with open_pool(MathConfig(), "test", PoolConfig(workers=1)) as pool:
        with pytest.raises(UserError, match="no item 'nonsense' among"):
            pool.env().reset("nonsense", 0).result()
        item = load(MathConfig(), "test").items[0]
        assert play(pool, item.id, f"\\boxed{{{item.gold}}}")[-1].info["verdict"] == "correct"
    with (
        Pool(unmakable, workers=2) as pool,
        pytest.raises(UserError, match=r"cannot be made: RuntimeError: no library \(failing_environments.py:\d+\)"),
    ):
        pool.env().reset("a", 0).result()
    with Pool(dies, workers=1) as pool, pytest.raises(UserError, match=r"cannot be made in a process of its own: .* exit code 3"):
        pool.env().reset("a", 0).result()
    with pytest.raises(InfrastructureError, match="closed"):
        pool.env().reset("a", 0).result()


PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from failing_environments import Unruly
from onelayer.envs.pool import Pool
pool = Pool(Unruly, workers=3)
envs = [pool.env() for _ in range(6)]
for env in envs:
    env.reset("a", 0).result()
print(*{env.step("x").result().info["pid"] for env in envs}, flush=True)
busy = [env.step(what) for env, what in zip(envs, ["hang", "spin"])]
"""


@pytest.mark.parametrize(
    ("end", "number"), [("", None), ("raise ValueError", None), ("busy[0].result()", signal.SIGKILL), ("busy[0].result()", signal.SIGINT)]
)
def test_no_process_outlives_its_parent(end: str, number: int | None) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT + end], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    pids = list(map(int, process.stdout.readline().split()))
    assert len(pids) == 3
    if number:
        time.sleep(0.2)
        process.send_signal(number)
    process.wait()
    process.stdout.close()
    gone(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def gone(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_ends_what_is_under_way() -> None:
    with Pool(Unruly, workers=2) as pool:
        envs: list[PoolEnv] = [pool.env() for _ in range(4)]
        wait([env.reset("a", 0) for env in envs])
        asked = [env.step(what) for env, what in zip(envs, ["hang", "x", "hang", "x"], strict=True)]
    for future in asked:
        assert future.done() and (future.exception() is None or "closed" in str(future.exception()))


def test_of_what_an_environment_prints_the_beginning_is_shown() -> None:
    out = io.StringIO()
    shown = pool_worker.Beginning(out, 10)
    for _ in range(1000):
        print("a step", file=shown)
    assert out.getvalue() == "a step\na s\n[the environment prints more, which is not shown]\n"
