"""Every mistake a user can make is answered with one line on stderr that says where and what, exit code 2 and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onelayer.agents import patch
from onelayer.cli.main import main

FILES = {
    "typo.yaml": "trainer:\n  trained_sett: full\n",
    "nan.yaml": "trainer:\n  lr: .nan\n",
    "bad.yaml": "trainer: {lr: 1\n",
    "twice.yaml": "trainer:\n  steps: 1\n  steps: 2\n",
    "empty.yaml": "",
    "held/config.yaml": "name: other\n",
    "broken.jsonl": '{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 2", \n',
    "fields.jsonl": '{"text": "1 + 1", "answer": "2"}\n',
    "empty.jsonl": "",
    "responses.jsonl": '{"response": "\\\\boxed{2}", "gold": "2"}\nnot json\n',
    "ungolden.jsonl": '{"response": "\\\\boxed{2}"}\n',
    "occupied": "a file where a directory is wanted",
    "garbage.safetensors": "garbage",
}
COMMANDS = {  # what is wrong: command, what the line must say
    "unknown verb": ("trian quickstart", "trian"),
    "unknown option": ("train quickstart --outptu x", "--outptu"),
    "half a verb": ("grade", "command grade"),
    "missing option": ("export --run held", "--output"),
    "no recipe": ("train", "RECIPE --resume"),
    "missing file": ("study nowhere.yaml", "nowhere.yaml quickstart"),
    "unknown key": ("study typo.yaml", "typo.yaml:2 trainer.trained_sett trainer.trained_set?"),
    "unknown key in override": ("train quickstart trainer.step=1", "trainer.step trainer.steps"),
    "wrong type": ("train quickstart trainer.steps=many", "trainer.steps integer many"),
    "not among the choices": ("train quickstart model.dtype=int8", "model.dtype float32 bfloat16 int8"),
    "NaN learning rate": ("train nan.yaml", "nan.yaml:2 trainer.lr finite"),
    "broken YAML": ("train bad.yaml", "bad.yaml:2 YAML"),
    "duplicate key": ("train twice.yaml", "twice.yaml:3 trainer.steps twice.yaml:2"),
    "empty recipe": ("train empty.yaml", "empty.yaml empty"),
    "override without a value": ("train quickstart trainer.lr", "trainer.lr KEY=VALUE"),
    "group of one": ("train quickstart trainer.group_size=1", "trainer.group_size 2"),
    "layer out of range": ("train quickstart trainer.trained_set=layer:99", "layer:99 layers 0"),
    "layer out of range in a study": ("study quickstart study.trained_sets=[layer:99]", "layer:99 layers 0"),
    "malformed trained set": ("train quickstart trainer.trained_set=layre:1", "layre:1 layer:N"),
    "malformed trained set in a dry run": ("train quickstart trainer.trained_set=layer:one --dry-run", "layer:one layer:N"),
    "missing model directory": ("train quickstart model.path=./nowhere", "model.path ./nowhere"),
    "no such suite": ("eval --suite arithmetics", "arithmetics arithmetic gsm8k"),
    "no such suite in a recipe": ("train quickstart env.suite=arithmetics", "arithmetics arithmetic gsm8k"),
    "suite whose data is absent": ("eval --suite gsm8k", "gsm8k ONELAYER_DATA"),
    "missing items": ("train quickstart env.suite=nowhere.jsonl", "nowhere.jsonl"),
    "broken JSON line": ("eval --suite broken.jsonl", "broken.jsonl:2"),
    "unknown fields": ("eval --suite fields.jsonl", "fields.jsonl:1 question"),
    "no items": ("eval --suite empty.jsonl", "empty.jsonl"),
    "samples out of range": ("eval --suite arithmetic --n 0", "--n"),
    "missing patch": ("eval --suite arithmetic --patch nowhere.safetensors", "nowhere.safetensors"),
    "damaged patch": ("eval --suite arithmetic --patch garbage.safetensors", "garbage.safetensors"),
    "patch of another base": ("eval --suite arithmetic --patch foreign.safetensors", "layer:0 base"),
    "output under a file": ("train quickstart --output occupied/run", "occupied"),
    "evaluation under a file": ("eval --suite arithmetic --items 2 --output occupied/run", "occupied"),
    "study under a file": ("study quickstart --output occupied/run", "occupied"),
    "output holds a run": ("train quickstart --output held", "held --resume"),
    "output holds a study": ("study quickstart --output held", "held"),
    "output holds something": ("eval --suite arithmetic --output held", "held"),
    "nothing to resume": ("train --resume nowhere", "nowhere config.yaml"),
    "resume and output": ("train --resume held --output x", "--resume --output"),
    "no run to export": ("export --run nowhere --output x", "nowhere"),
    "missing responses": ("grade math --input nowhere.jsonl", "nowhere.jsonl"),
    "broken response line": ("grade math --input responses.jsonl", "responses.jsonl:2"),
    "response without gold": ("grade math --input ungolden.jsonl", "ungolden.jsonl:1 gold"),
    "no responses": ("grade math --input empty.jsonl", "empty.jsonl"),
}
PROCESSES = ["unknown verb", "unknown key", "NaN learning rate", "broken JSON line", "patch of another base"]


@pytest.fixture(autouse=True)
def bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    patch.write(tmp_path / "foreign.safetensors", patch.Patch("0" * 64, "layer:0", {"weight": torch.zeros(1)}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONELAYER_DATA", raising=False)


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_mistake_is_one_line(mistake: str, capfd: pytest.CaptureFixture[str]) -> None:
    command, words = COMMANDS[mistake]
    code = main(command.split())
    check(code, capfd.readouterr().err, words)


@pytest.mark.parametrize("mistake", PROCESSES)
def test_a_mistake_is_one_line_of_the_process_too(mistake: str) -> None:
    command, words = COMMANDS[mistake]
    done = subprocess.run([sys.executable, "-m", "onelayer", *command.split()], capture_output=True, text=True)
    check(done.returncode, done.stderr, words)


def check(code: int, stderr: str, words: str) -> None:
    assert code == 2
    assert stderr.startswith("onelayer: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert [word for word in words.split() if word not in stderr] == []
