"""Where programming tasks come from: generated functions, the suites of EvalPlus, JSON-lines files.

A user's own file is divided into train, validation and test by a hash of the task's text. The tests stay out of the items, in a table of
problems by id; their digest is in the item, so that a split's digest names them too.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import CodeConfig, CodeFields
from ..errors import UserError
from ..files import write_atomically
from ..items import Item, Split, tenth
from ..math.sources import OWN_FILE, Record, read_lines
from . import functions, plus
from .extract import definition
from .problems import Asserts, Problem, Programs
from .reference import cache

Task = tuple[Item, Problem]
Problems = Mapping[str, Problem]
PROMPTS, TESTS = ("prompt", "question", "text"), ("tests", "test_list", "test")
SOLUTIONS = ("canonical_solution", "solution", "code")


def load(config: CodeConfig, split: str) -> Split:
    """The items of one split, checked. Cached: the same configuration gives the same object.

    Raises UserError for an unknown suite or split, and for data that is missing or broken (with file, line and key).
    """
    return load_problems(config, split)[0]


def load_problems(config: CodeConfig, split: str) -> tuple[Split, Problems]:
    """The items of one split, and their tests by id. Cached, raises as `load` does."""
    return _load(config.model_copy(update={"max_turns": 1}), split, os.environ.get("ONELAYER_DATA"))


@functools.lru_cache(maxsize=32)
def _load(config: CodeConfig, split: str, data: str | None) -> tuple[Split, Problems]:
    name = f"{config.suite}/{split}"
    if config.suite == "functions":
        _require(split, functions.SPLITS, config.suite)
        tasks = functions.generate(split, config.size, config.seed)
    elif config.suite in plus.RELEASES:
        _require(split, ("test",), config.suite)
        tasks = read_release(config.suite, data)
    elif config.suite.endswith(".jsonl"):
        _require(split, OWN_FILE, config.suite)
        every = read_own(Path(config.suite), config.fields)
        tasks = [(item, problem) for item, problem in every if tenth(item.text_key) in OWN_FILE[split]]
        if not tasks:
            raise UserError(
                f"{config.suite}: none of its {len(every)} tasks falls into {split}; add tasks, or take another of {', '.join(OWN_FILE)}"
            )
    else:
        raise UserError(f"no suite {config.suite!r}; there are functions, {', '.join(plus.RELEASES)}, and files (NAME.jsonl)")
    if config.size is not None and config.size > len(tasks):
        raise UserError(f"env.size={config.size}, but {name} has {len(tasks)} tasks: lower it, or leave it out to take all")
    tasks = tasks[: config.size]
    return Split(name, tuple(item for item, _ in tasks)), {item.id: problem for item, problem in tasks}


def _require(split: str, there: Any, suite: str) -> None:
    if split not in there:
        raise UserError(f"{suite} has no split {split!r}; it has {', '.join(there)}")


def read_release(suite: str, data: str | None) -> list[Task]:
    """A suite of EvalPlus: its file under ONELAYER_DATA, else as it was released, which is fetched once and kept.

    Raises UserError where neither is there or the file is broken.
    """
    release = plus.RELEASES[suite]
    own = Path(data, release.file) if data else None
    path = own if own is not None and own.exists() else cache().parent / Path(release.file).name
    if not path.exists():
        write_atomically(path, _fetch(suite, release))
    records = _gzipped_lines(path)
    return [_released(record) for record in records]


def _fetch(suite: str, release: plus.Release) -> bytes:
    """The released file, checked. Raises UserError where it can not be had."""
    import http.client
    import urllib.request

    remedy = f"set ONELAYER_DATA to a folder that holds {release.file}"
    try:
        with urllib.request.urlopen(release.url, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{suite}: not at hand, and {release.url} can not be fetched ({error}); {remedy}") from error
    try:
        found = hashlib.sha256(gzip.decompress(content)).hexdigest()
    except (OSError, EOFError, zlib.error):
        found = "of no gzip file"
    if found != release.sha256:
        raise UserError(f"{suite}: what {release.url} gives is another file than was released (SHA-256 {found}); {remedy}")
    return content


def _gzipped_lines(path: Path) -> list[Record]:
    try:
        lines = gzip.decompress(path.read_bytes()).split(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can not be unpacked ({error}); fetch it again") from error
    records = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); fetch it again") from error
            if not isinstance(values, dict):
                raise UserError(f"{path}:{number}: a {type(values).__name__}, but each line is one JSON object; fetch it again")
            records.append(Record(str(path), number, values))
    return records


def _released(record: Record) -> Task:
    """A line in the format of EvalPlus. Raises UserError for a key that is missing or of another type."""
    kinds = {"base_input": list, "plus_input": (list, dict), "atol": (int, float)}
    for key in plus.KEYS:
        if not isinstance(record.values.get(key), kinds.get(key, str)):
            problem = "is of another type than EvalPlus's" if key in record.values else "is missing"
            raise UserError(f"{record.place}:{record.number}: {key!r} {problem}; correct the line")
    problem = plus.problem(record.values)
    text = problem.header.strip() or record.values["prompt"].strip().strip('"').strip()
    question = f"Complete this function.\n```python\n{text}\n```" if problem.header else text
    return Item(problem.id, question, problem.solution, {"tests": problem.digest}), problem


def read_own(path: Path, fields: CodeFields) -> list[Task]:
    """A user's file. Its tests are assert statements (a text, or a list of them), or pairs of what a program is given and must print:
    {"input": ..., "output": ...}. Lines in the format of EvalPlus (with base_input) are read as such.

    Raises UserError with file, line and key.
    """
    tasks: list[Task] = []
    places: dict[str, str] = {}
    for record in read_lines(path):
        place = f"{path}:{record.number}"
        task = _released(record) if "base_input" in record.values else _own(record, place, fields, path.stem)
        item_id = task[0].id
        if item_id in places:
            raise UserError(f"{place}: the id {item_id!r} is taken by {places[item_id]}; ids must differ")
        places[item_id] = place
        tasks.append(task)
    return tasks


def _own(record: Record, place: str, fields: CodeFields, stem: str) -> Task:
    question = _text(record, place, "prompt", fields.prompt, PROMPTS)
    key = _key(record, place, "tests", fields.tests, TESTS)
    entry_point = _text(record, place, "entry_point", fields.entry_point, ("entry_point",), required=False)
    tests = _tests(record.values[key], entry_point, f"{place}: {key!r}")
    if isinstance(tests, Asserts) and not entry_point:
        raise UserError(f"{place}: no key 'entry_point', the name of the function that {key!r} calls; it has {', '.join(record.values)}")
    if entry_point and not entry_point.isidentifier():
        raise UserError(f"{place}: the entry point {entry_point!r} is no name of a function; correct it")
    solution = _text(record, place, "solution", fields.solution, SOLUTIONS, required=False)
    own_id = fields.id or ("task_id" if "task_id" in record.values else None)
    item_id = str(record.values[_key(record, place, "id", own_id, ())]) if own_id else f"{stem}/{record.number}"
    digest = hashlib.sha256(json.dumps([entry_point, record.values[key]]).encode()).hexdigest()
    meta = {"type": str(record.values["type"])} if "type" in record.values else {}
    preamble, _, head = question.partition(f"def {entry_point}(") if entry_point else (question, "", "")
    is_code = bool(head) and "```" not in question and question.rstrip().endswith(("'''", '"""', ":"))
    header, preamble = (question, preamble) if is_code else ("", "")
    if solution and is_code and not definition(entry_point).search(solution):
        solution = header + solution  # as HumanEval has it: the body alone
    item = Item(item_id, question.strip(), solution, {**meta, "tests": digest})
    return item, Problem(item_id, entry_point, tests, digest, solution, header, preamble)


def _tests(value: Any, entry_point: str, where: str) -> Asserts | Programs:
    """The tests of a line. Raises UserError for any other form."""
    if isinstance(value, str) and value.strip():
        given = f"{value}\ncheck({entry_point})" if re.search(r"^def check\(", value, re.MULTILINE) and not CALLED.search(value) else value
        return Asserts("", (_python(given, where),))
    if isinstance(value, list) and value and all(isinstance(test, str) for test in value):
        statements = tuple(_python(test, where) for test in value)
        asserting = tuple(test for test in statements if "assert" in test)
        return Asserts("\n".join(test for test in statements if "assert" not in test), asserting or statements)
    if isinstance(value, list) and value and all(isinstance(pair, dict) and _pair(pair) for pair in value):
        return Programs(tuple((pair["input"], pair["output"]) for pair in value))
    raise UserError(
        f'{where} is no text, no list of assert statements, and no list of {{"input": "...", "output": "..."}}; write one of these'
    )


CALLED = re.compile(r"^check\(", re.MULTILINE)


def _pair(pair: dict[str, Any]) -> bool:
    return all(isinstance(pair.get(key), str) for key in ("input", "output"))


def _python(text: str, where: str) -> str:
    try:
        compile(text, "tests", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where} is no Python ({error}); correct {text[:60]!r}") from error
    return text


def _key(record: Record, place: str, what: str, named: str | None, usual: tuple[str, ...]) -> str:
    keys = (named,) if named else usual
    key = next((key for key in keys if key in record.values), None)
    if key is None:
        raise UserError(f"{place}: no key {' or '.join(map(repr, keys))}; it has {', '.join(record.values)}; set env.fields.{what}")
    return key


def _text(record: Record, place: str, what: str, named: str | None, usual: tuple[str, ...], required: bool = True) -> str:
    """A field as text that can be written to a file; empty where it is missing and need not be there."""
    if not required and named is None and not any(key in record.values for key in usual):
        return ""
    key = _key(record, place, what, named, usual)
    value = record.values[key]
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {key!r} is {json.dumps(value)[:40]}, but a text is wanted")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: {key!r} holds half a surrogate pair; write the character itself") from error
    return value
