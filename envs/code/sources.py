"""Where programming tasks come from: generated functions, the suites of EvalPlus, JSON-lines files, Hugging Face data sets.

A user's own file is divided into train, validation and test by a hash of the task's text. The tests stay out of the items, in a table of
problems by id; their digest is in the item, so that a split's digest names them too.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...common.files import write_atomically
from ...common.reading import open_regular, parse_json
from ..data_files import OWN_FILE, Record, hub_rows, read_lines, require_split, warn_of_skipped
from ..items import Item, Skipped, Split, tenth
from . import functions, plus
from .config import CodeConfig, CodeFields
from .problems import Problem, Ungradable
from .reference import cache
from .rows import Task, name_of, own_task

Problems = Mapping[str, Problem]
LARGEST_RELEASE = 1 << 30  # bytes, unpacked


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
    skipped: list[Skipped] = []
    if config.suite == "functions":
        require_split(split, functions.SPLITS, config.suite)
        tasks = functions.generate(split, config.size, config.seed)
    elif config.suite in plus.RELEASES:
        require_split(split, ("test",), config.suite)
        tasks = read_release(config.suite, data)[: config.size]
    elif config.suite.startswith("hub:") or config.suite.endswith(".jsonl"):
        tasks, skipped = _own(config, split)
    else:
        built_in = ", ".join(("functions", *plus.RELEASES))
        raise UserError(f"no suite {config.suite!r}; there are {built_in}, and files (NAME.jsonl) and data sets (hub:OWNER/NAME)")
    if config.size is not None and config.size > len(tasks):
        raise UserError(f"env.size={config.size}, but {name} has {len(tasks)} tasks: lower it, or leave it out to take all")
    found = Split(name, tuple(item for item, _ in tasks), tuple(skipped))
    warn_of_skipped(found)
    return found, {item.id: problem for item, problem in tasks}


def _own(config: CodeConfig, split: str) -> tuple[list[Task], list[Skipped]]:
    """The first `size` tasks of a split of a file or data set, and those passed over on the way.

    Raises UserError where nothing falls into the split and where nothing of it can be graded.
    """
    records, stem, tenths = _records(config.suite, split)
    tasks: list[Task] = []
    skipped: list[Skipped] = []
    count = 0
    for row in read_own(records, config.fields, stem, config.unreadable == "refuse"):
        count += 1
        if tenth(row.text_key) not in tenths[split]:
            continue
        if config.size is not None and len(tasks) == config.size:
            break
        if row.task:
            tasks.append(row.task)
        else:
            skipped.append(Skipped(row.id, row.reason, len(tasks)))
    if not tasks and skipped:
        raise UserError(f"{config.suite}: {skipped[0].id}: {skipped[0].reason}; the same holds for all {len(skipped)} tasks of {split}")
    if not tasks:
        raise UserError(f"{config.suite}: none of its {count} tasks falls into {split}; add tasks, or take another of {', '.join(tenths)}")
    return tasks, skipped


def _records(suite: str, split: str) -> tuple[Iterable[Record], str, Mapping[str, range]]:
    """The rows of a file or data set, how the ids begin that it does not give, and which tenths make each split."""
    if suite.endswith(".jsonl"):
        require_split(split, OWN_FILE, suite)
        return read_lines(Path(suite)), Path(suite).stem, OWN_FILE
    name, _, config = suite.removeprefix("hub:").partition(":")
    return hub_rows(name, config or None, split, suite)


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
    """The released file, checked. Raises UserError where it cannot be had."""
    import http.client
    import urllib.request

    remedy = f"set ONELAYER_DATA to a folder that holds {release.file}"
    try:
        with urllib.request.urlopen(release.url, timeout=60) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"{suite}: not at hand, and {release.url} cannot be fetched ({error}); {remedy}") from error
    try:
        found = hashlib.sha256(gzip.decompress(content)).hexdigest()
    except (OSError, EOFError, zlib.error):
        found = "of no gzip file"
    if found != release.sha256:
        raise UserError(f"{suite}: what {release.url} gives is another file than was released (SHA-256 {found}); {remedy}")
    return content


def _gzipped_lines(path: Path) -> list[Record]:
    try:
        with open_regular(path) as packed, gzip.open(packed) as file:
            data = file.read(LARGEST_RELEASE + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked ({error}); fetch it again") from error
    if len(data) > LARGEST_RELEASE:
        raise UserError(f"{path}: more than {LARGEST_RELEASE} bytes unpacked; fetch it again")
    records = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                values = parse_json(line)
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


@dataclass(frozen=True)
class Row:
    """A row as it was read: a task, or the reason why it cannot be graded."""

    id: str
    text_key: str
    """The task's text, by which a file is divided."""
    task: Task | None
    reason: str = ""


def read_own(records: Iterable[Record], fields: CodeFields, stem: str, refuse: bool) -> Iterator[Row]:
    """The rows of a user's file or a data set (rows.py). Lines in the format of EvalPlus (with base_input) are read as such.

    Raises UserError with file, line and key; where `refuse` says so, for a row that cannot be graded too.
    """
    places: dict[str, str] = {}
    for record in records:
        place = f"{record.place}:{record.number}"
        try:
            task = _released(record) if "base_input" in record.values else own_task(record, fields, stem)
            row = Row(task[0].id, task[0].text_key, task)
        except Ungradable as error:
            if refuse:
                raise UserError(f"{place}: {error}; correct it or remove the line (env.unreadable=skip leaves it out)") from error
            item_id, prompt = name_of(record, fields, stem)
            row = Row(item_id, " ".join(prompt.split()), None, str(error))
        if row.id in places:
            raise UserError(f"{place}: the id {row.id!r} is taken by {places[row.id]}; ids must differ")
        places[row.id] = place
        yield row
