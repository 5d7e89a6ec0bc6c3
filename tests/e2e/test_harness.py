"""Tasks of lm-evaluation-harness, against what is found without it: the same prompts give the same verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from e2e.commands import message, replies

from onelayer.agents import patch
from onelayer.agents.config import ModelConfig
from onelayer.agents.patch import Patch
from onelayer.agents.policy import Base, load_base
from onelayer.agents.trained_sets import select
from onelayer.cli.main import main
from onelayer.envs import load
from onelayer.envs.config import MathConfig
from onelayer.evals.records import MANIFEST, Decoding, Evaluation, read_evaluation

ITEMS = 40
BOXED = {
    "output_type": "generate_until",
    "doc_to_target": "{{gold}}",
    "generation_kwargs": {"until": ["<|im_end|>"], "do_sample": False, "max_gen_toks": 40},
    "filter_list": [
        {
            "name": "boxed",
            "filter": [{"function": "regex", "regex_pattern": r"boxed\{(-?[0-9]+)\}", "group_select": -1}, {"function": "take_first"}],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": 0,
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelConfig(path="tiny"))


def write_task(directory: Path, documents: Sequence[dict[str, Any]], settings: dict[str, Any]) -> Path:
    """A task of the harness: documents, and the file that defines it."""
    data, path = directory / "documents.jsonl", directory / "task.yaml"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    files = {"data_files": {"test": str(data)}, "cache_dir": str(directory / "cache")}
    place = {"dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
    path.write_text(yaml.safe_dump({"task": "local", **place, "doc_to_text": "{{prompt}}", **settings}))
    return path


def evaluate(suite: object, output: Path, *more: object) -> int:
    return main(["eval", "--suite", str(suite), "--items", str(ITEMS), "--n", "1", "--output", str(output), *map(str, more)])


def test_generated_answers_are_those_of_the_evaluator(base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base and patch, greedily: the harness generates and compares on its own, with the very prompts of our records."""
    gold = {item.id: item.gold for item in load(MathConfig(suite="arithmetic"), "test").items}
    torch.manual_seed(0)
    moved = {name: weight + 0.02 * torch.randn_like(weight) for name, weight in select(base.model, "layer:3").parameters.items()}
    patch.write(tmp_path / "patch.safetensors", Patch(base.fingerprint, "layer:3", moved))
    found = {}
    for name, extra in (("base", []), ("patch", ["--patch", tmp_path / "patch.safetensors"])):
        ours, theirs = tmp_path / name / "ours", tmp_path / name / "theirs"
        assert evaluate("arithmetic", ours, *extra) == 0
        capsys.readouterr()
        greedy = replies(ours, Decoding.GREEDY)
        task = write_task(ours.parent, [{"prompt": one["steps"][0]["prompt"], "gold": gold[one["item"]]} for one in greedy], BOXED)
        assert evaluate(f"lm-eval:{task}", theirs, *extra) == 0
        shown = capsys.readouterr().out
        assert "greedy" in shown and "temperature" not in shown  # what was not measured is not shown
        found[name] = [one["verdict"] for one in replies(theirs, Decoding.GREEDY)]
        assert found[name] == [one["verdict"] for one in greedy]
        manifest = read_evaluation(theirs).manifest
        assert {manifest.greedy.mean_tokens, manifest.greedy.truncated, manifest.greedy.valid, manifest.greedy.corrected} == {None}
        assert {one["tokens"] for one in replies(theirs, Decoding.GREEDY)} == {None}
        earlier = json.loads((theirs / MANIFEST).read_text())
        earlier["greedy"] |= {"mean_tokens": 0.0, "truncated": 0.0, "valid": 1.0, "corrected": 0.0}  # as earlier releases had it
        assert Evaluation.model_validate(earlier) == manifest
        assert manifest.repeats is Decoding.SAMPLED and manifest.greedy.pass_rate == read_evaluation(ours).manifest.greedy.pass_rate
    assert found["base"] != found["patch"] and "correct" in found["base"]


def test_choices_are_the_likeliest_ones(base: Base, tmp_path: Path) -> None:
    """And figures of several suites, the harness's among them, are averaged."""
    items = load(MathConfig(suite="arithmetic"), "test").items[:ITEMS]
    documents = [{"prompt": one.question, "choices": [f" {int(one.gold) + more}" for more in (0, 1, -1, 10)]} for one in items]
    expected = []
    for document in documents:
        chances = []
        for choice in document["choices"]:
            start, whole = (
                len(base.tokenizer.encode(document["prompt"])),
                torch.tensor([base.tokenizer.encode(document["prompt"] + choice)]),
            )
            with torch.inference_mode():
                logprobs_TV = base.model(whole).logits[0].float().log_softmax(-1)
            chances.append(sum(float(logprobs_TV[at - 1, whole[0, at]]) for at in range(start, whole.shape[1])))
        expected.append("correct" if max(chances) == chances[0] else "wrong")
    assert set(expected) == {"correct", "wrong"}
    task = write_task(tmp_path, documents, CHOICES)
    (tmp_path / "both.yaml").write_text(yaml.safe_dump({"groups": {"math": ["arithmetic"], "both": ["arithmetic", f"lm-eval:{task}"]}}))
    assert evaluate(tmp_path / "both.yaml", tmp_path / "all") == 0
    told = json.loads((tmp_path / "all" / "suites.json").read_text())
    places = {member["suite"]: tmp_path / "all" / member["directory"] for member in told["suites"]}
    assert [one["verdict"] for one in replies(places[f"lm-eval:{task}"], Decoding.GREEDY)] == expected
    means = [read_evaluation(place).manifest.greedy.pass_rate.mean for place in places.values()]
    assert told["groups"]["both"]["greedy"]["mean"] == pytest.approx(sum(means) / 2)


def test_what_the_harness_can_not_do_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("lm-eval:nonsense", tmp_path / "none") == 2
    assert "lm-eval:nonsense: the harness cannot run it" in message(capsys.readouterr().err)
    perplexity = CHOICES | {"metric_list": [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}]}
    task = write_task(tmp_path, [{"prompt": "1 + 1", "choices": ["2", "3"]}] * ITEMS, perplexity)
    assert evaluate(f"lm-eval:{task}", tmp_path / "silent") == 2
    assert "none of its figures says right or wrong" in message(capsys.readouterr().err)
