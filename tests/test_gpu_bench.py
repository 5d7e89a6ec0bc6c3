"""bench/gpu.py with shapes small enough for a CPU: what it writes is a calibration that `onelayer estimate` reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from onelayer.trainers.hardware import read_calibration

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "gpu.py"


def test_a_tiny_run_writes_a_calibration(tmp_path: Path) -> None:
    file = tmp_path / "tiny.json"
    command = [sys.executable, SCRIPT, "--tiny", "--models", "Qwen/Qwen3-8B-Base", "--hardware", "h100", "--output", file]
    run = subprocess.run(command, text=True, capture_output=True)
    assert run.returncode == 0, run.stderr
    found = read_calibration(file, "h100")
    assert [(one.phase, one.trained_set) for one in found.measured][-3:] == [("rollout", "full"), ("update", "layer:1"), ("update", "full")]
    assert all(one.seconds > 0 and one.operations > 0 for one in found.measured)
    of_model = {name.removeprefix("Qwen/Qwen3-8B-Base "): value for name, value in found.further.items()}
    assert of_model["transformers: two rollouts of the same seeds are equal"] is True
    assert of_model["two updates of layer:1 end in the same bytes"] is of_model["two updates of full end in the same bytes"] is True
