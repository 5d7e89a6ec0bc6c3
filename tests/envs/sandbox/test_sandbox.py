"""What a user of the sandbox relies on: outcomes, limits that hold on a busy machine, scripts, tests, and clean ends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from textwrap import dedent

import pytest

from onelayer.common.errors import UserError
from onelayer.envs import sandbox
from onelayer.envs.sandbox import Limits, Outcome, Reply

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")
SHORT = Limits(cpu_seconds=0.5, total_cpu_seconds=1, memory_bytes=400 << 20)

IS_OPEN = """
def is_open(descriptor):
    import fcntl
    try: return fcntl.fcntl(descriptor, 3) & 3
    except OSError: return 0
"""


def calls(source: str, *inputs: tuple, limits: Limits = SHORT) -> list[Reply]:
    return list(sandbox.calls(dedent(source), "f", inputs or [()], limits))


def test_values_output_and_errors_of_each_call() -> None:
    source = """
    def f(x):
        print("seen", x)
        return [x, {x: (x,)}, {1 / x}]
    """
    one, two, three = calls(source, (1,), (0,), (2.0,))
    assert (one.outcome, one.value, one.stdout) == (Outcome.RETURNED, [1, {1: (1,)}, {1.0}], "seen 1\n")
    assert (two.outcome, two.value, two.stdout) == (Outcome.RAISED, None, "seen 0\n")
    assert (two.error, two.kind) == ("ZeroDivisionError: division by zero", "ZeroDivisionError")
    assert three.value == [2.0, {2.0: (2.0,)}, {0.5}]


def test_a_program_is_compiled_as_python_itself_compiles_it() -> None:
    """Annotations are values, as without `from __future__ import annotations`: a type that is not defined is an error of the program."""
    assert calls("def f(x: int): return str(f.__annotations__)", (1,))[0].value == "{'x': <class 'int'>}"


@pytest.mark.parametrize(
    ("source", "outcome", "error"),
    [
        ("def f(:", Outcome.RAISED, "SyntaxError"),
        ("import sys; sys.exit(0)", Outcome.RAISED, "SystemExit: 0"),
        ("raise KeyboardInterrupt", Outcome.RAISED, "KeyboardInterrupt"),
        ("def g(): pass", Outcome.RAISED, "NameError: name 'f' is not defined"),
        ("f = 3", Outcome.RAISED, "TypeError: 'int' object is not callable"),
        ("def f(): return f()", Outcome.RAISED, "RecursionError"),
        ("def f(): return hash(g)\ng = ()\nfor _ in range(10**6): g = (g,)", Outcome.CRASHED, "SIGSEGV"),
        ("def f(): import ctypes; ctypes.string_at(0)", Outcome.CRASHED, "killed by SIGSEGV"),
        ("def f(): import os; os._exit(0)", Outcome.CRASHED, "exited without a reply"),
        ("def f(): import os; os.abort()", Outcome.CRASHED, "killed by SIGABRT"),
        ("def f(): import os; os.closerange(3, 200)", Outcome.CRASHED, ""),
        ("def f(): import os; [os.write(n, bytes(10**5)) for n in range(3, 200) if is_open(n)]", Outcome.CRASHED, "no reply"),
        ("def f(): return [0] * 10**10", Outcome.MEMORY, "MemoryError"),
        ("def f(): return 'x' * 10**7", Outcome.OUTPUT, "more than"),
        ("def f(): print('x' * 10**7)", Outcome.OUTPUT, "more than"),
        ("def f(): return f", Outcome.UNREADABLE, "function object"),
        ("def f(): return (n for n in ())", Outcome.UNREADABLE, "generator object"),
        ("def f():\n    while True: pass", Outcome.TIMEOUT, "CPU time"),
        ("while True: pass", Outcome.TIMEOUT, "CPU time"),
        ("import time\ndef f(): time.sleep(1e6)", Outcome.TIMEOUT, "CPU time"),
        ("def f(): input()", Outcome.RAISED, "EOFError"),
        ("class E(Exception):\n  def __str__(s): raise s\ndef f(): raise E", Outcome.RAISED, "an error that has no text"),
    ],
)
def test_outcomes(source: str, outcome: Outcome, error: str) -> None:
    (reply,) = calls(IS_OPEN + source)
    assert reply.outcome is outcome, reply
    assert error in reply.error
    assert "\n" not in reply.error


def test_after_a_call_that_did_not_end_there_are_no_more() -> None:
    replies = calls("def f(x):\n    while x: pass\n    return x", (0,), (1,), (0,))
    assert [reply.outcome for reply in replies] == [Outcome.RETURNED, Outcome.TIMEOUT]


def test_each_call_has_its_own_time_and_all_have_theirs() -> None:
    burn = "import time\ndef f(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n    return s"
    assert len(calls(burn, *[(0.3,)] * 3)) == 3
    replies = calls(burn, *[(0.3,)] * 6)
    assert 3 <= len(replies) <= 4
    assert replies[-1].outcome is Outcome.TIMEOUT


@pytest.fixture
def load() -> Iterator[None]:
    """Every core busy, several times over."""
    program = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    spinning = [subprocess.Popen(program, stdout=subprocess.PIPE) for _ in range(3 * len(os.sched_getaffinity(0)))]
    for process in spinning:
        assert process.stdout and process.stdout.readline()
    yield
    for process in spinning:
        process.kill()
        process.communicate()


def test_a_busy_machine_changes_no_verdict(load: None) -> None:
    """With a quarter of a core each, computing and sleeping take longer on the clock, and are counted as what they are."""
    limits = Limits(cpu_seconds=1.0)
    burn = "import time\ndef f(s):\n    end = time.process_time() + s\n    while time.process_time() < end: pass\n    return s"
    assert [reply.outcome for reply in sandbox.calls(burn, "f", [(0.8,)], limits)] == [Outcome.RETURNED]
    naps = "import time\ndef f(n):\n    for _ in range(n):\n        time.sleep(0.001)\n        sum(range(20000))\n    return n"
    assert [reply.outcome for reply in sandbox.calls(naps, "f", [(300,)], limits)] == [Outcome.RETURNED]
    assert [reply.outcome for reply in sandbox.calls("import time\ndef f(): time.sleep(1e6)", "f", [()], limits)] == [Outcome.TIMEOUT]


def test_checks_start_from_the_same_state() -> None:
    source = """
    import builtins, math, os, random, sys
    seen = (getattr(math, "mark", None), getattr(builtins, "mark", None), os.listdir("."), len(os.environ) and sorted(os.environ))
    math.mark = builtins.mark = 1
    sys.modules["os"].mark = 1
    open("mark", "w").close()
    def f(): return seen, list({"a", "b", "c"}), hash("x")
    """
    first, second = calls(source)[0], calls(source)[0]
    assert first.outcome is Outcome.RETURNED, first
    assert first.value == second.value
    assert first.value[0][:3] == (None, None, [])  # type: ignore[index]


def test_closing_the_iterator_ends_the_check() -> None:
    replies = sandbox.calls("def f(x):\n    while x: pass\n    return x", "f", [(0,), (1,)], Limits())
    assert next(replies).value == 0
    replies.close()
    assert calls("def f(): return 1")[0].value == 1


def test_large_inputs_and_values() -> None:
    numbers = list(range(300_000))
    assert calls("def f(x): return x[::-1]", (numbers,), limits=Limits())[0].value == numbers[::-1]


def test_scripts() -> None:
    reply = sandbox.script("a, b = map(int, input().split())\nprint(a + b)", "3 4\n")
    assert (reply.outcome, reply.stdout) == (Outcome.RETURNED, "7\n")
    reply = sandbox.script("import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])", "abc")
    assert (reply.outcome, reply.stdout) == (Outcome.RETURNED, "cba")
    reply = sandbox.script("print(1)\nexit(3)", "")
    assert (reply.outcome, reply.stdout, reply.error) == (Outcome.RAISED, "1\n", "SystemExit: 3")
    reply = sandbox.script("print(1)\nraise ValueError('no')", "")
    assert (reply.outcome, reply.stdout, reply.error) == (Outcome.RAISED, "1\n", "ValueError: no")
    main = "import threading\ndef main(): print(open(0).read(), end='')\nif __name__ == '__main__': threading.Thread(target=main).start()"
    assert sandbox.script(main, "x" * 10**6).stdout == "x" * 10**6
    assert sandbox.script("import os\nos.write(1, b'out')\nos._exit(0)", "").stdout == "out"
    assert sandbox.script("while True: print('x' * 1000)", "", Limits(output_bytes=1 << 20)).outcome is Outcome.OUTPUT
    assert sandbox.script("print('early', flush=True)\nwhile True: pass", "", SHORT).outcome is Outcome.TIMEOUT


SOLUTION = """
def f(x):
    if x < 0:
        raise ValueError("negative")
    return x + 1
"""


@pytest.mark.parametrize(
    ("tests", "outcome", "error"),
    [
        ("assert f(1) == 2\nassert f(2) == 3", Outcome.RETURNED, ""),
        ("assert f(1) == 2\nassert f(2) == 4", Outcome.RAISED, "AssertionError: f(2) == 4"),
        ("assert f(\n    2\n) == 4, 'wrong'", Outcome.RAISED, "AssertionError: f(2) == 4 wrong"),
        ("def check(candidate):\n    assert candidate(1) == 3\ncheck(f)", Outcome.RAISED, "AssertionError: candidate(1) == 3"),
        ("try:\n    f(-1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'negative'", Outcome.RETURNED, ""),
        ("import math\nassert math.isclose(f(0.5), 1.5)", Outcome.RETURNED, ""),
        ("f('a')", Outcome.RAISED, "TypeError"),
        ("f(lambda: 1)", Outcome.RAISED, "what is not data"),
        ("while True: pass", Outcome.TIMEOUT, ""),
    ],
)
def test_judged(tests: str, outcome: Outcome, error: str) -> None:
    reply = sandbox.judged(SOLUTION, tests, ["f"], SHORT)
    assert reply.outcome is outcome, reply
    assert error in reply.error


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def f(x):\n    while True: pass", Outcome.TIMEOUT),
        ("def f(x): import os; os._exit(0)", Outcome.CRASHED),
        ('def f(x): import os; [os.write(n, b\'["returned",2,"","",""]\') for n in range(3, 200) if is_open(n)]', Outcome.CRASHED),
        ("class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()", Outcome.RAISED),
        ("import builtins\nbuiltins.AssertionError = ValueError\ndef f(x): raise AssertionError", Outcome.RAISED),
        ("def f(x):", Outcome.RAISED),
    ],
)
def test_tests_never_meet_the_candidate(source: str, outcome: Outcome) -> None:
    assert sandbox.judged(IS_OPEN + source, "assert f(1) == 2", ["f"], SHORT).outcome is outcome
    assert sandbox.judged(SOLUTION, "assert f(1) == 2", ["f"], SHORT).outcome is Outcome.RETURNED


def test_no_trace_of_other_checks_in_memory() -> None:
    """A candidate that searches all its memory finds neither another's source nor its inputs and values."""
    marks = ["".join(pair) for pair in zip("SOURCEINPUT", "abcdefghijk", strict=True)]
    word = "-".join(marks)
    found = calls(f"mark = {word!r}\ndef f(x): return x + mark", (word,), limits=Limits())[0]
    assert found.value == word + word
    search = """
    import ctypes, gc, sys
    def f(parts):
        libc = ctypes.CDLL(None)
        libc.memmem.restype = ctypes.c_void_p
        libc.memmem.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
        low = min(map(id, gc.get_objects())) & ~0xFFFFF
        high = max(map(id, gc.get_objects())) | 0xFFFFF
        word = "-".join(parts).encode()
        readable, step = bytearray(4096), 4096
        r, w = __import__("os").pipe()
        hits, page = 0, low
        while page < high and page - low < 1 << 28:
            if libc.write(w, ctypes.c_void_p(page), step) == step:
                if word[3:] in __import__("os").read(r, step): hits += 1
            page += step
        return hits
    """
    (reply,) = calls(search, (marks,), limits=Limits())
    assert reply.outcome is Outcome.RETURNED, reply
    assert reply.value <= 2, "its own copy of the word, and no other"  # type: ignore[operator]


def test_inside_a_daemonic_process_and_after_a_fork() -> None:
    assert calls("def f(): return 1")[0].value == 1  # the parent has workers of its own
    program = """
    import multiprocessing
    from onelayer.envs import sandbox
    def work(queue): queue.put([r.value for r in sandbox.calls("def f(): return 5", "f", [()])])
    if __name__ == "__main__":
        assert [r.value for r in sandbox.calls("def f(): return 4", "f", [()])] == [4]
        for method in ("fork", "spawn"):
            context = multiprocessing.get_context(method)
            queue = context.Queue()
            process = context.Process(target=work, args=(queue,), daemon=True)
            process.start()
            assert queue.get() == [5]
            process.join()
        assert [r.value for r in sandbox.calls("def f(): return 4", "f", [()])] == [4]
    """
    folder = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", dedent(program).replace('("fork", "spawn")', '("fork",)')], check=True, cwd=folder)


def test_a_worker_that_is_killed_is_replaced() -> None:
    from onelayer.envs.sandbox import pool

    assert calls("def f(): return 1")[0].value == 1
    for worker in list(pool.pool.idle["candidate"]):
        worker.process.kill()
        worker.process.wait()
    assert calls("def f(): return 2")[0].value == 2


def test_it_says_what_holds() -> None:
    with contextlib.suppress(UserError):
        found = sandbox.isolation()
        assert found.contained
        assert "seccomp" in found.layers
        assert str(found) in (sandbox.describe() or "")
