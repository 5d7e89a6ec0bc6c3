"""The pages of `onelayer view` keep up with a directory that changes under them, and show what can be read beside what cannot."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import viewed
from made_runs import make_evaluation, make_run, outcomes
from served_pages import Ask, texts, wait_for

from onelayer.evals.samples import SAMPLES

DEEP = "[" * 200_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {  # name of a file: what stands in it; None: a pipe
    "config.yaml": (DEEP, BOMB, "- " * 100_000, "trainer: {lr: " + "1" * 5000 + "}", None),
    "run.json": (DEEP, "[]", '{"schema_version": 2, "config": 5}', None),
    "evaluation.json": (DEEP, "5", '{"schema_version": ' + "1" * 5000 + "}", None),
    "journal.jsonl": (DEEP + "\n", '{"key":"a","x":' + DEEP + ',"steps":[\n', '{"spent":' + DEEP + "\n", None),
    "suites.json": (DEEP, "[]", None),
    "samples.parquet": (DEEP, "PAR1PAR1", None),
}


def test_runs_appear_grow_break_and_vanish(ask: Ask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert "Nothing here yet" in ask("/")[1] and "has done a step yet" in texts(ask("/curves")[1])
    assert "No model here has two layers" in texts(ask("/profiles")[1]) and "Nothing has been measured" in texts(ask("/items")[1])
    run = viewed.training(root / "run", 3)
    assert "3 of 40" in texts(ask("/")[1])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "rew')
    assert "3 of 40" in texts(ask("/curves")[1]) and "No episodes here" in texts(ask("/episodes?run=run")[1])
    viewed.metrics(run, 5)
    viewed.kept_episodes(run, 0, 1)
    assert "5 of 40" in texts(ask("/curves")[1]) and "8 episodes so far" in texts(ask("/episodes?run=run")[1])
    viewed.kept_episodes(run, 2, 3)
    assert "16 episodes" in texts(ask("/episodes?run=run")[1])
    (run / "metrics.jsonl").write_text("nonsense\n")
    assert "run/metrics.jsonl:1: not the metrics" in texts(ask("/curves")[1])
    (run / "episodes" / "000002-000003.parquet").write_bytes(b"PAR1")
    assert "run/episodes/000002-000003.parquet: cannot be read" in texts(ask("/episodes?run=run")[1])
    shutil.rmtree(run)
    assert ask("/run?run=run")[0] == ask("/episodes?run=run")[0] == 404
    assert "Nothing here yet" in ask("/")[1]


NONSENSE = [
    "",
    "null",
    "[1, 2]",
    "trainer: 3\nenv: [x]\n",
    "trainer: {steps: x, seed: {}, prompts_per_step: x}\nenv: {suite: []}\n",
    "\x00",
    "a: &a [*a]",
]


@pytest.mark.parametrize("recipe", NONSENSE)
def test_a_run_of_nonsense_leaves_the_others_as_they_are(recipe: str, ask: Ask, tmp_path: Path) -> None:
    viewed.training(tmp_path / "runs" / "good", 3)
    bad = tmp_path / "runs" / "bad"
    bad.mkdir()
    (bad / "config.yaml").write_text(recipe)
    line = '{"step": 0, "reward": NaN, "success": 1e999, "kl": "x", "entropy": [1], "tokens": 1, "rollout_seconds": 1, "update_seconds": 1}'
    (bad / "metrics.jsonl").write_text(line + "\n")
    for path in ("/", "/curves", "/curves?y=kl", "/run?run=bad", "/episodes?run=bad", "/profiles", "/items"):
        status, page = ask(path)
        assert status == 200 and not re.search(r'="[^"]*\b(nan|inf)%?"', page), path
    assert "3 of 40 steps" in texts(ask("/curves")[1])


def test_an_evaluation_is_followed_from_its_journal_to_its_end(ask: Ask, tmp_path: Path) -> None:
    going = viewed.unfinished(tmp_path / "runs" / "going", 3)
    assert "3 of 40" in texts(ask("/")[1]) and "layer:3 on arithmetic/test" in texts(ask("/")[1])
    viewed.more(going, 3, 2)
    _, page = ask("/episodes?run=going&open=sampled/0/item-4")
    assert "5 episodes so far" in texts(page) and "answer 4" in texts(page)
    make_evaluation(going, outcomes(0.5, 1, items=5))
    assert "25 episodes" in texts(ask("/episodes?run=going")[1]), "samples that are in both count once"
    (going / "journal.jsonl").unlink()
    assert "25 episodes" in texts(ask("/episodes?run=going")[1])
    os.truncate(going / SAMPLES, 100)
    assert "1 cannot be read" in texts(ask("/")[1])
    assert "going/samples.parquet: cannot be read" in texts(ask("/episodes?run=going")[1])


def test_figures_follow_new_evaluations(ask: Ask, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    make_evaluation(root / "base", outcomes(0.3, 1))
    make_run(root / "full", 0.6, trained_set="full")
    for layer in (1, 2):
        make_run(root / f"layer-{layer}", 0.5, trained_set=f"layer:{layer}")
    ask("/profiles")
    wait_for(lambda: "layer 2" in texts(ask("/profiles")[1]))
    assert "layer 4" not in texts(ask("/profiles")[1]).partition("published")[0]
    make_run(root / "layer-4", 0.5, trained_set="layer:4")
    wait_for(lambda: "layer 4:" in texts(ask("/profiles")[1]) or "layer 4 " in texts(ask("/profiles")[1]).partition("Figures")[2])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_directory_that_cannot_be_read_is_an_entry_among_others(name: str, ask: Ask, tmp_path: Path) -> None:
    make_evaluation(tmp_path / "runs" / "good", outcomes(0.5, 1, items=4))
    for number, text in enumerate(HOSTILE[name]):
        (folder := tmp_path / "runs" / f"hostile-{number}").mkdir()
        if name == "run.json":
            (folder / "config.yaml").write_text("")
        os.mkfifo(folder / name) if text is None else (folder / name).write_text(text)
    code, page = ask("/")
    assert code == 200 and "good" in page and all(f"hostile-{number}" in page for number in range(len(HOSTILE[name])))
    for number in range(len(HOSTILE[name])):
        assert ask(f"/run?run=hostile-{number}")[0] == 200
        assert ask(f"/episodes?run=hostile-{number}")[0] in (200, 404)
    assert ask("/")[0] == 200
