"""A row of a file or data set as a task: what the agent reads, and the tests."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import replace
from typing import Any

from ...common.errors import UserError
from ..data_files import Record
from ..items import Item
from .asserts import Unnamed, asserts, kinds_in
from .cases import Cases, cases_in
from .columns import (
    CHECKERS,
    IDS,
    PROMPTS,
    PUBLISHED_COLUMNS,
    PUBLISHED_PROMPTS,
    PUBLISHED_TESTS,
    SOLUTIONS,
    TESTS,
    TYPES,
    declarations_of,
    function_of,
    solution_in,
    tests_of,
)
from .config import CodeFields
from .extract import definition
from .problems import Asserts, Calls, Problem, Programs, Ungradable

Task = tuple[Item, Problem]
METHOD = re.compile(r"(\w+)(?:\(\))?\.(\w+)")  # Solution().f
# Before replies of functions: LiveCodeBench, APPS and TACO run them after such imports, and what LeetCode shows counts on them.
IMPORTS = """\
from typing import *
from collections import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
from math import *
from builtins import *
import collections, itertools, functools, heapq, bisect, math, string, re, random, operator, sys, copy, json
"""


def own_task(record: Record, fields: CodeFields, stem: str) -> Task:
    """The task of a row in a user's own form or a published one.

    Raises UserError with file, line and key for a row that lacks something; Ungradable, without them, for one that cannot be graded.
    """
    values = record.values
    item_id, prompt = name_of(record, fields, stem)
    key = find(record, "tests", fields.tests or _published(record, TESTS, PUBLISHED_TESTS), TESTS)
    container, entry_point = _entry_point(text(record, "entry_point", fields.entry_point, ("entry_point",), required=False), record)
    solution = _solution(record, fields, entry_point, container)
    given = tests_of(values, key)
    cases = cases_in(given, function_of(values) or entry_point)
    tests: Calls | Asserts | Programs
    if cases is not None:
        tests, entry_point, container = _with_checker(cases.tests(), record), cases.function, "Solution" if cases.function else ""
    else:
        tests = _asserts(given, record, key, entry_point, container, solution)
        entry_point = entry_point or tests.names[0]
        container = container or next((name for name in tests.classes if name != entry_point), "")
    preamble, _, head = prompt.partition(f"def {entry_point}(") if entry_point else (prompt, "", "")
    is_code = bool(head) and "```" not in prompt and prompt.rstrip().endswith(("'''", '"""', ":"))
    header, preamble = (prompt, preamble) if is_code else ("", IMPORTS if cases is not None and entry_point else "")
    if solution and is_code and not definition(entry_point, container).search(solution):
        solution = header + solution  # as HumanEval has it: the body alone
    digest = hashlib.sha256(json.dumps([entry_point, given], default=str).encode()).hexdigest()
    kind = next((values[name] for name in TYPES if values.get(name)), None)
    meta = {"tests": digest} if kind is None else {"type": str(kind), "tests": digest}
    item = Item(item_id, _question(record, prompt, cases), solution, meta)
    return item, Problem(item_id, entry_point, tests, digest, solution, header, preamble, container)


def name_of(record: Record, fields: CodeFields, stem: str) -> tuple[str, str]:
    """The id of a row and its prompt. Raises UserError as own_task does."""
    own_id = fields.id or next((name for name in IDS if name in record.values), None)
    item_id = str(record.values[find(record, "id", own_id, ())]) if own_id else f"{stem}/{record.number}"
    return item_id, text(record, "prompt", fields.prompt or _published(record, PROMPTS, PUBLISHED_PROMPTS), PROMPTS)


def _published(record: Record, usual: tuple[str, ...], published: tuple[str, ...]) -> str | None:
    """The key that a published set has in the place of the usual ones, if they are not there."""
    return None if any(key in record.values for key in usual) else next((key for key in published if key in record.values), None)


def _entry_point(name: str, record: Record) -> tuple[str, str]:
    """The class that holds the function, or nothing, and the function."""
    container, entry_point = found.groups() if (found := METHOD.fullmatch(name)) else ("", name)
    if entry_point and not entry_point.isidentifier():
        raise wrong(record, f"the entry point {entry_point!r} is not the name of a function; correct it")
    return container, entry_point


def _asserts(given: Any, record: Record, key: str, entry_point: str, container: str, solution: str) -> Asserts:
    published = not PUBLISHED_COLUMNS.isdisjoint(record.values)  # whose rows nobody here can correct
    if published and not (given.strip() if isinstance(given, str) else given):
        raise Ungradable("it has no tests")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(test, str) and test.strip() for test in texts):
        raise wrong(
            record,
            f'{key!r} is neither text, a list of assert statements nor a list of {{"input": "...", "output": "..."}}; write one of these',
        )
    declared = kinds_in(declarations_of(record.values)) | ({container: "class"} if container else {})
    if "Solution()" in "\n".join(texts):
        declared["Solution"] = "class"
    try:
        return asserts(given, f"{container}().{entry_point}" if container else entry_point, solution, declared)
    except Unnamed as error:
        if published:
            raise Ungradable(f"{key!r} does not say which function it tests") from error
        has = ", ".join(record.values)
        raise wrong(record, f"no key 'entry_point', the name of the function that {key!r} calls; it has {has}") from error
    except Ungradable as error:
        raise Ungradable(f"{key!r} {error}") from error
    except SyntaxError as error:
        message = f"{key!r} is not Python ({error})"
        raise wrong(record, f"{message}; correct it") if "entry_point" in record.values else Ungradable(message) from error


def _with_checker(tests: Calls | Programs, record: Record) -> Calls | Programs:
    """The tests with the checker that the row brings, if any."""
    key = next((key for key in CHECKERS if record.values.get(key)), None)
    if key is None or isinstance(tests, Calls):
        return tests
    checker = record.values[key]
    if not isinstance(checker, str) or not definition("check").search(checker):
        raise Ungradable(f"{key!r} defines no check(input, output, expected)")
    try:
        ast.parse(checker)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Ungradable(f"{key!r} is not Python ({error})") from error
    return replace(tests, checker=checker)


def _question(record: Record, prompt: str, cases: Cases | None) -> str:
    """What the agent reads: the prompt, the starter code or declaration that is not in it, and what a program reads and prints."""
    question = prompt.strip()
    starter = text(record, "starter_code", None, ("starter_code",), required=False).strip("\n")
    code = starter or declarations_of(record.values)
    if code and code.strip() not in question:
        question += f"\n\n{'Use this starter code' if starter else 'The declaration is'}:\n```python\n{code}\n```"
    if cases is not None and cases.published and not cases.function:
        question += "\n\nRead from standard input and print to standard output."
    elif cases is not None and cases.function not in question:
        question += f"\n\nThe function is called {cases.function}."
    return question


def _solution(record: Record, fields: CodeFields, entry_point: str, container: str) -> str:
    key = fields.solution or next((key for key in SOLUTIONS if key in record.values), None)
    value = record.values[find(record, "solution", key, ())] if key else None
    if value is not None and not isinstance(value, (str, list)):
        text(record, "solution", key, ())  # says what is wrong
    return solution_in(value, entry_point, container) if value else ""


def wrong(record: Record, message: str) -> UserError:
    return UserError(f"{record.place}:{record.number}: {message}")


def find(record: Record, what: str, named: str | None, usual: tuple[str, ...]) -> str:
    """The key of a field. Raises UserError where it is missing."""
    keys = (named,) if named else usual
    key = next((key for key in keys if key in record.values), None)
    if key is None:
        raise wrong(record, f"no key {' or '.join(map(repr, keys))}; it has {', '.join(record.values)}; set env.fields.{what}")
    return key


def text(record: Record, what: str, named: str | None, usual: tuple[str, ...], required: bool = True) -> str:
    """A field as text that can be written to a file; empty where it is missing and need not be there."""
    if not required and named is None and not any(key in record.values for key in usual):
        return ""
    key = find(record, what, named, usual)
    value = record.values[key]
    if not required and (value is None or value == ""):
        return ""
    if not isinstance(value, str) or not value.strip():
        raise wrong(record, f"{key!r} is {json.dumps(value, default=str)[:40]}, but must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(record, f"{key!r} holds half a surrogate pair; write the character itself") from error
    return value
