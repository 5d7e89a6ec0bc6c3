"""What a measurement of cost says, on processes whose cost is known."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from onelayer.agents.config import ModelConfig
from onelayer.agents.episodes import Episode, Play, Step
from onelayer.agents.flops import multiplied, tokens_forwarded, training_flops
from onelayer.agents.policy import load_base
from onelayer.agents.trained_sets import select
from onelayer.common import cost
from onelayer.common.cost import Cost, Meter

MIB = 2**20


def used(size: int) -> int:
    """Peak memory of a measurement in which `size` bytes are held for a moment."""
    with Meter() as meter:
        held = np.ones(size, dtype=np.uint8)
        time.sleep(0.2)
        del held
        return meter.cost().peak_memory - meter.cost().memory_before


def test_peak_memory_is_that_of_the_measurement_and_not_of_the_life_of_the_process() -> None:
    assert 290 * MIB < used(300 * MIB) < 340 * MIB
    assert used(10 * MIB) < 40 * MIB


def test_where_the_kernel_keeps_its_mark_memory_is_sampled(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    real = cost.PROC
    (tmp_path / "self").symlink_to(real / "self" / "task")  # a directory without clear_refs
    monkeypatch.setattr(cost, "PROC", tmp_path)
    monkeypatch.setattr(cost, "_resident", lambda: int((real / "self/statm").read_text().split()[1]) * 4096)
    assert 190 * MIB < used(200 * MIB) < 240 * MIB
    assert used(10 * MIB) < 40 * MIB
    watching = [thread for thread in threading.enumerate() if thread.name == "memory"]
    for thread in watching:
        thread.join(5)
    assert not any(thread.is_alive() for thread in watching)


WORKER = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "sum(range(10**7))"])
held, end = b"x" * (150 << 20), time.process_time() + 0.5
while time.process_time() < end:
    pass
print(1, flush=True)
input()
"""


def test_what_other_processes_take_counts() -> None:
    with Meter() as meter:
        process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        process.stdout.readline()
        alive = meter.cost()
        process.communicate(b"\n")
        ended = meter.cost()
    assert (alive.peak_worker_memory or 0) > 150 * MIB > (ended.peak_worker_memory or 0)  # others may live here
    assert 0.5 <= alive.cpu_seconds <= ended.cpu_seconds + 0.05 < alive.cpu_seconds + 0.4  # nothing counts twice when it ends


def test_what_was_interrupted_adds_up() -> None:
    first = Cost(seconds=1, cpu_seconds=2, peak_memory=5, memory_before=1, peak_worker_memory=7, tokens=10, flops=1e9)
    later = Cost(seconds=2, cpu_seconds=3, gpu_seconds=2, peak_memory=4, memory_before=2, peak_gpu_memory=9, tokens=5, flops=2e9)
    assert first + later == Cost(
        seconds=3,
        cpu_seconds=5,
        gpu_seconds=2,
        peak_memory=5,
        memory_before=2,
        peak_worker_memory=7,
        peak_gpu_memory=9,
        tokens=15,
        flops=3e9,
    )
    assert Cost() + first == first


def test_flops_of_all_parameters_are_kaplans_and_a_layer_costs_less() -> None:
    base = load_base(ModelConfig())
    total = multiplied(base.model)
    full, layer = select(base.model, "full"), select(base.model, "layer:3")
    assert total == full.total  # the tiny base has tied embeddings
    assert training_flops(7, total, total, total, 1, False) == 6 * total * 7
    above = multiplied(base.model, layer.first_layer)
    assert above == total - 3 * layer.count
    assert training_flops(7, total, above, layer.count, 1, False) == 7 * 2 * (total + above + layer.count)
    assert training_flops(1, total, above, layer.count, 2, True) == 2 * (total - above) + 2 * above * 4 + 4 * (above + layer.count)


def test_tokens_of_a_conversation_are_read_once() -> None:
    def episode(*steps: tuple[list[int], list[int]]) -> Episode:
        return Episode(0, Play("a", 0, 0), [Step(prompt, reply, [], "", "", 0.0, False, {}) for prompt, reply in steps])

    apart, growing = episode(([1, 2], [3]), ([1, 2, 4], [5])), episode(([1, 2], [3]), ([1, 2, 3, 4], [5]))
    assert tokens_forwarded([apart]) == 7 and tokens_forwarded([growing]) == 5 and tokens_forwarded([apart, growing]) == 12


def test_the_machine_and_the_source_are_named() -> None:
    assert cost.hardware().cores >= 1 and cost.hardware().cpu
    assert cost.versions().keys() >= {"python", "onelayer", "torch", "transformers"}
    commit = cost.git_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40
