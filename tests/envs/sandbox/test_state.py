"""Nothing passes from check to check, and nothing reaches the machine: each check finds what the first one found.

An attack looks and then leaves a mark where it looked. In one process the second look sees the mark.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent

import pytest

from onelayer.envs.sandbox import Outcome, checks
from onelayer.envs.sandbox.pool import SandboxPool

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")
HERE = Path(__file__).parent
MARKS = {  # what to look at; what to leave
    "the mode of the scratch directory": ("os.stat('.').st_mode", "os.chmod('.', 0)"),
    "a mode of the scratch directory that lets work": ("os.stat('.').st_mode", "os.chmod('.', 0o1755)"),
    "the times of the scratch directory": ("os.stat('.').st_mtime < 10", "os.utime('.', (1, 1))"),
    "a file": ("os.listdir('.')", "open('mark', 'w').close()"),
    "a file that is hidden": ("os.listdir('.')", "os.mkdir('.x'); os.chmod('.x', 0)"),
    "flags of standard input": ("fcntl.fcntl(0, fcntl.F_GETFL)", "fcntl.fcntl(0, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)"),
    "flags of standard output": ("fcntl.fcntl(1, fcntl.F_GETFL)", "fcntl.fcntl(1, fcntl.F_SETFL, os.O_APPEND | os.O_NONBLOCK)"),
    "flags of standard error": ("fcntl.fcntl(2, fcntl.F_GETFL)", "os.set_blocking(2, False)"),
    "a lock of standard input": ("free('/dev/null', flock)", "fcntl.flock(0, fcntl.LOCK_EX)"),
    "a lock of standard error": ("free('/dev/null', flock)", "fcntl.flock(2, fcntl.LOCK_EX)"),
    "a shared lock": ("free('/dev/null', flock)", "fcntl.flock(1, fcntl.LOCK_SH)"),
    "a lock of part of standard input": ("free('/dev/null', reserve)", "reserve(0)"),
    "the working directory": ("os.getcwd()", "os.chdir('/')"),
    "the mask of new files": ("os.umask(0o77)", "os.umask(0)"),
    "the environment": ("dict(os.environ)", "os.environ['MARK'] = '1'"),
    "a limit": ("resource.getrlimit(resource.RLIMIT_FSIZE)[0]", "resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))"),
    "a module": ("hasattr(os, 'mark')", "os.mark = 1"),
    "an alarm": ("signal.getitimer(signal.ITIMER_REAL)[0] > 0", "signal.setitimer(signal.ITIMER_REAL, 60)"),
    "a signal's handler": ("signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN", "signal.signal(signal.SIGUSR1, signal.SIG_IGN)"),
}
TOOLS = """
import fcntl, os, resource, signal, struct
def flock(fd): fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
def reserve(fd): fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
def free(path, lock):
    file = os.open(path, os.O_RDWR)
    try: lock(file)
    except BlockingIOError: return False
    except PermissionError: pass
    finally: os.close(file)
    return True
"""
LOCKS = (
    TOOLS
    + """
def f(x):
    held = []
    for path in ("/dev/null", os.__file__):
        for flags in (os.O_RDONLY, os.O_RDWR):
            for lock in (flock, reserve, fcntl.lockf, lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)):
                try:
                    held.append(os.open(path, flags))
                    lock(*((held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB) if lock is fcntl.lockf else (held[-1],)))
                except OSError: pass
    f.held = held
    return x
"""
)


def marking(name: str) -> str:
    look, leave = MARKS[name]
    return f"{TOOLS}\ndef f():\n    seen = {look}\n    try: {leave}\n    except OSError: pass\n    return seen\n"


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    """One worker for all."""
    pool = SandboxPool()
    yield pool
    pool.stop()


def value(pool: SandboxPool, source: str) -> object:
    (reply,) = checks.calls(source, "f", [()], pool=pool)
    assert reply.outcome is Outcome.RETURNED, reply
    return reply.value


@pytest.mark.parametrize("name", MARKS)
def test_a_mark_stays_where_nothing_is_renewed(name: str, tmp_path: Path) -> None:
    twice = f"{marking(name)}first, second = f(), f()\nraise SystemExit(7 if first == second else 0)"
    with open(os.devnull, "r+") as null:
        assert subprocess.run([sys.executable, "-c", twice], cwd=tmp_path, stdin=null, stdout=null, stderr=null).returncode != 7


@pytest.mark.parametrize("name", MARKS)
def test_no_mark_is_found_by_the_next_check(name: str, pool: SandboxPool) -> None:
    first, second, third = (value(pool, marking(name)) for _ in range(3))
    assert first == second == third
    assert value(pool, "def f():\n    with open('x', 'w') as file: file.write('fine')\n    return open('x').read()") == "fine"
    assert len(pool.idle["candidate"]) == 1


def test_scripts_and_tests_find_nothing_either(pool: SandboxPool) -> None:
    leave = indent("\n".join(f"try: {leave}\nexcept OSError: pass" for _, leave in MARKS.values()), "")
    look = "def f():\n    with open('x', 'w') as file: return file.write('fine')"
    for _ in range(2):
        assert checks.script(f"{TOOLS}\n{leave}", "", pool=pool).outcome is Outcome.RETURNED
        assert checks.judged(look, "assert f() == 4", ["f"], pool=pool).outcome is Outcome.RETURNED
        checks.judged(f"{TOOLS}\n{leave}\n{look}", "f()", ["f"], pool=pool)
        assert value(pool, f"{look}\n") == 4


def test_a_candidate_locks_nothing_of_the_machine(pool: SandboxPool) -> None:
    """Not even while it runs: other programs' locks on the same files are theirs."""
    replies = checks.calls(LOCKS, "f", [(1,), (2,)], pool=pool)
    assert next(replies).value == 1
    with open(os.devnull, "r+") as null, open(os.__file__) as library:
        for file in (null, library):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(null, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(PermissionError), open(os.__file__, "r+") as library:  # it may not be ours to write
            fcntl.lockf(library, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert [reply.value for reply in replies] == [2]


def test_what_needs_locks_of_its_own_files_works(pool: SandboxPool) -> None:
    database = """
    import fcntl, sqlite3
    def f():
        base = sqlite3.connect("x.db")
        with base: base.execute("create table t (x)")
        with base: base.execute("insert into t values (7)")
        with open("y", "w") as file: fcntl.lockf(file, fcntl.LOCK_EX)
        return base.execute("select x from t").fetchall()
    """
    assert value(pool, dedent(database)) == [(7,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests are run without root already")
def test_the_red_team_as_nobody() -> None:
    """Without root a candidate owns its scratch directory, and shares limits with the user's other programs."""
    folder = tempfile.mkdtemp()
    try:
        suites = [f"tests/envs/sandbox/{name}.py" for name in ("test_redteam", "test_state", "test_clock", "test_forged")]
        command = [
            sys.executable,
            str(HERE / "nobody.py"),
            folder,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "not where_nothing",
            *suites,
        ]
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    finally:
        os.rmdir(folder)
