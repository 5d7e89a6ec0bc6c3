"""The code grader: a reply or a program in, a verdict out. Nothing that a candidate does raises here.

docs/code-grading.md lists the rules.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from ...common.errors import UserError
from ..sandbox import Limits, Outcome, Reply, calls, judged, script
from . import remote
from .extract import extract_code
from .problems import Args, Asserts, Calls, Problem, Programs
from .reference import reference
from .show import call_text, calls_in, short, short_text


class Verdict(StrEnum):
    """What became of a reply."""

    CORRECT = "correct"
    """It passes every test."""
    WRONG = "wrong"
    """A test gave another result than the right one."""
    RAISED = "raised"
    """It raised an exception, or is no valid Python, or lacks the function."""
    TIMEOUT = "timeout"
    """It used up its time."""
    MEMORY = "memory"
    """It used up its memory."""
    CRASHED = "crashed"
    """Its process ended."""
    OUTPUT = "output"
    """It printed or returned more than is let through."""
    NO_CODE = "no_code"
    """The reply holds no code."""


@dataclass(frozen=True)
class Failure:
    """The first test that failed, in words fit to be shown: every part is bounded in length."""

    input: str
    """The call, or what was typed in."""
    result: str
    """What came out, or the error."""
    expected: str | None
    """What was right, only where the task's own text says it too."""

    def __str__(self) -> str:
        right = f" It must be {self.expected}." if self.expected is not None else ""
        return f"{self.input} gave {self.result}.{right}"


@dataclass(frozen=True)
class Result:
    """What came of a reply."""

    verdict: Verdict
    """Over all tests."""
    base: Verdict
    """Over the base tests alone; the same where there are no others."""
    failure: Failure | None = None
    """None for a correct program and for a reply without one."""
    program: str | None = None
    """The code that was found in the reply."""


CALL_FACTOR = 4.0
"""How many times the CPU seconds of the slowest call that the task's own solution makes a call may take. EvalPlus's figure."""
CHECK_SECONDS, CHECK_FACTOR = 60.0, 2.0
"""CPU seconds of a whole check, and what it may take of those of the task's own solution, if that is more."""


def grade(reply: str, problem: Problem) -> Result:
    """The verdict on one reply. Safe from any thread and inside any process; blocks while the candidate runs.

    Raises UserError where this machine offers no sandbox, and where the task's own solution fails.
    """
    wanted = problem.tests.names if isinstance(problem.tests, Asserts) else ()
    code = extract_code(reply, problem.entry_point, problem.header, problem.preamble, problem.container, wanted)
    if code is None:
        return Result(Verdict.NO_CODE, Verdict.NO_CODE)
    return replace(check(code, problem), program=code)


def check(program: str, problem: Problem) -> Result:
    """The verdict on a whole program. Raises as `grade` does."""
    program = program.encode("utf-8", "replace").decode()  # half a surrogate pair cannot reach a file
    tests = problem.tests
    if problem.container:
        program += METHOD.format(container=problem.container, name=problem.entry_point)
    if isinstance(tests, Calls):
        return _check_calls(program, problem, tests)
    if isinstance(tests, Asserts):
        return _check_asserts(program, problem, tests)
    return _check_programs(program, tests)


# A program may hold the function as a method; each call is then made on a new object.
METHOD = """
if hasattr(globals().get("{container}"), "{name}"):
    def {name}(*args, **kwargs):
        return getattr({container}(), "{name}")(*args, **kwargs)
"""


def _check_calls(program: str, problem: Problem, tests: Calls) -> Result:
    right = reference(problem)
    limits = Limits(
        cpu_seconds=max(tests.cpu_seconds, CALL_FACTOR * right.slowest),
        total_cpu_seconds=max(CHECK_SECONDS, CHECK_FACTOR * right.total),
        output_bytes=max(Limits.output_bytes, 4 * right.largest),
    )
    inputs = tests.base + tests.plus
    passed, failed = 0, None
    with closing(calls(program, problem.entry_point, inputs, limits)) as replies:
        for args, reply, expected in zip(inputs, replies, right.outputs, strict=False):
            if not _accepted(tests, args, reply, expected, right.atol):
                failed = reply
                break
            passed += 1
    if passed == len(inputs):
        return Result(Verdict.CORRECT, Verdict.CORRECT)
    verdict = _verdict(failed.outcome) if failed else Verdict.CRASHED
    expected = short(right.outputs[passed]) if passed < tests.shown else None
    failure = Failure(call_text(problem.entry_point, inputs[passed]), _result(failed), expected)
    return Result(verdict, Verdict.CORRECT if passed >= len(tests.base) else verdict, failure)


def _accepted(tests: Calls, args: Args, reply: Reply, expected: object, atol: float) -> bool:
    if tests.not_none and reply.outcome is Outcome.UNREADABLE:
        return expected is True  # an object such as re.Match is something
    if reply.outcome is not Outcome.RETURNED:
        return False
    try:
        return bool(tests.accepts(args, reply.value, expected, atol))
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError):  # of a type that the rule cannot deal with
        return False


def _check_asserts(program: str, problem: Problem, tests: Asserts) -> Result:
    statements = [tests.setup, *tests.statements]
    reply = judged(program + remote.IN_PROGRAM, NUMBERED.format(statements=statements), remote.NAMES)
    if reply.outcome is Outcome.RETURNED:
        return Result(Verdict.CORRECT, Verdict.CORRECT)
    verdict, call, result = _verdict(reply.outcome), "A test", _result(reply)
    if found := FAILED.match(reply.error):
        call = calls_in(statements[int(found[1])], problem.entry_point)
        verdict = Verdict.WRONG if found[2] == "AssertionError" else verdict
        result = "another result" if verdict is Verdict.WRONG else f"the error {short_text(f'{found[2]}: {found[3]}')}"
    return Result(verdict, verdict, Failure(call, result, None))


# Says which statement failed, and not with what it was compared.
NUMBERED = """\
for _at, _statement in enumerate({statements!r}):
    try:
        exec(compile(_statement, "<test>", "exec"), globals())
    except Exception as _error:
        raise RuntimeError(f"{{_at}} {{type(_error).__name__}}: {{_error}}") from None
"""
FAILED = re.compile(r"RuntimeError: (\d+) (\w+): ?(.*)", re.DOTALL)


def _check_programs(program: str, tests: Programs) -> Result:
    limits = Limits(cpu_seconds=tests.cpu_seconds)
    for typed, printed in tests.pairs:
        reply = script(program, typed, limits)
        if reply.outcome is Outcome.RETURNED and _printed_right(tests, typed, reply.stdout, printed):
            continue
        verdict = _verdict(reply.outcome)
        result = short_text(reply.stdout) if verdict is Verdict.WRONG else _result(reply)
        return Result(verdict, verdict, Failure(f"The input {short_text(typed)}", result, None))
    return Result(Verdict.CORRECT, Verdict.CORRECT)


def _printed_right(tests: Programs, typed: str, printed: str, expected: str) -> bool:
    """Raises UserError where the checker that the data brings does not take the right output either."""
    if not tests.checker:
        return tests.printed.same(printed, expected)
    reply = _checked(tests.checker, typed, printed, expected)
    if reply.outcome is not Outcome.RETURNED and _checked(tests.checker, typed, expected, expected).outcome is not Outcome.RETURNED:
        raise UserError(f"the checker of a task fails on the input {short_text(typed)} ({reply.outcome}: {reply.error}); correct it")
    return reply.outcome is Outcome.RETURNED and reply.value is True


def _checked(checker: str, *texts: str) -> Reply:
    with closing(calls(checker, "check", [texts])) as replies:
        return next(replies)


OUTCOMES = {Outcome.RETURNED: Verdict.WRONG, Outcome.UNREADABLE: Verdict.WRONG}


def _verdict(outcome: Outcome) -> Verdict:
    """The verdict on a test that did not pass."""
    return OUTCOMES.get(outcome) or Verdict(str(outcome))


def _result(reply: Reply | None) -> str:
    if reply is None:
        return "nothing: the process ended"
    if reply.outcome is Outcome.RETURNED:
        return short(reply.value)
    return f"the error {short_text(reply.error)}" if reply.error else str(reply.outcome)
