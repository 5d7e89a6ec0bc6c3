"""A directory of runs: everything in it is found, what is broken is named, and nothing else is lost with it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.evals.journal import open_journal, read_journal
from onelayer.evals.records import read_evaluation, read_manifest
from onelayer.evals.samples import read_rows, read_samples, read_table
from onelayer.studies import store
from onelayer.studies.leaderboard.measured import read_rates
from onelayer.studies.store import DirectoryKind, State

TRAIN = ["train", "quickstart", "trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its evaluation, two others, one of them under a name that needs quoting."""
    root = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, "--output", str(root / "layer")]) == 0
    suite = ["eval", "--suite", "arithmetic", "--items", "8", "--n", "2", "--output"]
    assert main([*suite, str(root / "base")]) == 0
    assert main([*suite, str(root / "layer" / "test"), "--patch", str(root / "layer" / "patch.safetensors")]) == 0
    assert main([*suite, str(root / "gold' or 1"), "--baseline", "gold"]) == 0
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs"))


def test_the_samples_are_a_table(root: Path) -> None:
    with store.connect(root) as connection:
        rows = connection.execute(
            "select e.directory, s.decoding, avg((s.verdict = 'correct')::int), count(*) "
            "from samples s join evaluations e using (directory) group by all order by all"
        ).fetchall()
        trained = connection.execute(
            "select trained ->> '$[0].trained_set', trained -> '$[0].seed' from evaluations order by directory"
        ).fetchall()
        runs = connection.execute("select directory, trained_set, config -> 'trainer' -> 'seed' from runs").fetchall()
    expected = []
    for name in ("base", "gold' or 1", "layer/test"):
        manifest = read_evaluation(root / name).manifest
        expected += [(str(root / name), "greedy", pytest.approx(manifest.greedy.pass_rate.mean), 8)]
        expected += [(str(root / name), "sampled", pytest.approx(manifest.sampled.pass_rate.mean), 16)]
    assert rows == expected
    assert trained == [(None, None), (None, None), ("layer:3", "0")]
    assert runs == [(str(root / "layer"), "layer:3", "0")]


BREAKS = {
    "half a manifest": lambda root: (root / "base/evaluation.json").write_text('{"schema_version": 3, "pol'),
    "an old manifest": lambda root: (root / "base/evaluation.json").write_text('{"schema_version": 2}'),
    "half of the samples": lambda root: (root / "base/samples.parquet").write_bytes((root / "base/samples.parquet").read_bytes()[:999]),
    "no samples": lambda root: (root / "base/samples.parquet").unlink(),
    "samples of another": lambda root: shutil.copy(root / "more/samples.parquet", root / "base/samples.parquet"),
    "a directory for a file": lambda root: ((root / "base/samples.parquet").unlink(), (root / "base/samples.parquet").mkdir()),
    "no text": lambda root: (root / "base/evaluation.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", BREAKS)
def test_what_is_broken_is_named_and_the_rest_is_there(damage: str, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--suite", "arithmetic", "--items", "4", "--n", "1", "--output", str(root / "more")]) == 0
    (root / "half" / "journal.jsonl").parent.mkdir()
    (root / "half" / "journal.jsonl").write_bytes(b'{"spent": {"sec')
    BREAKS[damage](root)
    states = {str(entry.directory.relative_to(root)): (entry.kind, entry.state) for entry in store.scan(root)}
    assert states == {
        "base": (DirectoryKind.EVALUATION, State.BROKEN),
        "gold' or 1": (DirectoryKind.EVALUATION, State.COMPLETE),
        "half": (DirectoryKind.EVALUATION, State.UNFINISHED),
        "layer": (DirectoryKind.RUN, State.COMPLETE),
        "layer/test": (DirectoryKind.EVALUATION, State.COMPLETE),
        "more": (DirectoryKind.EVALUATION, State.COMPLETE),
    }
    with store.connect(root) as connection:
        assert connection.execute("select count(distinct directory) from samples").fetchall() == [(3,)]
    capsys.readouterr()
    assert main(["runs", "list", str(root)]) == 0
    shown = capsys.readouterr().out
    assert f"broken: {root / 'base'}" in shown.replace("\n", "") and "6 entries in" in shown and "1 broken" in shown


def test_a_flipped_bit_is_noticed_by_every_reader(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a page of records, where parquet itself sees nothing: verdicts would change."""
    path = root / "base/samples.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"not the records that the manifest beside it names"):
        read_evaluation(root / "base")
    with pytest.raises(UserError, match=r"not the records|cannot be read"):
        read_samples(path, read_manifest(root / "base").samples_sha256)
    with pytest.raises(UserError, match=r"not the records"):
        read_rates(root / "base", read_manifest(root / "base"))
    assert {entry.state for entry in store.scan(root) if entry.directory == root / "base"} == {State.BROKEN}
    assert main(["compare", str(root / "base"), str(root / "layer/test")]) == 2
    assert "not the records" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["verdict=correct", "a[1]", "b*", "c?d", "decoding=greedy/item=[a]"])
def test_the_name_of_a_directory_is_only_a_name(name: str, root: Path) -> None:
    """Neither a partition, whose column would take the place of the records', nor a pattern, which would find others."""
    shutil.copytree(root / "base", root / "a1")
    shutil.copytree(root / "base", root / name)
    with store.connect(root) as connection:
        query = "select verdict, item, decoding from samples where directory = ? order by all"
        found = [connection.execute(query, [str(root / place)]).fetchall() for place in ("base", name)]
    assert found[0] == found[1] and len(found[0]) == 24
    rows = [read_table(root / place / "samples.parquet").to_pylist() for place in ("base", name)]
    assert rows[0] == rows[1]
    item = rows[0][0]["item"]
    assert [row for row in rows[0] if row["item"] == item] == read_rows(root / name / "samples.parquet", item)


def test_every_line_of_a_journal_has_a_checksum_and_older_ones_are_read(root: Path, tmp_path: Path) -> None:
    sample = read_samples(root / "base/samples.parquet")[0]
    path = tmp_path / "journal.jsonl"
    with open_journal(path, read_journal(path)) as journal:
        journal.add(sample)
    line = path.read_bytes()
    assert json.loads(line)["verdict"] == sample.verdict and read_journal(path).samples == {sample.key: sample}
    for at in range(len(line) - 1):
        path.write_bytes(line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :])
        entries = read_journal(path)
        assert not entries.samples and entries.unreadable, at
    path.write_bytes(sample.model_dump_json().encode() + b"\n" + b"[" * 100_000 + b"\n")
    assert read_journal(path).samples == {sample.key: sample} and read_journal(path).unreadable == 1


def test_what_is_no_regular_file_is_not_waited_for(root: Path) -> None:
    for name in ("evaluation.json", "samples.parquet"):
        (root / "base" / name).unlink()
        os.mkfifo(root / "base" / name)
        entry = store.open_entry(root / "base")
        assert entry.state is State.BROKEN and "no regular file" in entry.problem
        shutil.copy(root / "gold' or 1" / name, root / "layer" / name)
        (root / "base" / name).unlink()
        shutil.move(root / "layer" / name, root / "base" / name)


def test_broken_runs_are_named(root: Path) -> None:
    for name, text in (("one", "{"), ("two", '{"schema_version": 1}'), ("three", '{"schema_version": 2}')):
        shutil.copytree(root / "layer", root / name)
        (root / name / "run.json").write_text(text)
    shutil.copytree(root / "layer", root / "four")
    (root / "four" / "patch.safetensors").unlink()
    shutil.copytree(root / "layer", root / "five")
    (root / "five" / "run.json").unlink()
    found = {entry.directory.name: entry for entry in store.scan(root) if entry.kind is DirectoryKind.RUN}
    assert {name: entry.state for name, entry in found.items()} == {
        "layer": State.COMPLETE,
        **dict.fromkeys(("one", "two", "three", "four"), State.BROKEN),
        "five": State.UNFINISHED,
    }
    assert all(entry.problem and "\n" not in entry.problem for entry in found.values() if entry.state is State.BROKEN)


def test_show_and_diff(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = read_evaluation(root / "base").greedy.items[0]
    assert main(["runs", "show", str(root / "base"), "--item", item]) == 0
    shown = capsys.readouterr().out
    assert (shown.count(f"--- {item} ") == 3 and "<|im_start|>user" in shown) or "prompt:" in shown
    assert main(["runs", "show", str(root / "layer")]) == 0
    shown = capsys.readouterr().out
    assert "trained_set: layer:3" in shown and "cost.peak_memory: " in shown and "hardware.cpu: " in shown
    assert main(["runs", "diff", str(root / "base"), str(root / "layer/test")]) == 0
    shown = capsys.readouterr().out
    assert "policy\n  - base\n  + layer:3\n" in shown and "sampled: " in shown
    assert main(["runs", "diff", str(root / "base"), str(root / "layer")]) == 2
    assert "name two of a kind" in capsys.readouterr().err


def test_delete_asks_and_refuses_what_is_no_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "notes").mkdir()
    (root / "notes" / "diary.txt").write_text("mine")
    (root / "link").symlink_to(root / "base")
    for target, said in ((root, "no run"), (root / "notes", "no run"), (root / "none", "no such"), (root / "link", "a link")):
        assert main(["runs", "delete", str(target), "--yes"]) == 2
        assert said in capsys.readouterr().err
    assert main(["runs", "delete", str(root / "base")]) == 2
    assert "give --yes" in capsys.readouterr().err and (root / "base").exists()
    assert main(["runs", "delete", str(root / "base"), str(root / "layer"), "--yes"]) == 0
    assert sorted(path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink()) == ["gold' or 1", "notes"]


def test_model_text_does_not_reach_the_terminal_as_commands(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "base" / "evaluation.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"policy": "\x1b[31m[red]evil\u202e"}))
    for words in (["list", str(root)], ["show", str(root / "base")], ["diff", str(root / "base"), str(root / "layer/test")]):
        assert main(["runs", *words]) == 0
        shown = capsys.readouterr().out
        assert "\x1b[31m" not in shown and "\u202e" not in shown
    assert "[red]evil" in shown
