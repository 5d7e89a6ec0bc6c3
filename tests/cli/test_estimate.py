"""`onelayer estimate`: what fits, what does not and which key changes that, and seconds from a calibration alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from onelayer.cli.main import main
from onelayer.trainers import hardware
from onelayer.trainers.estimate import Estimate, Memory
from onelayer.trainers.hardware import GIB, Calibration, devices_for, peak_of_one

SMALL = ["quickstart", "trainer.prompts_per_step=8", "study.trained_sets=[layer:2,layer:4]", "-q"]
SLOW = {"model": "tiny", "parameters": 1_411_072, "phase": "rollout", "engine": "transformers", "operations": 1e9, "seconds": 2.0}


def calibration(path: Path, hardware_name: str) -> Path:
    rows = [SLOW | {"trained_set": "full"}]
    rows += [SLOW | {"phase": "update", "trained_set": name, "seconds": seconds} for name, seconds in (("full", 1.0), ("layer:3", 4.0))]
    whole = {"hardware": hardware_name, "device": "one", "date": "2026-11-29", "versions": {}, "measured": rows}
    path.write_text(json.dumps(whole))
    return path


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["estimate", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_fits_is_shown_by_part_and_seconds_come_from_a_calibration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, *SMALL, "--hardware", "4090", "--calibration", str(calibration(tmp_path / "rates.json", "4090")))
    full, layer = found["sets"]
    assert (full["estimate"]["trained_set"], layer["estimate"]["trained_set"], layer["stands_for"]) == ("full", "layer:2", 2)
    assert full["devices"] == layer["devices"] == 1 and not found["refused"]
    rollout, whole = layer["estimate"]["rollout_flops"], layer["estimate"]["flops"]
    assert layer["seconds"] == pytest.approx({"rollout": rollout / 5e8, "update": (whole - rollout) / 2.5e8})
    assert full["seconds"]["update"] == pytest.approx((full["estimate"]["flops"] - rollout) / 1e9)
    assert main(["estimate", *SMALL, "--hardware", "4090"]) == 0
    said = capsys.readouterr().out
    assert "Time: not known" in said and "layer:2, as the other single layer at most" in said


def test_what_does_not_fit_is_refused_with_a_key_that_makes_it_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "study.trained_sets=[layer:2]", "--hardware", "4090"]
    most = max(one["estimate"]["update"]["activations"] for one in shown(capsys, *words)["sets"])
    monkeypatch.setitem(hardware.USABLE_GIB, "4090", most / GIB)
    assert main(["estimate", *words]) == 2
    said = re.search(r"full takes [\d.]+ GiB, and one 4090 has [\d.]+ GiB: (trainer\.tokens_per_forward=\d+) ", capsys.readouterr().err)
    assert said
    assert main(["estimate", *words, said[1]]) == 0


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", *SMALL, "--hardware", "tpu"]) == 2
    assert "there are h200, h100, a100-80, 4090" in capsys.readouterr().err
    other = calibration(tmp_path / "rates.json", "h200")
    assert main(["estimate", *SMALL, "--hardware", "h100", "--calibration", str(other)]) == 2
    assert "is of h200" in capsys.readouterr().err
    other.write_text('{"hardware": "h100"}')
    assert main(["estimate", *SMALL, "--hardware", "h100", "--calibration", str(other)]) == 2
    assert "written by bench/gpu.py" in capsys.readouterr().err


def of(trained_set: str, weights: float, trained: float, activations: float) -> Estimate:
    """GiB of each part, in both phases."""
    parts = {"weights": weights, "trained": trained, "activations": activations, "head": 0, "keys_and_values": 0}
    memory = Memory(**{name: int(gib * GIB) for name, gib in parts.items()})
    sizes = dict.fromkeys(("parameters", "trained_parameters", "episodes", "tokens", "tokenizer", "patch", "checkpoint"), 1)
    return Estimate(
        trained_set=trained_set, flops=2.0, rollout_flops=1.0, rollout=memory, update=memory, gathered=int(2 * GIB), **sizes
    )  # fmt: skip


def test_all_parameters_are_divided_over_devices_and_a_layer_is_not() -> None:
    full, layer = of("full", 10, 90, 8), of("layer:3", 10, 90, 8)
    assert devices_for(full, 110) == devices_for(layer, 110) == 1
    assert (devices_for(full, 60), devices_for(layer, 60)) == (2, None)
    assert peak_of_one(full, 2) == int((8 + 50 + 2) * GIB) and peak_of_one(layer, 2) == int(108 * GIB)
    assert devices_for(full, 10) is None  # what cannot be divided fills each device


def test_a_calibration_prefers_what_trains_the_same_on_the_same_engine_at_the_same_size(tmp_path: Path) -> None:
    found = Calibration.model_validate_json(calibration(tmp_path / "rates.json", "h100").read_text())
    assert found.seconds(of("layer:9", 1, 1, 1), "vllm") == pytest.approx({"rollout": 1 / 5e8, "update": 1 / 2.5e8})
    without = found.model_copy(update={"measured": [one for one in found.measured if one.phase == "update"]})
    assert without.seconds(of("full", 1, 1, 1), "vllm") is None
