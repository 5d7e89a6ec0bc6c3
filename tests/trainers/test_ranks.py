"""Several processes train what one process would, up to the order of sums; one that is killed ends them all, and the run goes on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import rank_updates
import torch
from e2e.commands import ENVIRONMENT, lines, message, stop_when
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from onelayer.cli.main import main
from onelayer.trainers.process_group import shares
from onelayer.trainers.rows import TrainingRow

SPECS = ["layer:3", "full", f"full{rank_updates.SHARDED}"]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, rank_updates.Updates]:
    """What the updates of each set come to at rank 0 of two."""
    output = tmp_path_factory.mktemp("ranks") / "updates.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    path = os.pathsep.join(filter(None, sys.path))
    processes = [
        subprocess.Popen(
            [sys.executable, rank_updates.__file__, output, *SPECS], env={**ENVIRONMENT, "PYTHONPATH": path, **place, "RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    return {spec: rank_updates.Updates(**found) for spec, found in torch.load(output).items()}


of_one = cache(rank_updates.updates)


@pytest.mark.parametrize("spec", SPECS)
def test_two_ranks_update_as_one_process(spec: str, of_two: dict[str, rank_updates.Updates]) -> None:
    """GRPO with KL, two epochs of two minibatches: gradients, losses, metrics and weights."""
    found, expected = of_two[spec], of_one(spec.removesuffix(rank_updates.SHARDED))
    for name, gradient in expected.gradients.items():
        assert float((found.gradients[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()), name
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)
    assert len(set(found.losses)) == rank_updates.STEPS
    for mine, theirs in zip(found.metrics, expected.metrics, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    for name, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-3, atol=1e-5)
    parameters = sum(weight.numel() for weight in expected.weights.values())
    assert found.sent == 4 * parameters * 4 * rank_updates.STEPS  # bytes of a number, four optimiser steps an update
    assert found.moments == pytest.approx(expected.moments / (2 if rank_updates.SHARDED in spec else 1), rel=1e-3)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50), st.integers(1, 90)), max_size=40), st.integers(1, 5))
def test_every_group_is_at_one_rank_and_no_rank_has_much_more_than_another(found: list[tuple[int, int, int]], ranks: int) -> None:
    rows = [TrainingRow([group] * prompt, [0] * reply, [], [], [], [], "", group, 0, 0) for group, prompt, reply in found]
    dealt = shares(rows, ranks)
    assert Counter(group for share in dealt for group in share) == Counter({row.group: 1 for row in rows})
    tokens: Counter[int] = Counter()
    for group, prompt in {(row.group, len(row.prompt_ids)) for row in rows}:
        tokens[group] += prompt
    for row in rows:
        tokens[row.group] += len(row.token_ids)
    loads = [sum(tokens[group] for group in share) for share in dealt]
    assert max(loads) - min(loads) <= max(tokens.values(), default=0)


SIZES = ["trainer.steps=7", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.checkpoint_every=2", "trainer.lr=1e-3"]
RECIPE = ["quickstart", *SIZES, "trainer.trained_set=layer:3", "trainer.kl_coef=0.01", "trainer.epochs=2", "trainer.dynamic_sampling=1"]
RECIPE += ["eval.every=3", "eval.panel_items=6", "eval.panel_n=1", "eval.keep_best=true", "trainer.shard=true"]


def torchrun(ranks: int, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", ranks, "-m", "onelayer", "train", *arguments]
    return subprocess.Popen([*map(str, words)], env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def process_of(launcher: int, rank: int) -> int:
    """The process that torchrun has started as this rank."""
    for task in Path(f"/proc/{launcher}/task").iterdir():
        for child in (task / "children").read_text().split():
            if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0"):
                return int(child)
    raise AssertionError(f"no rank {rank}")


def test_a_killed_rank_ends_the_run_which_goes_on_with_other_ranks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, by_four, alone = tmp_path / "run", tmp_path / "by four", tmp_path / "alone"
    launcher = torchrun(2, *RECIPE, "--output", run)
    stop_when(launcher, lambda: len(lines(run / "metrics.jsonl")) >= 3, 0)
    victim = process_of(launcher.pid, 1)
    os.kill(victim, signal.SIGSTOP)  # the others wait for it
    assert main(["train", "--resume", str(run)]) == 2
    assert "another process is at work here" in message(capsys.readouterr().err)
    os.kill(victim, signal.SIGKILL)
    said = launcher.communicate()[1]
    assert launcher.returncode != 0 and not (run / "run.json").exists()
    told = message(said)  # one line of all ranks; torchrun's own words come after it
    assert told.startswith("onelayer: another rank of the run has ended or does not answer (")
    assert shlex.split(told.partition("continue with: ")[2])[3:] == ["-m", "onelayer", "train", "--resume", str(run)]
    assert "Traceback" not in said.partition(told)[0] and "onelayer/trainers" not in said
    shutil.copytree(run, by_four)
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    assert main(["train", *RECIPE, "--output", str(alone), "--quiet"]) == 0
    launcher = torchrun(4, "--resume", by_four)
    output, said = launcher.communicate()
    assert (launcher.returncode, output) == (0, f"{by_four / 'patch.safetensors'}\n"), said
    assert "begun with 2 ranks and continued with 4" in said
    assert [json.loads((one / "run.json").read_text())["ranks"] for one in (run, by_four, alone)] == [1, 4, 1]
    assert [path.name for path in sorted(by_four.iterdir())] == [path.name for path in sorted(alone.iterdir())]
    expected, (*_, last) = load_file(alone / "patch.safetensors"), lines(alone / "metrics.jsonl")
    for one in (run, by_four):
        found = load_file(one / "patch.safetensors")
        for name, weight in expected.items():
            torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=5e-5, msg=f"{one}: {name}")
        assert lines(one / "metrics.jsonl")[-1]["tokens"] == last["tokens"]
        points = [[{**point, "cost": None} for point in lines(path / "held_out.jsonl")] for path in (one, alone)]
        assert points[0] == points[1]


def test_what_several_ranks_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["study", "quickstart", "--parallel", "2"]) == 2
    assert "torchrun starts `onelayer train` alone" in message(capsys.readouterr().err)
