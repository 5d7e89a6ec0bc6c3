"""Models trained elsewhere, from the command line: imported, evaluated as they are themselves, compared, submitted, verified and ranked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from e2e.commands import replies
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from onelayer.agents import tiny
from onelayer.cli.main import main

EVALUATION = ["eval", "--suite", "arithmetic", "--items", "8", "--n", "2"]
TRAINED: dict[str, Callable[[str], bool]] = {
    "one": lambda name: ".layers.3." in name,
    "all": lambda name: True,
    "layer-and-norm": lambda name: ".layers.3." in name or name == "model.norm.weight",
}
SETS = {"one": "layer:3", "all": "full", "layer-and-norm": "layer:3+norm", "lora": "lora:4"}


@torch.no_grad()
def made(place: Path, chosen: Callable[[str], bool]) -> None:
    """A copy of the tiny base with some of its weights moved."""
    model = AutoModelForCausalLM.from_pretrained(tiny.PATH, dtype=torch.float32)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if chosen(name):
            parameter.add_(2e-3 * torch.randn_like(parameter))
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(tiny.PATH).save_pretrained(place)


@torch.no_grad()
def made_adapter(place: Path, merged: Path) -> None:
    """A LoRA that peft saved, and the same model merged by peft."""
    base = AutoModelForCausalLM.from_pretrained(tiny.PATH, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.normal_(0, 0.02)
    model.save_pretrained(str(place))
    model.merge_and_unload().save_pretrained(merged)  # type: ignore[operator]
    AutoTokenizer.from_pretrained(tiny.PATH).save_pretrained(merged)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, their patches, and the evaluations of both."""
    root = tmp_path_factory.mktemp("import")
    for name, chosen in TRAINED.items():
        made(root / name, chosen)
    made_adapter(root / "adapter", root / "lora")
    assert main([*EVALUATION, "--output", str(root / "runs" / "base")]) == 0
    for name in SETS:
        place, source = root / "runs" / name, root / ("adapter" if name == "lora" else name)
        patch = place / "patch.safetensors"
        assert main(["import", "--base", "tiny", "--model", str(source), "--note", f"by {name}", "--output", str(patch)]) == 0
        assert main([*EVALUATION, "--patch", str(patch), "--output", str(place / "test")]) == 0
        assert main([*EVALUATION, "--model", str(root / name), "--output", str(root / "themselves" / name)]) == 0
    return root


@pytest.mark.parametrize("name", SETS)
def test_an_imported_model_is_evaluated_as_it_is_itself(root: Path, name: str) -> None:
    mine, theirs = root / "runs" / name / "test", root / "themselves" / name
    if name != "lora":  # whose merged weights peft rounds otherwise in the last bit
        assert replies(mine) == replies(theirs)
    verdicts = [[row["verdict"] for row in replies(place)] for place in (mine, theirs)]
    assert verdicts[0] == verdicts[1]
    manifest = json.loads((mine / "evaluation.json").read_text())
    (told,) = manifest["elsewhere"]
    assert manifest["trained"] == [None] and told["trained_set"] == SETS[name] and told["note"] == f"by {name}"
    assert 1 <= told["parameters"] <= told["total_parameters"] == 1_411_072
    source = "adapter" if name == "lora" else name
    assert manifest["policy"] == f"{SETS[name]} of {source}, trained elsewhere"


def test_claims_are_proven_or_refuted(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch = tmp_path / "patch.safetensors"

    def run(name: str, *more: str) -> tuple[int, str, str]:
        code = main(["import", "--base", "tiny", "--claims", "layer:3", "--output", str(patch), "--model", str(root / name), *more])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, text, _ = run("layer-and-norm", "--json")
    told = json.loads(text)
    assert code == 1 and told["claim"]["outside"] == ["model.norm.weight"] and told["patch"] is None and not patch.exists()
    assert told["trained_set"] == "layer:3+norm" and [layer["layer"] for layer in told["layers"]] == [3, None]
    code, text, _ = run("layer-and-norm")
    assert code == 1 and "layer:3: refuted. These differ, too: model.norm.weight." in text
    code, text, _ = run("one")
    assert code == 0 and "layer:3: proven" in text and f"patch: {patch}" in text
    code, _, error = run("one")
    assert code == 2 and "is there already" in error


def test_it_is_compared_submitted_verified_and_ranked_as_trained_elsewhere(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = root / "runs"
    assert main(["compare", *(str(runs / name / "test") for name in SETS), str(runs / "base"), "--output", str(tmp_path / "compared")]) == 0
    assert "layer:3 of one, trained elsewhere" in capsys.readouterr().out
    assert main(["submit", str(runs), "--output", str(tmp_path / "mine.tar")]) == 0
    assert main(["verify", str(tmp_path / "mine.tar"), "--regenerate", "2", "--unpack", str(tmp_path / "theirs")]) == 0
    assert main(["leaderboard", str(tmp_path / "theirs"), "--output", str(tmp_path / "site")]) == 0
    board = json.loads((tmp_path / "site" / "leaderboard.json").read_text())
    (table,) = [table for table in board["tables"] if table["suite"] == "arithmetic/test" and table["items"] == 8]
    entries = {entry["elsewhere"][0]["note"]: entry for entry in table["entries"] if entry["elsewhere"]}
    assert entries.keys() == {f"by {name}" for name in SETS}
    for name, spec in SETS.items():
        entry = entries[f"by {name}"]
        assert entry["algorithm"] == "trained elsewhere" and entry["mark"] == "regenerated" and entry["sampled"]["rank"]
        assert entry["elsewhere"][0]["trained_set"] == spec and entry["parameters"] and entry["sampled"]["to_base"]
    assert "by layer-and-norm" in (tmp_path / "site" / "leaderboard.csv").read_text()


def test_what_a_submission_says_of_the_origin_is_what_the_patch_says(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "runs" / "one", tmp_path / "one")
    manifest = tmp_path / "one" / "test" / "evaluation.json"
    told = json.loads(manifest.read_text())
    told["elsewhere"][0]["note"] = "trained here"
    manifest.write_text(json.dumps(told))
    assert main(["verify", str(tmp_path / "one")]) == 2
    assert "elsewhere is" in capsys.readouterr().err
