"""The clock: whoever goes on and on is stopped, whatever it sends meanwhile; only the caller's own delays are not counted.

Each attack ends by itself after some seconds, so that a sandbox without a clock fails here and does not hang.
"""

from __future__ import annotations

import subprocess
import sys
import time
from textwrap import dedent

import pytest

from onelayer.envs import sandbox
from onelayer.envs.code.grader import Verdict, check
from onelayer.envs.code.problems import Problem, Programs
from onelayer.envs.sandbox import Limits, Outcome, Reply

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")
SHORT = Limits(cpu_seconds=0.5, total_cpu_seconds=1)
LONG, BRIEF = 6.0, 0.15  # seconds for which an attack and its benign twin go on

GOING = """
import fcntl, json, os, sys, time
end = time.monotonic() + {seconds}
def going(): return time.monotonic() < end
def work(): sum(range(20000))
"""
PROGRAMS = {
    "printing and sleeping": "while going(): print(end=' ', flush=True); time.sleep(.05)",
    "printing and computing": "while going(): print(end=' ', flush=True); work()",
    "printing as seldom as goes unnoticed": "while going(): print(end=' ', flush=True); time.sleep(.09)",
    "writing to the descriptor": "while going(): os.write(1, b' '); work()",
    "writing to a copy of the descriptor": "copy = os.dup(1)\nwhile going(): os.write(copy, b' '); time.sleep(.05)",
    "writing parts of lines through C": "import ctypes\nlibc = ctypes.CDLL(None)\nwhile going(): libc.write(1, b'x', 1); work()",
    "a thread prints, another computes": """
        import threading
        def tell():
            while going(): print(end=' ', flush=True); time.sleep(.03)
        threading.Thread(target=tell).start()
        while going(): work()
        """,
    "a thread prints, another waits": """
        import threading
        def tell():
            while going(): print(end=' ', flush=True); time.sleep(.03)
        thread = threading.Thread(target=tell); thread.start(); thread.join()
        """,
    "an alarm that prints": """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: os.write(1, b' '))
        signal.setitimer(signal.ITIMER_REAL, .03, .03)
        while going(): time.sleep(.03)
        """,
    "tasks that print in turns": """
        import asyncio
        async def tell():
            while going(): print(end=' ', flush=True); await asyncio.sleep(.05)
        async def main(): await asyncio.gather(tell(), tell(), tell())
        asyncio.run(main())
        """,
}
FUNCTIONS = {  # each sends a reply of its own before the sandbox can
    "a reply padded with spaces, computing": "send(b'[', work)",
    "a reply padded with spaces, sleeping": "send(b'[', lambda: time.sleep(.05))",
    "a right answer, then spaces, computing": "send(b'[\"returned\", 3', work)",
    "a right answer, then spaces, sleeping": "send(b'[\"returned\", 3', lambda: time.sleep(.05))",
}
SEND = """
def put(data):
    for n in range(3, 60):
        try:
            if fcntl.fcntl(n, fcntl.F_GETFL) & 3: os.write(n, data)
        except OSError: pass
def send(head, pause):
    tail = b'["returned", 3, "", "", ""]'[len(head):]
    put((1 << 20).to_bytes(4, "big") + head)
    size = len(head)
    while going():
        put(b" ")
        size += 1
        pause()
    put(b" " * ((1 << 20) - size - len(tail)) + tail)
    time.sleep(60)
"""


def program(name: str, seconds: float) -> str:
    return GOING.format(seconds=seconds) + dedent(PROGRAMS[name])


def function(name: str, seconds: float) -> str:
    return GOING.format(seconds=seconds) + SEND + f"def f(x): {FUNCTIONS[name]}"


def stopped(reply: Reply) -> bool:
    return reply.outcome is Outcome.TIMEOUT and reply.cpu_seconds < 1.5


def test_programs_go_on_where_nobody_looks() -> None:
    running = [subprocess.Popen([sys.executable, "-c", program(name, LONG)], stdout=subprocess.DEVNULL) for name in PROGRAMS]
    time.sleep(1)
    still = [process.poll() is None for process in running]
    for process in running:
        process.kill()
        process.wait()
    assert all(still)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_trickles_is_stopped(name: str) -> None:
    assert stopped(sandbox.script(program(name, LONG), "", SHORT))
    assert sandbox.script(program(name, BRIEF) + "\nprint('fine')", "", SHORT).stdout.strip(" x") == "fine\n"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_reply_that_trickles_is_stopped(name: str) -> None:
    replies = list(sandbox.calls(function(name, LONG), "f", [(2,)], SHORT))
    assert len(replies) == 1
    assert stopped(replies[0])
    assert [reply.value for reply in sandbox.calls(function(name, BRIEF), "f", [(2,)], SHORT)] == [3]
    assert stopped(sandbox.judged(function(name, LONG), "assert f(2) == 3", ["f"], SHORT))
    assert sandbox.judged(function(name, BRIEF), "assert f(2) == 3", ["f"], SHORT).outcome is Outcome.RETURNED


def test_short_rests_add_up() -> None:
    """A call that sleeps for less than the time between two looks is idle all the same."""
    naps = "import time\ndef f(x):\n    time.sleep(.09)\n    return x"
    replies = list(sandbox.calls(naps, "f", [(n,) for n in range(60)], SHORT))
    assert stopped(replies[-1])
    assert stopped(sandbox.judged(naps, "for n in range(60): assert f(n) == n", ["f"], SHORT))
    assert len(list(sandbox.calls(naps, "f", [(n,) for n in range(5)], SHORT))) == 5


def test_the_time_of_the_caller_is_not_counted() -> None:
    """Who reads late, or whose tests compute between the calls, costs the candidate nothing."""
    replies = sandbox.calls("def f(x): return 'x' * 10**6 + x", "f", [(str(n),) for n in range(4)], SHORT)
    seen = []
    for reply in replies:
        seen.append(reply.outcome)
        time.sleep(0.6)
    assert seen == [Outcome.RETURNED] * 4
    limits = Limits(cpu_seconds=0.5, total_cpu_seconds=3)
    tests = "import time\nfor n in range(3):\n    time.sleep(.6)\n    assert f(n) == n"
    assert sandbox.judged("def f(x): return x", tests, ["f"], limits).outcome is Outcome.RETURNED


@pytest.mark.parametrize(
    "wait",
    [
        "libc.syscall(324, 1, 0, 0)",  # membarrier waits for every processor, uninterruptibly
        "os.fsync(file)",
        "os.fdatasync(file)",
        "os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED); os.pread(file, 1 << 16, 0)",
    ],
)
def test_waits_that_look_like_work_are_stopped_or_refused(wait: str) -> None:
    """Time on the disk and inside the kernel is not idle, so a candidate must not be able to spend it at will."""
    source = GOING + f"import ctypes\nlibc = ctypes.CDLL(None)\nfile = os.open(os.__file__, 0)\ndef f():\n    while going(): {wait}"
    (reply,) = sandbox.calls(source.format(seconds=LONG), "f", [()], SHORT)
    assert stopped(reply) or reply.kind == "PermissionError"


def test_trickled_output_does_not_pay_in_grading() -> None:
    """With the grader's own limits: 4 s."""
    problem = Problem(id="trickle", entry_point="", digest="", tests=Programs((("", "fine"),)))
    assert check(program("printing and sleeping", 12.0) + "\nprint('fine')", problem).verdict is Verdict.TIMEOUT
