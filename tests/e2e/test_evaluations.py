"""Evaluations from the command line: killed and continued, and through an endpoint."""

from __future__ import annotations

import json
import random
import signal
import sys
from pathlib import Path

import pytest
from e2e.commands import SMALL_DISK, finish, lines, message, onelayer, replies, start, stop_when
from endpoint_server import StandIn

from onelayer.cli.main import main
from onelayer.evals.journal import JOURNAL
from onelayer.evals.records import MANIFEST, read_evaluation
from onelayer.evals.samples import SAMPLES

KILLS = 10
SMALL = ["eval", "--suite", "arithmetic", "--items", "60", "--n", "4", "agent.max_batch=8"]


def test_an_evaluation_killed_ten_times_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL to a real process, each time when some more samples are in its journal: no duplicate, no loss."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    onelayer(*SMALL, "--output", whole)
    seed = random.randrange(2**32)
    rng, kills = random.Random(seed), 0
    print(f"seed {seed}")
    while kills < KILLS:
        before = len(lines(killed / JOURNAL))
        process = start(*SMALL, "--output", killed)
        more = before + rng.randint(1, 20)
        stop_when(process, lambda more=more: len(lines(killed / JOURNAL)) > more, signal.SIGKILL, delay=rng.uniform(0, 0.02))
        assert not (killed / MANIFEST).exists()
        keys = [line["key"] for line in lines(killed / JOURNAL) if "key" in line]
        assert len(set(keys)) == len(keys) >= before - kills  # each process begins with a line of its own
        kills += 1
    onelayer(*SMALL, "--output", killed)
    assert (killed / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()
    records = [(row["decoding"], row["item"], row["sample"]) for row in replies(killed)]
    assert len(set(records)) == len(records) == 300 and not (killed / JOURNAL).exists()
    found, expected = read_evaluation(killed).manifest, read_evaluation(whole).manifest
    assert (found.sampled, found.greedy, found.samples_sha256) == (expected.sampled, expected.greedy, expected.samples_sha256)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The file that is named is one that the user knows, never the one that is written beside it."""
    command = ["eval", "--suite", "arithmetic", "--items", "20", "--n", "2", "--output"]
    onelayer(*command, tmp_path / "whole")
    parquet = (tmp_path / "whole" / SAMPLES).stat().st_size
    for size, file in ((30_000, JOURNAL), (parquet + 100_000, None), (parquet // 2, JOURNAL)):
        place = tmp_path / str(size)
        found = finish(start(size, *command, place, program=("-c", SMALL_DISK)), 2 if file else 0)
        if file:
            assert (
                message(found.stderr)
                == f"onelayer: {place / file}: cannot be written (File too large); choose another place or free this one"
            )
            kept = (place / JOURNAL).read_bytes()
            assert kept.endswith(b"\n") and kept.count(b"\n") > 1  # whole lines
            onelayer(*command, place)
        assert (place / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()


def test_an_endpoint_gives_what_the_model_gives_in_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Greedy texts are the same to the token; sampled ones within sampling error. Its troubles are retried and counted."""
    suite = ["eval", "--suite", "arithmetic", "--items", "40", "--n", "4", "agent.max_tokens=40"]
    assert main([*suite, "--output", str(tmp_path / "here")]) == 0
    with StandIn(troubles=12) as server:
        assert main([*suite, "--endpoint", server.url, "--model", "tiny", "--output", str(tmp_path / "there")]) == 0
        asked = len(server.bodies)
    here, there = (read_evaluation(tmp_path / name).manifest for name in ("here", "there"))
    for mine, theirs in zip(replies(tmp_path / "here", "greedy"), replies(tmp_path / "there", "greedy"), strict=True):
        assert [mine[key] for key in ("item", "verdict", "answer", "tokens", "truncated")] == [
            theirs[key] for key in ("item", "verdict", "answer", "tokens", "truncated")
        ]
        assert mine["steps"][0]["response"] == theirs["steps"][0]["response"]
        assert mine["steps"][0]["token_ids"] and theirs["steps"][0]["token_ids"] is None
    difference = there.sampled.pass_rate.mean - here.sampled.pass_rate.mean
    assert abs(difference) < 4 * (here.sampled.pass_rate.se**2 + there.sampled.pass_rate.se**2) ** 0.5
    assert there.requests is not None and there.requests["sent"] == asked == 200 + 12
    assert there.requests == {"sent": 212, "retried": 12, "rate_limited": 2, "broken": 10, "timed_out": 0, "refused": 0}
    assert (there.source, there.model, there.base) == ("endpoint", "tiny", "none")
    capsys.readouterr()


def test_an_endpoint_that_goes_away_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was answered is kept; the key of the API is neither written nor said."""
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret")
    command = ["eval", "--suite", "arithmetic", "--items", "10", "--n", "2", "--model", "tiny"]
    command += ["eval.endpoint.key_variable=SECRET_KEY", "eval.endpoint.attempts=1", "eval.endpoint.concurrency=2"]
    place = tmp_path / "eval"
    with StandIn(key="sk-very-secret", dies_after=7) as server:
        port = server.port
        assert main([*command, "--output", str(place), "--endpoint", server.url]) == 2
    said = message(capsys.readouterr().err)
    assert "no answer in 1 attempts" in said and "the same command continues" in said
    kept = len([line for line in lines(place / JOURNAL) if "key" in line])
    assert 5 <= kept <= 7
    with StandIn(key="sk-very-secret", port=port) as server:
        assert main([*command, "--output", str(place), "--endpoint", server.url]) == 0
        assert len(server.bodies) == 30 - kept
    assert not [path for path in place.iterdir() if b"sk-very-secret" in path.read_bytes()]
    with StandIn(key="another") as server:
        assert main([*command, "--output", str(tmp_path / "refused"), "--endpoint", server.url]) == 2
    shown = capsys.readouterr()
    assert "refuses the key" in message(shown.err) and "sk-very-secret" not in shown.out + shown.err
    monkeypatch.delenv("SECRET_KEY")
    assert main([*command, "--output", str(tmp_path / "refused"), "--endpoint", "http://127.0.0.1:9/v1"]) == 2
    assert "SECRET_KEY is not set" in message(capsys.readouterr().err)


def test_responses_made_elsewhere_are_graded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The texts of an evaluation, handed in as a file, get the same verdicts; a file of one kind repeats it and says so."""
    suite = ["eval", "--suite", "arithmetic", "--items", "20", "--n", "3"]
    assert main([*suite, "--output", str(tmp_path / "model")]) == 0
    rows = replies(tmp_path / "model")
    keys = ("decoding", "item", "tokens", "truncated")
    texts = [{key: row[key] for key in keys} | {"response": row["steps"][0]["response"]} for row in rows]
    for name, kept in (("both", texts), ("greedy", [text for text in texts if text["decoding"] == "greedy"])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(text) + "\n" for text in kept))
        assert main([*suite, "--responses", str(path), "--output", str(tmp_path / name)]) == 0
    untold = [{key: text[key] for key in ("decoding", "item", "response")} for text in texts]
    (tmp_path / "untold.jsonl").write_text("".join(json.dumps(text) + "\n" for text in untold))
    assert main([*suite, "--responses", str(tmp_path / "untold.jsonl"), "--output", str(tmp_path / "untold")]) == 0
    silent = read_evaluation(tmp_path / "untold").manifest.sampled
    assert (silent.mean_tokens, silent.truncated) == (None, None)  # not 0, which would be a figure
    told = ("item", "sample", "verdict", "answer", "tokens", "truncated", "decoding")
    verdicts = {name: [[row[key] for key in told] for row in replies(tmp_path / name)] for name in ("model", "both")}
    assert verdicts["both"] == verdicts["model"]
    manifests = {name: read_evaluation(tmp_path / name).manifest for name in ("model", "both", "greedy")}
    assert manifests["both"].sampled == manifests["model"].sampled and silent.pass_rate == manifests["model"].sampled.pass_rate
    assert manifests["both"].repeats is None
    assert manifests["greedy"].repeats == "sampled" and manifests["greedy"].sampled.pass_rate == manifests["greedy"].greedy.pass_rate
    capsys.readouterr()
    for line, words in (
        ("{", ":1: not JSON"),
        ('{"item": "arithmetic/x", "response": ""}', "no item 'arithmetic/x'"),
        ('{"item": 1}', ":1: no response"),
    ):
        (tmp_path / "bad.jsonl").write_text(line + "\n")
        assert main([*suite, "--responses", str(tmp_path / "bad.jsonl"), "--output", str(tmp_path / "bad")]) == 2
        assert words in message(capsys.readouterr().err)


def test_several_suites_and_named_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("groups: {math: [arithmetic, arithmetic/validation], code: [functions]}\noverrides: [eval.seed=3]\n")
    words = ["eval", "--suite", "mine.yaml", "--items", "4", "--n", "1", "pool.workers=0", "--output", "group"]
    assert main(words) == 0
    group = json.loads(Path("group/suites.json").read_text())
    found = {member["suite"]: read_evaluation(Path("group", member["directory"])).manifest for member in group["suites"]}
    assert list(found) == ["arithmetic", "arithmetic/validation", "functions"] and {one.seed for one in found.values()} == {3}
    mean = (found["arithmetic"].greedy.pass_rate.mean + found["arithmetic/validation"].greedy.pass_rate.mean) / 2
    assert group["groups"]["math"]["greedy"]["mean"] == pytest.approx(mean)
    before = {path: path.stat().st_mtime_ns for path in Path("group").rglob("*.parquet")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as where it is not installed
    extra = ("lm-eval:hellaswag", "pip install 'onelayer[lm-eval]'")
    for suite, said in (("arithmetic,arithmetic", "named twice"), (",", "names nothing"), ("none.yaml", "no such file"), extra):
        assert main(["eval", "--suite", suite, "--output", "bad"]) == 2
        assert said in message(capsys.readouterr().err)


def test_data_is_looked_for_before_the_first_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)  # as where it is not installed
    assert main(["eval", "--suite", "arithmetic,minerva", "--items", "4", "--n", "1", "--output", "both"]) == 2
    assert "minerva/test.jsonl" in message(capsys.readouterr().err) and not Path("both").exists()


def test_what_cannot_be_graded_is_counted_wherever_the_split_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the terminal, the manifest, compare's page and the leaderboard; and every suite of paper-contests loads from a folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(3)] + [{"question": "Which?", "answer": "\\frac{1}{"}]
    for suite in ("aime24", "aime25", "amc23", "math500", "minerva", "olympiadbench"):
        Path(suite).mkdir()
        Path(suite, "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["eval", "--suite", "paper-contests", "--baseline", "gold", "--n", "1", "--output", "runs/gold", "pool.workers=0"]
    assert main(command) == 0
    assert "minerva/test, 3 items (1 skipped)" in capsys.readouterr().out
    manifest = read_evaluation(Path("runs/gold/minerva")).manifest
    assert manifest.skipped == {"minerva/test/4": "the gold answer '\\\\frac{1}{' cannot be read by the grader"}
    assert manifest.greedy.pass_rate.mean == 1
    assert main(["compare", "runs/gold/minerva", "--output", "compared"]) == 0
    assert "3 items (1 skipped) of minerva/test" in " ".join(capsys.readouterr().out.split())
    assert main(["leaderboard", "runs", "--output", "site"]) == 0
    assert "3 items (1 skipped)" in Path("site/index.html").read_text()
