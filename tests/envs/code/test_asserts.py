"""Tests that are Python: which are run, how objects and changed arguments pass, and which are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.envs import UserError, load
from onelayer.envs.code import pytest_stub
from onelayer.envs.code.asserts import asserts
from onelayer.envs.code.grader import grade
from onelayer.envs.code.problems import Problem
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


METHODS = {
    "an entry point of LeetCode": {"entry_point": "Solution().f", "test": "def check(candidate):\n    assert candidate(a=2) == 4\n"},
    "the same without parentheses": {"entry_point": "Solution.f", "test": "def check(candidate):\n    assert candidate(2) == 4\n"},
    "asserts on a new object": {"entry_point": "f", "tests": ["assert Solution().f(2) == 4", "assert Solution().f('a') == 'aa'"]},
    "asserts on one object": {"tests": "s = Solution()\nassert s.f(2) == 4\nassert s.f('a') == 'aa'"},
    "an import": {"tests": "from solution import Solution\nassert Solution().f(2) == 4"},
}


@pytest.mark.parametrize("form", METHODS)
def test_methods_of_a_class(tmp_path: Path, form: str) -> None:
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [{"prompt": "Double.", **METHODS[form]}])), "all")[1].values()
    replies = {
        "class Solution:\n    def f(self, a):\n        return 2 * a": "correct",
        "class Solution:\n    def f(self, a):\n        return a": "wrong",
        "class Solution:\n    def g(self, a):\n        return a": "raised",
        "class E:\n    def __eq__(self, other): return True\nclass Solution:\n    def f(self, a):\n        return E()": "raised",
    }
    assert {reply: str(grade(f"```python\n{reply}\n```", problem).verdict) for reply in replies} == replies


REFUSED = {
    "an object handed on": (
        "t = Tree(1)\nassert depth(t) == 1",
        "class Tree: pass\ndef depth(t): return 1",
        "hands on an object: 'depth(t)'",
    ),
    "an object compared": ("assert Point(1) == Point(1)", "class Point: pass", "hands on an object"),
    "through an object": ("a = Node(1)\nassert a.next.value == 2", "class Node: pass", "hands on an object: 'a.next'"),
    "a function handed on": ("assert apply(lambda a: a, 1) == 1", "def apply(f, a): return f(a)", "hands a function or an object"),
    "an exception of its own": (
        "import pytest\ndef test_it():\n    with pytest.raises(Bad):\n        f()",
        "class Bad(ValueError): pass\ndef f(): pass",
        "uses Bad, an exception",
    ),
    "a constant": ("assert LIMIT == 3 and f() == 3", "LIMIT = 3\ndef f(): return 3", "uses LIMIT, a value"),
    "a generator": ("assert list(f()) == [1]", "def f():\n    yield 1", "uses f, a generator"),
    "what is printed": (
        "import io, sys\nsys.stdout = io.StringIO()\nf()\nassert sys.stdout.getvalue() == ''",
        "def f(): pass",
        "uses sys.stdout",
    ),
    "unittest": (
        "import unittest\nclass TestF(unittest.TestCase):\n    def test_f(self): assert f()",
        "def f(): return 1",
        "imports unittest",
    ),
    "a class of tests": ("class TestF:\n    def test_f(self): assert f()", "def f(): return 1", "has tests in a class, TestF"),
    "what is not installed": ("import no_such_module\nassert f()", "def f(): return 1", "imports no_such_module, which is not installed"),
    "what nothing defines": ("assert f() == wanted", "def f(): return 1", "uses wanted, which nothing defines"),
    "no assertion": ("f()", "def f(): return 1", "asserts nothing"),
    "another mark": ("import pytest\n@pytest.mark.skip\ndef test_f():\n    assert f()", "def f(): return 1", "uses pytest.mark.skip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tests_that_cannot_be_run_are_refused_by_name(tmp_path: Path, case: str) -> None:
    tests, solution, reason = REFUSED[case]
    suite = write(tmp_path / "own.jsonl", [{"prompt": "Do it.", "tests": tests, "solution": solution}])
    with pytest.raises(UserError) as error:
        load(CodeConfig(suite=suite, unreadable="refuse"), "all")
    assert f"own.jsonl:1: 'tests' {reason}" in str(error.value)


def test_functions_that_are_never_called_are_run(tmp_path: Path) -> None:
    """A file of tests as pytest has it, given as text: at the time of writing a program passed when nothing in it was called."""
    row = {"prompt": "Double it.", "entry_point": "f", "tests": "def test_f():\n    assert f(2) == 4\n"}
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [row])), "all")[1].values()
    assert [str(grade(f"def f(a): return {out}", problem).verdict) for out in ("2 * a", "a")] == ["correct", "wrong"]


def test_a_returned_answer_does_not_change_the_question(tmp_path: Path) -> None:
    row = {
        "prompt": "Sort.",
        "entry_point": "f",
        "tests": "f([1])\nitems = [2, 1]\nassert f(items) == sorted(items)",
        "solution": "def f(a):\n    return sorted(a)",
    }
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [row])), "all")[1].values()
    forged = "def f(a):\n    globals()['_remote_call'] = lambda *_: ([], [[]])\n    return []"
    for reply in ("def f(a):\n    a.clear()\n    return []", forged):
        assert grade(reply, problem).verdict == "wrong"


def test_arrays_pass() -> None:
    problem = Problem("t", "f", asserts("import numpy as np\na = np.array([1, 2])\nassert (f(a) == np.array([2, 4])).all()", "f"), "")
    replies = {"return 2 * a": "correct", "return a": "wrong", "return None": "wrong"}
    assert {reply: str(grade(f"def f(a):\n    {reply}", problem).verdict) for reply in replies} == replies
    single = Problem("t", "f", asserts("assert f(1) == 1", "f"), "")
    assert grade("import numpy\ndef f(a):\n    return numpy.array([1, 2])", single).verdict == "raised"  # as in Python


def test_what_stands_for_pytest_does_as_pytest() -> None:
    pairs = [(0.1 + 0.2, 0.3), (1, 1.1), ([1, 2.0000001], [1, 2]), ({"a": 1}, {"a": 1.00001}), (None, 1.0), ("a", "a"), (1e-13, 0)]
    for value, expected in pairs:
        assert (value == pytest_stub.approx(expected)) is (value == pytest.approx(expected)), (value, expected)
    assert (pytest_stub.approx(1, abs=0.5) == 1.4) is (pytest.approx(1, abs=0.5) == 1.4) is True
    assert (pytest_stub.approx(1, rel=0.1) == 1.4) is (pytest.approx(1, rel=0.1) == 1.4) is False
    for error in (None, ValueError("full"), ValueError("other"), KeyError("full")):

        def act(error: Exception | None = error) -> None:
            if error:
                raise error

        found = []
        for raises in (pytest_stub.raises, pytest.raises):
            try:
                with raises(ValueError, match="full") as info:
                    act()
                found.append(str(info.value))
            except KeyError:
                found.append("KeyError")
            except BaseException:  # pytest's failures are no exceptions
                found.append("failed")
        assert found[0] == found[1], error
