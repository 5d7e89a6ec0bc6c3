"""Every mistake a user can make is answered with one line on stderr that says where and what, exit code 2 and no traceback.

`python -m pytest tests/cli/test_bad_input.py -q -s` prints the table of commands and answers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from onelayer.agents import patch
from onelayer.cli.config import load
from onelayer.cli.main import main
from onelayer.trainers.config import dump

OWN = "".join(f'{{"question": "{n} + {n}", "answer": "{2 * n}"}}\n' for n in range(40))
FILES = {
    "typo.yaml": "trainer:\n  trained_sett: full\n",
    "nan.yaml": "trainer:\n  lr: .nan\n",
    "bad.yaml": "trainer: {lr: 1\n",
    "twice.yaml": "trainer:\n  steps: 1\n  steps: 2\n",
    "empty.yaml": "",
    "promptly.yaml": "agent:\n  prompt: {\n    fil: mine.txt}\n",
    "held/config.yaml": "name: other\n",
    "broken/config.yaml": "trainer: {steps: many}\n",
    "stopped/config.yaml": dump(load("quickstart")),
    "stopped/checkpoint.pt": "garbage",
    "finished/config.yaml": dump(load("quickstart")),
    "finished/run.json": '{"schema_version": 2}',
    "begun/journal.jsonl": "",
    "question.txt": "Solve it.\n{observation}\n{question}\n",
    "results/notes.txt": "no results yet",
    "questionless.txt": "Solve it.\n",
    "latin.txt": "\xbf{observation}?",
    "broken.jsonl": '{"question": "1 + 1", "answer": "2"}\n{"question": "1 + 2", \n',
    "fields.jsonl": '{"text": "1 + 1", "answer": "2"}\n',
    "empty.jsonl": "",
    "goldless.jsonl": OWN + '{"question": "1 + 1"}\n',
    "blank.jsonl": OWN + '{"question": "1 + 1", "answer": ""}\n',
    "unreadable.jsonl": OWN + '{"question": "one half", "answer": "\\\\frac{1"}\n',
    "own.jsonl": OWN,
    "responses.jsonl": '{"response": "\\\\boxed{2}", "gold": "2"}\nnot json\n',
    "ungolden.jsonl": '{"response": "\\\\boxed{2}"}\n',
    "brackets.yaml": "[" * 100_000,
    "bomb.yaml": "name: &a x\nmodel: *a\n",
    "digits.yaml": "trainer: {steps: " + "1" * 5000 + "}\n",
    "brackets.jsonl": "[" * 100_000,
    "digits.jsonl": '{"question": ' + "1" * 5000 + "}\n",
    "models/config.json": '{"model_type": "qwen3", "hidden_size": -1}',
    "occupied": "a file where a directory is wanted",
    "garbage.safetensors": "garbage",
}
SERVES = {  # folder of a server: what it answers there
    "cutting/v1/models": '{"data": [{"id": "tiny", "max_model_len": 256}]}',
    "cutting/v1/completions": '{"choices": [{"token_ids": [1], "logprobs": {"token_logprobs": [-1]}, "finish_reason": "length"}]}',
    "page/v1/models": "<html>It works!</html>",
    "other/v1/models": '{"error": "no such thing"}',
    "modelless/v1/models": '{"object": "list", "data": []}',
    "openai/v1/models": '{"object": "list", "data": [{"id": "tiny", "object": "model"}]}',
    "mute/v1/models": '{"data": [{"id": "tiny", "max_model_len": 256}]}',
    "mute/v1/completions": '{"choices": [{"text": "4", "finish_reason": "stop"}]}',
    "hasty/v1/models": '{"data": [{"id": "tiny", "max_model_len": 256}]}',
    "hasty/v1/completions": '{"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [-1]}, "finish_reason": "stop"}]}',
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
    "brackets": ("train brackets.yaml", "brackets.yaml:1 YAML nested"),
    "an alias": ("train bomb.yaml", "bomb.yaml:2 aliases"),
    "a number of 5,000 digits": ("train digits.yaml", "digits.yaml:1 trainer.steps number"),
    "brackets in an override": (f"train quickstart trainer.seed={'[' * 100_000}", "trainer.seed YAML nested"),
    "a key of 50,000 parts": (f"train quickstart trainer{'.x' * 50_000}=1", "SECTION.KEY=VALUE"),
    "more workers than a machine has": ("train quickstart pool.workers=100000000", "pool.workers 1024"),
    "a layer of 5,000 digits": (f"train quickstart trainer.trained_set=layer:{'9' * 5000}", "layer:N"),
    "no such device": ("eval --suite arithmetic model.device=tpu", "model.device 'tpu' cuda:N"),
    "a device that is not there": ("eval --suite arithmetic model.device=cuda:99", "model.device 'cuda:99' cuda:N"),
    "a model of a negative size": ("eval --suite arithmetic --model models", "models/config.json hidden_size '-1'"),
    "duplicate key": ("train twice.yaml", "twice.yaml:3 trainer.steps twice.yaml:2"),
    "empty recipe": ("train empty.yaml", "empty.yaml empty"),
    "override without a value": ("train quickstart trainer.lr", "trainer.lr KEY=VALUE"),
    "a split that no suite has": ("eval --suite arithmetic/tset", "'tset' arithmetic train, validation"),
    "a directory without a patch": ("eval --suite arithmetic --patch held", "held/patch.safetensors patch"),
    "a split of another environment": ("eval --suite arithmetic/valid_sen", "'valid_sen' train, validation, test"),
    "a split that games do not have": ("eval --suite alfworld/tset", "'tset' train, validation, valid_seen, valid_unseen"),
    "a keyword as a package": ("env new class", "'class' keyword another"),
    "a module of Python's own": ("env new json", "'json' standard library another"),
    "an installed package": ("env new numpy", "'numpy' installed another"),
    "an environment that is none": ("env check arithmetics", "arithmetics arithmetic gsm8k"),
    "a directory without a model": ("train quickstart model.path=held", "model.path held config.json"),
    "an environment under keys of another": ("train quickstart env.id=ours:ours/Ours-v0", "quickstart.yaml:10 env.suite env={id:"),
    "a key without its value": ("train trainer.steps 40", "trainer.steps trainer.steps=VALUE"),
    "an empty leaderboard": ("leaderboard results --output site", "results evaluation.json onelayer eval --output results/base"),
    "a task that the harness does not have": ("eval --suite arithmetic,lm-eval:nosuch", "lm-eval:nosuch registered"),
    "a path as a prompt": ("train quickstart agent.prompt=prompts/question.txt", "{observation} agent.prompt.file=prompts/question.txt"),
    "group of one": ("train quickstart trainer.group_size=1", "trainer.group_size 2"),
    "more minibatches than groups": ("train quickstart trainer.minibatches=33", "trainer.minibatches 32"),
    "a learning rate of zero": ("study quickstart study.lr_grid=[0,1e-4]", "study.lr_grid.0 > 0"),
    "a seed twice": ("study quickstart study.seeds=[1,1]", "study.seeds twice"),
    "full named in a study": ("study quickstart study.trained_sets=[full]", "study.trained_sets full every"),
    "a rate for an untrained layer": ("train quickstart trainer.trained_set=layer:3 trainer.lr_by_layer.2=1e-4", "lr_by_layer 2 layer:3"),
    "prompt without the question": ("train quickstart agent.prompt=Solve", "agent.prompt {observation}"),
    "prompt with a width": ("train quickstart agent.prompt='{observation:>99999999999}'", "agent.prompt {observation} 99999999999"),
    "prompt that is a device": ("train quickstart agent.prompt.file=/dev/zero", "/dev/zero no file"),
    "prompt file that is missing": ("train quickstart agent.prompt.file=nowhere.txt", "agent.prompt.file nowhere.txt working"),
    "prompt file with a wrong brace": ("train quickstart agent.prompt.file=question.txt", "question.txt:3 agent.prompt {observation}"),
    "prompt file without the question": ("eval --suite arithmetic agent.prompt.file=questionless.txt", "questionless.txt:1 {observation}"),
    "prompt file that is not UTF-8": ("train quickstart agent.prompt.file=latin.txt", "latin.txt UTF-8"),
    "prompt of something else": ("train promptly.yaml", "promptly.yaml:3 agent.prompt {file: mine.txt"),
    "no such engine": ("train quickstart agent.engine=vlm", "agent.engine transformers vllm URL package.module:Class"),
    "vLLM is not installed": ("train quickstart agent.engine=vllm", "agent.engine vllm docs/vllm.md"),
    "vLLM is not installed for a study": ("study quickstart agent.engine=vllm", "agent.engine vllm docs/vllm.md"),
    "no server": ("train quickstart agent.engine=http://127.0.0.1:9", "http://127.0.0.1:9 refused api_server"),
    "URL of no server": ("eval --suite arithmetic agent.engine=http://[", "http://[ api_server"),
    "a web server": ("train quickstart agent.engine=SERVER/page", "SERVER/page/v1/models JSON api_server"),
    "a server of something else": ("train quickstart agent.engine=SERVER/other", "SERVER/other/v1/models data api_server"),
    "a server without a model": ("train quickstart agent.engine=SERVER/modelless", "SERVER/modelless/v1/models data 1 api_server"),
    "a server of another kind": ("train quickstart agent.engine=SERVER/openai", "SERVER/openai/v1/models max_model_len api_server"),
    "no such page on a server": ("train quickstart agent.engine=SERVER/nowhere", "SERVER/nowhere/v1/models 404 no such page api_server"),
    "a server that takes no weights": ("train quickstart agent.engine=SERVER/mute --output new", "SERVER/mute weights api_server"),
    "a server without token ids": ("eval --suite arithmetic agent.engine=SERVER/mute --output new", "SERVER/mute token_ids"),
    "a server with too few logprobs": ("eval --suite arithmetic agent.engine=SERVER/hasty --output new", "SERVER/hasty 2 logprobs"),
    "layer out of range": ("train quickstart trainer.trained_set=layer:99", "layer:99 layers 0"),
    "layer out of range in a study": ("study quickstart study.trained_sets=[layer:99]", "layer:99 layers 0"),
    "malformed trained set": ("train quickstart trainer.trained_set=layre:1", "layre:1 layer:N"),
    "malformed trained set in a dry run": ("train quickstart trainer.trained_set=layer:one --dry-run", "layer:one layer:N"),
    "missing model directory": ("train quickstart model.path=./nowhere", "model.path ./nowhere"),
    "no such suite": ("eval --suite arithmetics", "arithmetics arithmetic gsm8k"),
    "data set without a name": ("eval --suite hub:", "'hub:' hub:OWNER/NAME"),
    "no such suite in a recipe": ("train quickstart env.suite=arithmetics", "arithmetics arithmetic gsm8k"),
    "suite whose data is absent": ("eval --suite gsm8k", "gsm8k ONELAYER_DATA"),
    "missing items": ("train quickstart env.suite=nowhere.jsonl", "nowhere.jsonl"),
    "broken JSON line": ("eval --suite broken.jsonl", "broken.jsonl:2"),
    "unknown fields": ("eval --suite fields.jsonl", "fields.jsonl:1 question"),
    "item without gold": ("eval --suite goldless.jsonl/all", "goldless.jsonl:41 answer"),
    "item with an empty gold": ("eval --suite blank.jsonl/all env.unreadable=refuse", "blank.jsonl:41 answer empty"),
    "gold that cannot be read": ("eval --suite unreadable.jsonl/all env.unreadable=refuse", "unreadable.jsonl:41 gold"),
    "training on evaluation items": ("train quickstart env.suite=own.jsonl eval.suite=own.jsonl/all", "own.jsonl/train own.jsonl/all also"),
    "choosing on evaluation items": ("study quickstart eval.suite=arithmetic/validation", "arithmetic/validation also"),
    "more items than there are": ("study quickstart eval.items=9999", "eval.items 9999 512"),
    "more validation items than there are": ("study quickstart study.validation_items=9999", "study.validation_items 9999 512"),
    "no items": ("eval --suite empty.jsonl", "empty.jsonl"),
    "samples out of range": ("eval --suite arithmetic --n 0", "--n"),
    "a reply longer than the context": ("eval --suite arithmetic agent.max_tokens=3072", "agent.max_tokens 3072 2048 1024 or less"),
    "a reply longer than the context in training": ("train quickstart agent.max_tokens=3072", "agent.max_tokens 3072 2048 1024 or less"),
    "a reply longer than the context in a study": ("study quickstart agent.max_tokens=2048", "agent.max_tokens 2048 1024 or less"),
    "a reply longer than the context in a plan": ("train quickstart agent.max_tokens=2048 --dry-run", "agent.max_tokens 2048 1024 or less"),
    "prompts that do not fit": (
        "eval --suite arithmetic agent.max_tokens=2044",
        "arithmetic/test every prompt 4 tokens agent.max_tokens (2044)",
    ),
    "prompts that do not fit in training": (
        "train quickstart agent.max_prompt=3",
        "arithmetic/train every prompt agent.max_prompt, 3 raise",
    ),
    "prompts that do not fit in a study": (
        "study quickstart agent.max_prompt=3",
        "arithmetic/train every prompt agent.max_prompt, 3 raise",
    ),
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
    "damaged checkpoint": ("train --resume stopped", "stopped/checkpoint.pt damaged remove"),
    "damaged manifest": ("train --resume finished", "finished/run.json config remove"),
    "resume under another recipe": ("study held/config.yaml --output stopped", "stopped study.yaml"),
    "resume and output": ("train --resume held --output x", "--resume --output"),
    "a server that cuts replies off": ("eval --suite arithmetic agent.engine=SERVER/cutting", "1 tokens of 40 max_new_tokens"),
    "nothing to compare": ("compare", "RUN"),
    "comparison of a missing run": ("compare nowhere", "nowhere"),
    "comparison of a file": ("compare typo.yaml", "typo.yaml file"),
    "comparison of an unfinished evaluation": ("compare begun", "begun config.yaml study.yaml evaluation.json"),
    "comparison of a damaged run": ("compare stopped finished", "finished/run.json config remove"),
    "comparison with a broken recipe": ("compare stopped broken", "broken/config.yaml: name Field"),
    "comparison under a file": ("compare stopped --output occupied/page", "occupied"),
    "no run to export": ("export --run nowhere --output x", "nowhere"),
    "missing responses": ("grade math --input nowhere.jsonl", "nowhere.jsonl"),
    "responses of brackets": ("eval --suite arithmetic --responses brackets.jsonl --output new", "brackets.jsonl:1 nested"),
    "responses of digits": ("grade math --input digits.jsonl", "digits.jsonl:1 JSON"),
    "items of brackets": ("eval --suite brackets.jsonl", "brackets.jsonl:1 nested"),
    "broken response line": ("grade math --input responses.jsonl", "responses.jsonl:2"),
    "response without gold": ("grade math --input ungolden.jsonl", "ungolden.jsonl:1 gold"),
    "no responses": ("grade math --input empty.jsonl", "empty.jsonl"),
}
LEFT_ALONE = {*FILES, "foreign.safetensors"}
PROCESSES = [
    "unknown verb",
    "unknown key",
    "NaN learning rate",
    "broken JSON line",
    "patch of another base",
    "training on evaluation items",
]


@pytest.fixture(autouse=True)
def bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="latin-1")
    patch.write(tmp_path / "foreign.safetensors", patch.Patch("0" * 64, "layer:0", {"weight": torch.zeros(1)}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ONELAYER_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "vllm", None)  # as where it is not installed


class Answers(BaseHTTPRequestHandler):
    """A server of `SERVES`; all else is not found."""

    def do_GET(self) -> None:
        found = SERVES.get(self.path.strip("/"))
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write((found or "\x1b[31mno\r\nsuch page").encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        threading.Thread(target=found.serve_forever).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, str]]:
    table: dict[str, str] = {}
    yield table
    print("\n| what is wrong | command | answer, exit code 2 |\n| --- | --- | --- |")
    for mistake, answer in table.items():
        print(f"| {mistake} | `onelayer {COMMANDS[mistake][0]}` | `` {answer.strip()} `` |")


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_mistake_is_one_line(mistake: str, server: str, capfd: pytest.CaptureFixture[str], answers: dict[str, str]) -> None:
    command, words = (text.replace("SERVER", server) for text in COMMANDS[mistake])
    code = main(command.split())
    answers[mistake] = capfd.readouterr().err
    check(code, answers[mistake], words)
    found = {path.relative_to(Path.cwd()).as_posix() for path in Path.cwd().rglob("*") if path.is_file()}
    assert found == LEFT_ALONE, "a refused command leaves nothing behind"


@pytest.mark.parametrize("mistake", PROCESSES)
def test_a_mistake_is_one_line_of_the_process_too(mistake: str) -> None:
    command, words = COMMANDS[mistake]
    done = subprocess.run([sys.executable, "-m", "onelayer", *command.split()], capture_output=True, text=True)
    check(done.returncode, done.stderr, words)


def check(code: int, stderr: str, words: str) -> None:
    assert code == 2
    stderr = re.sub(r"\A(looking for the items of .*\n)?(loading the base .*\n)?", "", stderr)  # what `eval` is doing when it fails
    assert stderr.startswith("onelayer: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert "\x1b" not in stderr
    assert [word for word in words.split() if word not in stderr] == []
