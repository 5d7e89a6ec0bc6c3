"""The red team: each attack works where nothing holds it, is contained here, and its benign twin passes. Nothing of them stays."""

from __future__ import annotations

import json
import os
import runpy
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from onelayer.envs import sandbox
from onelayer.envs.sandbox import checks
from onelayer.envs.sandbox import pool as pools
from onelayer.envs.sandbox.pool import SandboxPool

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")
TABLE = runpy.run_path(str(Path(__file__).with_name("attacks.py")))
ATTACKS, RIGHT = TABLE["ATTACKS"], TABLE["RIGHT"]
Attack: TypeAlias = Any  # attacks.py has the class
NAIVE = Path(__file__).with_name("naive.py")
CASES = [(1, 2), (30, -4), (0, 7)]
LIMITS = sandbox.Limits(cpu_seconds=3, total_cpu_seconds=6, memory_bytes=400 << 20, file_bytes=16 << 20)
SHORT = sandbox.Limits(cpu_seconds=0.5, total_cpu_seconds=1)
VICTIM = """
import ctypes, sys
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)  # anyone may look
secret = ctypes.create_string_buffer(b"secret", 8)
print(ctypes.addressof(secret), flush=True)
sys.stdin.read()
"""
each = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))


@pytest.fixture(scope="module")
def outside() -> Iterator[dict]:
    """What lies outside of the sandbox and is to stay untouched."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as post,
    ):
        Path(folder, "secret").write_text("secret")
        Path(folder, "prey").write_text("")
        os.mkdir(f"{folder}/free")
        post.bind(f"{folder}/post")
        victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"SECRET": "secret"})
        assert victim.stdin and victim.stdout
        yield {
            "secret": f"{folder}/secret",
            "prey": f"{folder}/prey",
            "folder": f"{folder}/free",
            "datagrams": f"{folder}/post",
            "port": server.getsockname()[1],
            "pid": victim.pid,
            "address": int(victim.stdout.readline()),
        }
        victim.stdin.close()
        assert victim.wait() == 0
        victim.stdout.close()


def passes(source: str, kind: str, context: dict, limits: sandbox.Limits, success: str, pool: SandboxPool | None = None) -> bool:
    """A grader as it should be: values come out of the sandbox and are compared here, by type too."""
    cases = [(given, sum(given)) for given in CASES] if kind == "answer" else [((context,), success)]
    replies = checks.calls(source, "add" if kind == "answer" else "f", [given for given, _ in cases], limits, pool=pool)
    values = [(reply.outcome, type(reply.value), reply.value) for reply in replies]
    return values == [(sandbox.Outcome.RETURNED, type(expected), expected) for _, expected in cases]


def naively(attack: Attack, context: dict, folder: Path) -> bool:
    """The verdict of the naive grader; of what hangs, whether it did."""
    cases = (
        [{"given": list(given), "expected": sum(given)} for given in CASES]
        if attack.kind == "answer"
        else [{"given": [context], "expected": "pwned"}]
    )
    request = {"source": attack.source, "entry_point": "add" if attack.kind == "answer" else "f", "cases": cases}
    program = subprocess.Popen(
        [sys.executable, NAIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, text=True
    )
    try:
        stdout, _ = program.communicate(json.dumps(request), timeout=1 if attack.kind == "hang" else 60)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        return attack.kind == "hang"
    if attack.name == "a flood as answer":  # nothing keeps it from coming through
        return len(stdout) < 1000
    return '{"passed": true}' in stdout.splitlines()


@each
def test_attack_works_where_nothing_holds_it(attack: Attack, outside: dict, tmp_path: Path) -> None:
    prey = Path(outside["prey"])
    assert naively(attack, outside, tmp_path)
    for left in Path(outside["folder"]).iterdir():
        left.unlink()
    prey.write_text("")
    os.chmod(outside["secret"], 0o644)


@each
def test_attack_is_contained(attack: Attack, outside: dict) -> None:
    limits = SHORT if attack.kind == "hang" else LIMITS
    assert not passes(attack.source, attack.kind, outside, limits, "pwned")
    assert not passes(attack.source, attack.kind, outside, limits, "fine")
    assert passes(RIGHT, "answer", {}, LIMITS, ""), "the next check is none the worse"
    assert list(Path(outside["folder"]).iterdir()) == []
    assert Path(outside["prey"]).exists()
    assert Path(outside["secret"]).read_text() == "secret"
    assert not stat.S_IMODE(os.stat(outside["secret"]).st_mode) & 0o111


@each
def test_benign_twin_passes(attack: Attack, outside: dict) -> None:
    assert passes(attack.twin, attack.kind, outside, LIMITS, "fine")


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 40
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found, todo = set(), [pid]
    while todo:
        todo += (more := children.get(todo.pop(), []))
        found.update(more)
    return found


def test_a_thousand_checks_leave_no_process_and_no_file(outside: dict) -> None:
    pool = SandboxPool()
    temporary = set(os.listdir(tempfile.gettempdir()))
    try:
        assert passes(RIGHT, "answer", {}, LIMITS, "", pool)
        (worker,) = pool.idle["candidate"]
        before = descendants(worker.process.pid)
        assert len(before) <= 1
        quick = [attack for attack in ATTACKS if attack.kind != "hang"]
        jobs = [(attack.source, attack.kind, "pwned") for attack in quick] + [(attack.twin, attack.kind, "fine") for attack in quick]
        jobs += [(RIGHT, "answer", "")] * (1000 - len(jobs))
        verdicts = [passes(source, kind, outside, LIMITS, success, pool) for source, kind, success in jobs]
        assert not any(verdicts[: len(quick)])
        assert all(verdicts[len(quick) :])
        assert pool.idle["candidate"] == [worker], "one worker made all of them"
        assert descendants(worker.process.pid) == before
        (reply,) = sandbox.calls("import os\ndef f(): return os.listdir('.')", "f", [()])
        assert reply.value == []
        assert {name for name in set(os.listdir(tempfile.gettempdir())) - temporary if "onelayer" in name} == set()
    finally:
        pool.stop()
    assert not Path(f"/proc/{worker.process.pid}").exists()


def test_attacks_beside_each_other(outside: dict) -> None:
    """From many threads, more than there are workers: each gets its own verdict."""
    some = ATTACKS[::6]
    with ThreadPoolExecutor(8) as threads:
        attacks = [
            threads.submit(passes, attack.source, attack.kind, outside, SHORT if attack.kind == "hang" else LIMITS, "pwned")
            for attack in some
        ]
        twins = [threads.submit(passes, attack.twin, attack.kind, outside, LIMITS, "fine") for attack in some]
    assert not any(future.result() for future in attacks)
    assert all(future.result() for future in twins)


@pytest.mark.parametrize("layers", [("namespaces", "seccomp"), ("landlock", "seccomp")], ids="+".join)
def test_fewer_layers_contain_too(layers: tuple[str, ...], outside: dict) -> None:
    """Where the machine has no Landlock, or allows no namespaces. Without namespaces nothing can be written at all."""
    pool = SandboxPool(layers)
    try:
        assert passes(RIGHT, "answer", {}, LIMITS, "", pool)
        if pool.isolation and pool.isolation.layers != layers:
            pytest.skip(f"this machine has {pool.isolation}")
        shared = "namespaces" not in layers  # threads are counted together with all that the user runs
        for attack in ATTACKS:
            if attack.kind == "act" and not (shared and attack.name == "a thread bomb"):
                assert not passes(attack.source, attack.kind, outside, LIMITS, "pwned", pool), attack.name
    finally:
        pool.stop()
    assert list(Path(outside["folder"]).iterdir()) == []
    assert Path(outside["prey"]).exists()


def test_without_isolation_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SandboxPool(("landlock",))  # not enough alone
    with pytest.raises(pools.UserError, match="--unsafe-sandbox"):
        passes(RIGHT, "answer", {}, LIMITS, "", pool)
    monkeypatch.setenv(sandbox.UNSAFE, "1")
    assert passes(RIGHT, "answer", {}, LIMITS, "", pool)
    pool.stop()
