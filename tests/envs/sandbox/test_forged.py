"""Tests and forged replies: no exception and no message of a candidate's making passes a test or disturbs who grades it."""

from __future__ import annotations

import sys
import time

import pytest

from onelayer.envs import sandbox
from onelayer.envs.code.asserts import asserts
from onelayer.envs.code.grader import Verdict, check
from onelayer.envs.code.problems import Problem
from onelayer.envs.sandbox import Limits, Outcome

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox runs on Linux")
SHORT = Limits(cpu_seconds=1, total_cpu_seconds=2, memory_bytes=400 << 20)
RIGHT = "def f(x): return x + 1"
LOOPS = {  # all of them end early and content where the function under test raises what ends an iteration
    "zip and map": "for x, y in zip(map(f, [1, 2]), [2, 3]): assert x == y",
    "all": "assert all(map(lambda x: f(x) == x + 1, [1, 2]))",
    "not any": "assert not any(map(lambda x: f(x) != x + 1, [1, 2]))",
    "a comparison of as many as came": "for got, want in zip([*map(f, [1, 2])], [2, 3]): assert got == want",
    "next with a default": "assert next(map(f, [1]), 2) == 2",
    "sum": "assert sum(map(lambda x: f(x) - x - 1, [1, 2])) == 0",
    "filter": "assert not list(filter(lambda x: f(x) != x + 1, [1, 2]))",
    "iter with a sentinel": "n = iter([1])\nfor y in iter(lambda: f(next(n)), 2): assert False",
    "max with a default": "assert max(map(f, [0]), default=1) == 1",
    "an iterator of the tests": (
        "class Each:\n    n = 0\n    def __iter__(self): return self\n    def __next__(self):\n        self.n += 1\n"
        "        if self.n > 2: raise StopIteration\n        return self.n, f(self.n)\nfor x, y in Each(): assert y == x + 1"
    ),
    "an asynchronous iterator of the tests": (
        "import asyncio\nclass Each:\n    n = 0\n    def __aiter__(self): return self\n"
        "    async def __anext__(self):\n        self.n += 1\n"
        "        if self.n > 2: raise StopAsyncIteration\n        return self.n, f(self.n)\n"
        "async def main():\n    async for x, y in Each(): assert y == x + 1\nasyncio.run(main())"
    ),
    "a program that exits": "import sys\nassert f(1) == 2",
    "a generator": "def each():\n    for x in [1, 2]: yield x, f(x)\nfor x, y in each(): assert y == x + 1",
}
RAISE = {
    "StopIteration": "def f(x): raise StopIteration",
    "StopIteration with a value": "def f(x): raise StopIteration(x + 1)",
    "StopAsyncIteration": "def f(x): raise StopAsyncIteration",
    "next of nothing": "def f(x): return next(iter(()))",
    "a class derived from StopIteration": "class AssertionPassed(StopIteration): pass\ndef f(x): raise AssertionPassed",
    "two bases": "class Both(ValueError, StopIteration): pass\ndef f(x): raise Both",
    "GeneratorExit": "def f(x): raise GeneratorExit",
    "SystemExit": "def f(x): raise SystemExit(0)",
    "KeyboardInterrupt": "def f(x): raise KeyboardInterrupt",
    "BaseException": "class Done(BaseException): pass\ndef f(x): raise Done",
    "CancelledError": "import asyncio\ndef f(x): raise asyncio.CancelledError",
    "SkipTest": "import unittest\ndef f(x): raise unittest.SkipTest('all is well')",
    "a group": "def f(x): raise ExceptionGroup('', [StopIteration()])",
}
WRITE = """
import fcntl, os, time
def forge(text):
    raw = text if type(text) is bytes else text.encode()
    for n in range(3, 60):
        try:
            if fcntl.fcntl(n, fcntl.F_GETFL) & 3: os.write(n, len(raw).to_bytes(4, "big") + raw)
        except OSError: pass
    time.sleep(60)
"""
ERRORS = ("print", "exit", "eval", "type", "object", "StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit", "__import__", "")
FORGED = {
    **{f"an error called {kind}": f'["raised", null, "", "x: y", "{kind}"]' for kind in ERRORS},
    "a value that is too deep": '["returned",' + "[" * 420 + "]" * 420 + ',"","",""]',
    "brackets without an end": "[" * 100_000,
    "brackets in front of the end": '["returned",1,"","' + "]" * 1000 + '",' + "[" * 1000,
    "objects without an end": '{"t":' * 50_000,
    "an array of nothing": '["returned",{"n":["O",[]]},"","",""]',
    "an array of a type that is none": '["returned",{"n":["evil",[1]]},"","",""]',
    "an array that is too large": '["returned",{"n":["U999999999",["x"]]},"","",""]',
    "another's call": '["call","f",{"t":[1]},{"d":[]}]',
    "half a pair": '["raised",null,"\\ud800","\\udfff","ValueError"]',
    "two values": '["returned",2,"","",""] ["returned",2,"","",""]',
    "an outcome that is none": '["passed",2,"","",""]',
    "NaN": "NaN",
}
LINES = ["\\ud800", "a\\nb", "\\r\\n\\u2028x", "x" * 10_000]


@pytest.mark.parametrize("loop", LOOPS)
def test_no_exception_ends_the_tests_as_if_they_had_passed(loop: str) -> None:
    assert sandbox.judged(RIGHT, LOOPS[loop], ["f"], SHORT).outcome is Outcome.RETURNED
    for name, source in RAISE.items():
        reply = sandbox.judged(source, LOOPS[loop], ["f"], SHORT)
        assert reply.outcome is Outcome.RAISED, (name, reply)


def test_stop_iteration_does_not_pay_in_grading() -> None:
    problem = Problem(id="loop", entry_point="f", digest="", tests=asserts([LOOPS["zip and map"]], "f"))
    assert check(RIGHT, problem).verdict is Verdict.CORRECT
    assert check(RAISE["StopIteration"], problem).verdict is Verdict.RAISED


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_reply_is_only_wrong(name: str) -> None:
    source = f"{WRITE}\ndef f(x): forge({FORGED[name]!r})"
    for tests in ("assert f(1) == 2", "assert (f(1) == 2) is True"):
        assert sandbox.judged(source, tests, ["f"], SHORT).outcome not in (Outcome.RETURNED, Outcome.UNREADABLE)
    (reply,) = sandbox.calls(source, "f", [(1,)], SHORT)
    assert reply.value != 2
    assert sandbox.judged(RIGHT, "assert f(1) == 2", ["f"], SHORT).outcome is Outcome.RETURNED


def test_values_that_python_could_not_have_written_are_refused_quickly() -> None:
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(200_000)  # as some callers do; the parser would then use up the stack
        started = time.process_time()
        for text in ("[" * 4_000_000, "[" * 2_000_000 + "]" * 2_000_000, '{"t":[' * 500_000, '"' + "[" * 4_000_000):
            (reply,) = sandbox.calls(f"{WRITE}\ndef f(): forge({text[:7]!r} * {len(text) // 7})", "f", [()], Limits(cpu_seconds=1))
            assert reply.outcome is Outcome.CRASHED
        assert time.process_time() - started < 5
    finally:
        sys.setrecursionlimit(limit)


def test_what_takes_long_to_read_counts_as_the_candidates_time() -> None:
    """The last of an object's equal keys is its value, so a right answer can hide behind a load of others."""
    reply = """'["returned",{"t":[' + ",".join(['{"F":[1,2]}'] * 150_000) + '],"t":[1]},"","",""]'"""
    source = WRITE.replace("    time.sleep(60)", "") + f"def f(x):\n    for _ in range(30): forge({reply})\n    time.sleep(60)"
    started = time.process_time()
    replies = list(sandbox.calls(source, "f", [(1,)] * 30, SHORT))
    assert replies[0].value == (1,)
    assert replies[-1].outcome is Outcome.TIMEOUT
    assert time.process_time() - started < 6


@pytest.mark.parametrize("line", LINES)
def test_texts_of_errors_can_be_stored(line: str) -> None:
    source = f"""{WRITE}\ndef f(x): forge('["raised", null, "{line}", "E: {line}", "{line}"]')"""
    (reply,) = sandbox.calls(source.replace("\\", "\\\\"), "f", [(1,)], SHORT)
    for text in (reply.error, reply.kind):
        assert len(text.encode()) < 4000
        assert text.splitlines() in ([text], [])
    reply.stdout.encode()


def test_arrays_in_tests() -> None:
    """numpy's on both sides."""
    source = "import numpy\ndef f(x): return numpy.asarray(x) * 2"
    tests = "import numpy\nassert (f(numpy.arange(3)) == [0, 2, 4]).all()\nassert f([1.5]).dtype == float"
    assert sandbox.judged(source, tests, ["f"], Limits()).outcome is Outcome.RETURNED
