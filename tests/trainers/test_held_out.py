"""Held-out curves: what the policy in training does on fixed items, and that looking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.cli.config import load
from onelayer.common.errors import UserError
from onelayer.trainers import train as training
from onelayer.trainers.config import Config
from onelayer.trainers.held_out import HeldOut
from onelayer.trainers.manifest import HELD_OUT, METRICS, PATCH, complete_manifest
from onelayer.trainers.metrics import read_lines, read_metrics
from onelayer.trainers.train import prepare, train

SHORT = [
    "trainer.trained_set=layer:3",
    "trainer.steps=5",
    "trainer.prompts_per_step=4",
    "trainer.checkpoint_every=2",
    "eval.panel_items=12",
]


def recipe(*keys: str) -> Config:
    return load("quickstart", [*SHORT, *keys])


def points(run: Path) -> list[HeldOut]:
    """Without what differs between two runs of the same: the time."""
    return [point.model_copy(update={"cost": point.cost.tokens}) for _, point in read_lines(run / HELD_OUT, HeldOut)]


def test_the_panel_is_played_and_changes_nothing_of_the_run(tmp_path: Path) -> None:
    plain, looked = tmp_path / "plain", tmp_path / "looked"
    train(recipe(), plain)
    train(recipe("eval.every=2", "eval.panel_n=2"), looked)
    assert (plain / PATCH).read_bytes() == (looked / PATCH).read_bytes()
    assert not (plain / HELD_OUT).exists()
    found = points(looked)
    assert [point.step for point in found] == [0, 2, 4, 5]
    assert {(len(point.sampled.correct), len(point.sampled.correct[0]), len(point.greedy.correct[0])) for point in found} == {(12, 2, 1)}
    costs = [complete_manifest(run).cost for run in (plain, looked)]
    assert costs[0].tokens == costs[1].tokens and costs[0].flops == costs[1].flops
    assert costs[0].tokens == sum(step.tokens or 0 for step in read_metrics(looked / METRICS))


def test_a_curve_goes_on_where_a_kill_has_cut_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = recipe("eval.every=1")
    train(config, whole)
    rollout = training.rollout

    def stop(*arguments: object) -> object:
        if arguments[4] == 3:  # after the points of steps 0 to 3; the checkpoint has done two steps
            raise MemoryError  # as if it were killed: no checkpoint is written
        return rollout(*arguments)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(training, "rollout", stop)
        train(config, killed)
    assert [point.step for point in points(killed)] == [0, 1, 2, 3]
    with (killed / HELD_OUT).open("ab") as file:
        file.write(b'{"step": 4, "pa')  # a kill within the line
    train(config, killed, resume=True)
    assert points(killed) == points(whole)
    assert (killed / PATCH).read_bytes() == (whole / PATCH).read_bytes()


def test_the_first_point_is_the_base(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("layer", "all")]
    for run, name in zip(runs, ("layer:3", "full"), strict=True):
        train(recipe("eval.every=5", f"trainer.trained_set={name}"), run)
    first, last = ([points(run)[at] for run in runs] for at in (0, -1))
    assert first[0] == first[1]
    assert last[0].panel == last[1].panel == first[0].panel


def test_a_panel_that_cannot_be_played_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": str(n + 1)}) + "\n" for n in range(40)))
    with pytest.raises(UserError, match=r"validation|panel_items"):
        prepare(recipe("eval.every=2", f"env.suite={items}", "eval.suite=arithmetic"), ["layer:3"])
    with pytest.raises(UserError, match=r"eval\.panel_items: 100000 items wanted"):
        prepare(recipe("eval.every=2", "eval.panel_items=100000"), ["layer:3"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"correct": [[], []]}, "at least 1 item"),
        ({"correct": [[True], [True, False]]}, "more samples than others"),
        ({"correct": [[True]] * 3}, "different numbers of items"),
        ({"correct": [[True]] * 3_000_000}, "bytes, more than the"),
        ({"mean_tokens": float("inf")}, "finite number"),
        ({"truncated": -1}, "greater than or equal to 0"),
        ({}, "step 0 after step 0"),
    ],
)
def test_a_curve_of_others_is_refused_where_it_makes_no_sense(change: dict[str, object], reason: str, tmp_path: Path) -> None:
    replies = {"correct": [[True], [False]], "mean_tokens": 1.0, "truncated": 0.0}
    point = {"step": 0, "panel": "a", "sampled": replies, "greedy": replies, "cost": {}}
    lines = [point, point | {"sampled": replies | change}]
    (tmp_path / HELD_OUT).write_text("".join(json.dumps(line) + "\n" for line in (lines[1:] if change else lines)))
    with pytest.raises(UserError, match=reason):
        list(read_lines(tmp_path / HELD_OUT, HeldOut))
