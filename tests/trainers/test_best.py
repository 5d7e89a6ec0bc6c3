"""The patch of the best point of a held-out curve: which one is kept, and that a run that was killed keeps the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from onelayer.agents import patch
from onelayer.cli.config import load
from onelayer.common.errors import UserError
from onelayer.studies.board import read_patch
from onelayer.trainers import train as training
from onelayer.trainers.best import BestPatch, best_file
from onelayer.trainers.config import Config
from onelayer.trainers.held_out import HeldOut
from onelayer.trainers.manifest import HELD_OUT, PATCH, complete_manifest
from onelayer.trainers.metrics import read_lines
from onelayer.trainers.run import read_best
from onelayer.trainers.train import prepare, train

SHORT = ["trainer.trained_set=layer:3", "trainer.steps=5", "trainer.prompts_per_step=4", "trainer.checkpoint_every=2", "trainer.lr=1e-3"]
KEPT = ["eval.every=1", "eval.panel_items=24", "eval.keep_best=true"]


def recipe(*keys: str) -> Config:
    return load("quickstart", [*SHORT, *KEPT, *keys])


def kept(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("best-*.safetensors")}


def test_the_first_of_the_highest_points_is_kept_and_a_kill_never_loses_the_best_of_the_checkpoint(tmp_path: Path) -> None:
    def go_on(best: BestPatch, rates: dict[int, float]) -> None:
        for step, rate in rates.items():
            best.add(step, rate, lambda path, step=step: path.write_text(str(step)))

    best = BestPatch(tmp_path, {}, 0)
    go_on(best, {0: 0.9, 1: 0.2, 2: 0.4})  # the base is no checkpoint
    best.settle(2)
    go_on(best, {3: 0.4, 4: 0.5, 5: 0.7})
    assert best.step == 5 and kept(tmp_path).keys() == {"best-000002.safetensors", "best-000005.safetensors"}
    again = BestPatch(tmp_path, {0: 0.9, 1: 0.2, 2: 0.4}, 2)  # killed, and begun at the checkpoint
    assert again.step == 2 and kept(tmp_path) == {"best-000002.safetensors": b"2"}
    again.settle(6)
    (tmp_path / "best-000002.safetensors").unlink()
    with pytest.raises(UserError, match=r"best-000002\.safetensors: is gone"):
        BestPatch(tmp_path, {1: 0.2, 2: 0.4}, 2)


def test_a_run_keeps_the_policy_of_its_best_point(tmp_path: Path) -> None:
    """The patch has the bytes of that of a run that ended there, and `eval --patch` knows what it is."""
    run = tmp_path / "run"
    train(recipe(), run)
    rates = {point.step: point.pass_rate for _, point in read_lines(run / HELD_OUT, HeldOut) if point.step}
    manifest = complete_manifest(run)
    assert manifest.best and rates[manifest.best.step] == max(rates.values())
    place = best_file(run, manifest.best.step)
    assert [path.name for path in run.glob("best-*")] == [place.name]
    train(load("quickstart", [*SHORT, f"trainer.steps={manifest.best.step}"]), tmp_path / "shorter")
    assert (tmp_path / "shorter" / PATCH).read_bytes() == place.read_bytes()
    found, trained = read_patch(place)
    assert found.sha256 == manifest.best.patch_sha256 == patch.read(place).sha256
    assert trained and trained.step == (manifest.best.step if manifest.best.step < 5 else None)
    assert (last := read_patch(run)[1]) and last.step is None
    place.write_bytes((run / PATCH).read_bytes() + b" ")
    with pytest.raises(UserError, match=r"not the patch|cannot be read"):
        read_best(run)


def test_a_killed_run_keeps_the_same_best_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(recipe(), whole)
    rollout = training.rollout
    for at in (1, 3, 4):  # before the first checkpoint, between two, right after one

        def stop(*arguments: object, at: int = at) -> object:
            if arguments[4] == at:
                raise MemoryError
            return rollout(*arguments)  # pyright: ignore[reportArgumentType]

        with monkeypatch.context() as patched, pytest.raises(MemoryError):
            patched.setattr(training, "rollout", stop)
            train(recipe(), killed, resume=True)
    train(recipe(), killed, resume=True)
    assert kept(killed) == kept(whole)
    assert complete_manifest(killed).best == complete_manifest(whole).best


def test_a_best_point_needs_points() -> None:
    with pytest.raises(UserError, match=r"eval\.keep_best: there are no points"):
        prepare(load("quickstart", ["eval.keep_best=true"]))
