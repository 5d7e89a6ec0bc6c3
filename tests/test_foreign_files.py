"""Whatever stands in a file that others made, its reader returns or raises UserError, within limits of memory and time.

Each reader gets a good file that is then changed: bytes are flipped, cut out, repeated; a value of its JSON becomes one of a wrong type or
sign, too large, too long or too deep.
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import make_evaluation, outcomes

from onelayer.agents import patch, tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import load_base
from onelayer.cli.config import load as load_recipe
from onelayer.common.cost import Cost, Hardware
from onelayer.common.errors import UserError
from onelayer.envs import load
from onelayer.envs.config import CodeConfig, MathConfig
from onelayer.evals.journal import LONGEST_LINE, MOST_BRACES, read_journal
from onelayer.evals.records import read_manifest
from onelayer.evals.responses import read_responses
from onelayer.evals.samples import read_columns, read_samples
from onelayer.evals.suites import read_suite_file
from onelayer.pages.viewer.episode_table import GrowingEpisodes
from onelayer.pages.viewer.run_index import Index
from onelayer.studies import store
from onelayer.studies.leaderboard.marks import mark_of
from onelayer.studies.learning_curve import learning_curve
from onelayer.studies.submissions.archive import gather, pack, read_submission, unpack
from onelayer.trainers import run
from onelayer.trainers.config import Config
from onelayer.trainers.manifest import Manifest, RecordedConfig
from onelayer.trainers.manifest import read_manifest as read_run_manifest
from onelayer.trainers.metrics import read_metrics

MEMORY = 1 << 30
"""Bytes that one reading may take."""
SECONDS = 20
"""For one reading; CI machines are busy."""
VALUES = [
    *("null", "true", "-1", "0", "2.5", "1e999", "NaN", "-Infinity", str(2**31), str(2**63), "9" * 30, "1" * 5000),
    *('""', '"x"', '"\\ud800"', '"\\u0000"', f'"{"x" * 100_000}"', "[]", "{}", "[[]]", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000),
]
"""What a value of JSON is replaced with: as text, since Python writes not all of it."""
PLACE = "the value that is replaced"


@dataclass(frozen=True)
class Change:
    """What is done to a file. `at` says where, as a share of it."""

    kind: str
    at: float
    value: str = ""

    def of(self, data: bytes) -> bytes:
        if self.kind == "value":
            return self._of_json(data)
        here = int(self.at * len(data))
        there = here + max(1, len(data) // 16)
        match self.kind:
            case "flip":
                return data[:here] + bytes([data[here] ^ 1 << len(self.value) % 8]) + data[here + 1 :] if data else data
            case "cut":
                return data[:here]
            case "take out":
                return data[:here] + data[there:]
            case "repeat":
                return data[:there] + data[here:]
            case _:
                return data[:here] + self.value.encode() + data[here:]

    def _of_json(self, data: bytes) -> bytes:
        """A value replaced in JSON: of a whole file, of one of its lines, or of the header of a safetensors file."""
        if data[8:9] == b"{" and (size := int.from_bytes(data[:8], "little")) < len(data):
            header = self._of_json(data[8 : 8 + size])
            return len(header).to_bytes(8, "little") + header + data[8 + size :]
        lines = [data] if data.startswith(b"{\n") else data.split(b"\n")
        number = int(self.at * len(lines))
        try:
            tree = json.loads(lines[number])
        except (ValueError, RecursionError):
            return data
        places = list(_places(tree))
        if not places:
            return self.value.encode()
        parent, key = places[int(self.at * len(lines) % 1 * len(places))]
        parent[key] = PLACE
        lines[number] = json.dumps(tree).replace(json.dumps(PLACE), self.value).encode()
        return b"\n".join(lines)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()):
        yield tree, key
        yield from _places(value)


CHANGES = st.lists(
    st.builds(
        Change,
        kind=st.sampled_from(["value", "value", "value", "flip", "cut", "take out", "repeat", "insert"]),
        at=st.floats(0, 1, exclude_max=True),
        value=st.sampled_from(VALUES),
    ),
    min_size=1,
    max_size=2,
)

SAMPLES = outcomes(0.5, 1, items=4, samples=2)
HARDWARE = Hardware(cpu="any", cores=1, threads=1, gpu=None)
RUN = Manifest(
    config=RecordedConfig.model_validate(Config().model_dump(mode="json")),
    base="f" * 64,
    trained_set="layer:1",
    trained_parameters=10,
    total_parameters=20,
    split="arithmetic/train",
    split_digest="e" * 64,
    patch_sha256="a" * 64,
    cost=Cost(seconds=1.0),
    hardware=HARDWARE,
    versions={},
    git_commit=None,
    finished="",
)
STEP = {"step": 0, "reward": 0.5, "rollout_seconds": 1.0, "update_seconds": 1.0, "tokens": 10}
SPENT = {"spent": Cost().model_dump(), "requests": {}, "process": 0, "policy": "base", "split": "arithmetic/test", "wanted": 8}
VERIFIED = {"mark": "checked", "evaluation_sha256": "", "samples_sha256": "", "graded": 1, "lost": 0, "regenerated": 0}


def lines(*values: Any) -> bytes:
    # as the program writes them: the viewer looks for parts of a line without reading it
    return "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values).encode()


def evaluation(folder: Path, name: str) -> bytes:
    make_evaluation(folder / "made", SAMPLES)
    return (folder / "made" / name).read_bytes()


def journal(folder: Path) -> bytes:
    make_evaluation(folder / "made", SAMPLES)
    return lines(SPENT, *(sample.model_dump() for sample in read_samples(folder / "made" / "samples.parquet")))


def archive(folder: Path) -> bytes:
    make_evaluation(folder / "made", SAMPLES)
    pack(gather([folder / "made"]), folder / "made.tar")
    return (folder / "made.tar").read_bytes()


def weights(folder: Path) -> bytes:
    patch.write(folder / "made", patch.Patch("f" * 64, "layer:1", {"a": torch.ones(2, 3), "b": torch.ones(4)}))
    return (folder / "made").read_bytes()


def view(path: Path) -> None:
    """All that the viewer reads of a directory."""
    index = Index(path.parent)
    for name, entry in index.entries().items():
        index.recipe(name, entry)
        if (path.parent / "metrics.jsonl").exists():
            index.curve(name, entry)


def view_journal(path: Path) -> None:
    found = GrowingEpisodes(path)
    for row in range(found.read_on()):
        found.episode(row)
    found.table()
    view(path)


def open_archive(path: Path) -> None:
    shutil.rmtree(path.parent / "opened", ignore_errors=True)
    unpack(path, path.parent / "opened")
    read_submission(path.parent / "opened")


def read_parquet(path: Path) -> None:
    read_samples(path)
    read_columns(path, ["item", "decoding", "reward"])


READERS: dict[str, tuple[str, Callable[[Path], bytes], list[Callable[[Path], object]]]] = {
    "recipe": ("recipe.yaml", lambda _: Config().model_dump_json().encode(), [lambda path: load_recipe(str(path)), run.recorded]),
    "suites file": ("suites.yaml", lambda _: lines({"groups": {"a": ["math500"]}, "overrides": ["a.b=1"]}), [read_suite_file]),
    "configuration of a run": ("config.yaml", lambda _: Config().model_dump_json().encode(), [view]),
    "run.json": ("run.json", lambda _: RUN.model_dump_json().encode(), [lambda path: read_run_manifest(path.parent), view]),
    "metrics": ("metrics.jsonl", lambda _: lines(STEP, STEP | {"step": 1}), [lambda path: learning_curve(read_metrics(path), 8)]),
    "journal": ("journal.jsonl", journal, [read_journal, view_journal]),
    "evaluation.json": (
        "evaluation.json",
        lambda folder: evaluation(folder, "evaluation.json"),
        [lambda path: read_manifest(path.parent), view, lambda path: store.examine(path.parent, store.DirectoryKind.EVALUATION)],
    ),
    "parquet": ("samples.parquet", lambda folder: evaluation(folder, "samples.parquet"), [read_parquet]),
    "verified.json": ("verified.json", lambda _: lines({**VERIFIED, "onelayer": "", "finished": ""}), [lambda path: mark_of(path.parent)]),
    "patch": ("patch.safetensors", weights, [patch.read]),
    "archive": ("archive.tar", archive, [open_archive]),
    "responses": ("own.jsonl", lambda _: lines(*({"item": f"i{n}", "response": "1", "tokens": 2} for n in range(4))), [read_responses]),
    "data": (
        "own.jsonl",
        lambda _: lines(*({"question": f"What is {n}?", "answer": n, "type": "sum"} for n in range(4))),
        [lambda path: fresh(path, lambda own: load(MathConfig(suite=str(own)), "all"))],
    ),
    "tasks of code": (
        "own.jsonl",
        lambda _: lines(*({"prompt": f"Add {n}.", "tests": ["assert f(1)"], "solution": "def f(a): return a"} for n in range(2))),
        [lambda path: fresh(path, lambda own: load(CodeConfig(suite=str(own)), "all"))],
    ),
}
_count = iter(range(10**9))


def fresh(path: Path, read: Callable[[Path], object]) -> None:
    """Read a copy under a name that was never read: splits are cached by their names."""
    own = path.with_name(f"own-{next(_count)}.jsonl")
    path.rename(own)
    read(own)


@pytest.fixture
def limits() -> Iterator[None]:
    """MEMORY more than there is, and SECONDS of time: whoever needs more fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, _too_long)
    yield
    signal.signal(signal.SIGALRM, handler)
    resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def in_time(read: Callable[[Path], object], path: Path) -> bool:
    """Whether the file is taken; raises whatever is no UserError."""
    began = time.monotonic()
    signal.alarm(SECONDS)
    try:
        read(path)
    except UserError:
        return False
    finally:
        signal.alarm(0)
    assert time.monotonic() - began < SECONDS
    return True


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_others_is_read_or_refused(name: str, tmp_path: Path, limits: None) -> None:
    file, make, readers = READERS[name]
    (tmp_path / "read").mkdir()
    path, good = tmp_path / "read" / file, make(tmp_path)
    for read in readers:
        path.write_bytes(good)
        assert in_time(read, path), "the file that is changed is good"

    @bounded(200)
    @given(CHANGES)
    def changed(changes: list[Change]) -> None:
        data = good
        for change in changes:
            data = change.of(data)
        for read in readers:
            path.write_bytes(data)
            in_time(read, path)

    changed()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_model_of_others_is_loaded_or_refused(name: str, tmp_path: Path, limits: None) -> None:
    shutil.copytree(tiny.PATHS["tiny"], tmp_path / "model")
    path = tmp_path / "model" / name
    good = path.read_bytes()

    def read(path: Path) -> None:
        load_base(ModelConfig(path=str(path.parent)))

    @bounded(60)
    @given(CHANGES)
    def changed(changes: list[Change]) -> None:
        data = good
        for change in changes:
            data = change.of(data)
        path.write_bytes(data)
        in_time(read, path)

    changed()


@pytest.mark.parametrize("filling", ["text", "steps"])
def test_a_line_of_a_journal_that_no_sample_fills_counts_as_unreadable(tmp_path: Path, filling: str):
    """What such a line would take in memory is a hundred times its length."""
    _, line = journal(tmp_path).splitlines()[:2]
    sample = json.loads(line)
    sample |= {"answer": "a" * LONGEST_LINE} if filling == "text" else {"steps": sample["steps"] * (MOST_BRACES + 1)}
    path = tmp_path / "journal.jsonl"
    path.write_bytes(lines(sample) + line + b"\n")
    entries = read_journal(path)
    assert (entries.unreadable, len(entries.samples)) == (1, 1)
    assert GrowingEpisodes(path).read_on() == 1
