"""A run is its recipe: the same bytes again, and after any interruption."""

from __future__ import annotations

import json
import random
import shlex
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from e2e.commands import SMALL_DISK, dies_at, finish, lines, message, onelayer, replies, start, stop_when
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from onelayer.cli.main import main
from onelayer.evals.records import read_evaluation
from onelayer.evals.samples import read_table

STEPS = 6
SIZES = [f"trainer.steps={STEPS}", "trainer.prompts_per_step=4", "trainer.group_size=4", "trainer.checkpoint_every=2", "trainer.lr=1e-3"]
LAYER = ["train", "quickstart", *SIZES, "trainer.trained_set=layer:3", "trainer.kl_coef=0.01", "trainer.epochs=2"]
FULL = ["train", "quickstart", *SIZES, "trainer.trained_set=full", "trainer.minibatches=2"]
KEYS = {"step", "reward", "success", "entropy", "clip_share", "grad_norm", "response_length", "tokens_per_second"}
KEYS |= {"rollout_seconds", "update_seconds", "sync_seconds"}
TIMES = {"rollout_seconds", "update_seconds", "sync_seconds", "tokens_per_second"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer's run and a full one, never interrupted, each made twice."""
    directory = tmp_path_factory.mktemp("runs")
    for first, second in (("layer", "full"), ("layer-again", "full-again")):
        both = [start(*LAYER, "--output", directory / first), start(*FULL, "--output", directory / second)]
        for process, name in zip(both, (first, second), strict=True):
            assert finish(process).stdout == f"{directory / name / 'patch.safetensors'}\n"
    return directory


def assert_same_run(found: Path, expected: Path) -> None:
    assert (found / "patch.safetensors").read_bytes() == (expected / "patch.safetensors").read_bytes()
    without_times = [
        [{key: value for key, value in line.items() if key not in TIMES} for line in lines(run / "metrics.jsonl")]
        for run in (found, expected)
    ]
    assert without_times[0] == without_times[1]
    assert episodes(found) == episodes(expected)
    assert sorted(path.name for path in found.iterdir() if path.is_file()) == [
        "checkpoint.pt",
        "config.yaml",
        "metrics.jsonl",
        "patch.safetensors",
        "run.json",
    ]


def episodes(run: Path) -> list[dict]:
    """What was played, of all steps in order; the files go from checkpoint to checkpoint, so interruptions move their bounds."""
    files = sorted((run / "episodes").iterdir())
    bounds = [tuple(map(int, file.stem.split("-"))) for file in files]
    assert [first for first, _ in bounds] == [0, *(last + 1 for _, last in bounds[:-1])] and bounds[-1][1] == STEPS - 1
    rows = [row for file in files for row in read_table(file).to_pylist()]
    assert [row["step"] for row in rows] == [step for step in range(STEPS) for _ in range(16)]
    assert all(step["advantage"] is not None and step["token_ids"] and step["prompt"] for row in rows for step in row["steps"])
    return rows


def test_the_same_command_gives_the_same_bytes(runs: Path) -> None:
    assert_same_run(runs / "layer-again", runs / "layer")
    assert_same_run(runs / "full-again", runs / "full")


def test_metrics_have_a_line_a_step_with_every_key(runs: Path) -> None:
    for name, more in (("layer", {"kl"}), ("full", set())):
        metrics = lines(runs / name / "metrics.jsonl")
        assert [line["step"] for line in metrics] == list(range(STEPS))
        assert all(line.keys() >= KEYS | more for line in metrics)
        assert all(0 <= line["success"] <= 1 and line["response_length"] > 0 and line["tokens_per_second"] > 0 for line in metrics)
    assert max(line["kl"] for line in lines(runs / "layer" / "metrics.jsonl")) > 0


def again(directory: Path, *command: str) -> list[object]:
    """What a user types after a kill: the same command where nothing was begun, else --resume."""
    resumable = (directory / "config.yaml").exists()
    return ["train", "--resume", directory] if resumable else [*command, "--output", directory]


def killed_around_every_file(directory: Path) -> None:
    around = [(name, moment) for name in ("checkpoint.pt", "patch.safetensors") for moment in ("before", "after")]
    for name, moment in [("config.yaml", "before"), *around, ("run.json", "after")]:
        dies_at(name, moment, *again(directory, *LAYER, "trainer.tensorboard=true"))
        assert (directory / "run.json").exists() == (name == "run.json")


def killed_at_random_moments(directory: Path) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    print(f"seed {seed}")
    for done in (0, 1, 3, 4):
        process = start(*again(directory, *FULL))
        stop_when(process, lambda done=done: len(lines(directory / "metrics.jsonl")) >= done, signal.SIGKILL, delay=rng.uniform(0, 0.3))
    onelayer(*again(directory, *FULL))


def test_a_killed_run_ends_in_the_same_bytes(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer, full = tmp_path / "layer", tmp_path / "full"
    with ThreadPoolExecutor(2) as pool:
        for chain in (pool.submit(killed_around_every_file, layer), pool.submit(killed_at_random_moments, full)):
            chain.result()
    assert_same_run(full, runs / "full")
    before = (layer / "patch.safetensors").stat()
    assert main(["train", "--resume", str(layer)]) == 0
    assert "complete since" in message(capsys.readouterr().err)
    assert (layer / "patch.safetensors").stat() == before
    assert_same_run(layer, runs / "layer")
    events = EventAccumulator(str(layer / "tensorboard")).Reload()
    for key in ("reward", "kl", "grad_norm"):
        shown = [(event.step, event.value) for event in events.Scalars(key)]
        assert shown == [(line["step"], pytest.approx(line[key], rel=1e-5)) for line in lines(layer / "metrics.jsonl")]


def test_a_signal_writes_a_checkpoint_and_says_how_to_go_on(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = {signal.SIGTERM: 143, signal.SIGINT: 130}
    directories = {number: tmp_path / f"stopped by {number.name}" for number in codes}
    commands = [[*LAYER, "trainer.checkpoint_every=1000", "--output", directory] for directory in directories.values()]
    processes = [start(*command) for command in commands]
    for process, (number, directory) in zip(processes, directories.items(), strict=True):
        stop_when(process, lambda directory=directory: len(lines(directory / "metrics.jsonl")) >= 1, number)
    resumed = []
    for process, (number, directory) in zip(processes, directories.items(), strict=True):
        line = message(finish(process, codes[number]).stderr)
        command = shlex.split(line.partition("continue with: ")[2])
        assert command == ["onelayer", "train", "--resume", str(directory)]
        assert (directory / "checkpoint.pt").exists() and not (directory / "patch.safetensors").exists()
        if number == signal.SIGTERM:
            a_damaged_checkpoint_is_refused(directory / "checkpoint.pt", capsys)
        resumed.append(start(*command[1:]))
    for process, directory in zip(resumed, directories.values(), strict=True):
        finish(process)
        assert_same_run(directory, runs / "layer")


def test_a_run_that_is_given_more_steps_ends_as_if_it_had_had_them_from_the_start(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for steps in (2, 5, STEPS):
        again = ["--resume", str(run)] if run.exists() else [*LAYER[1:], "--output", str(run)]
        assert main(["train", *again, f"trainer.steps={steps}", "--quiet"]) == 0
    assert_same_run(run, runs / "layer")
    assert (run / "config.yaml").read_bytes() == (runs / "layer" / "config.yaml").read_bytes()
    manifest = json.loads((run / "run.json").read_text())
    assert (manifest["extended"], manifest["config"]["trainer"]["steps"]) == ([2, 5], STEPS)
    capsys.readouterr()
    refused = {
        "trainer.steps=3": "trainer.steps is 6, and can only be raised (3 given)",
        "trainer.lr=0.5": "differs from the configuration given in trainer.lr (0.001 there, 0.5 given)",
        "trainer.steps=9": "without the optimiser's state (checkpoint.pt) it cannot be extended",
    }
    (run / "checkpoint.pt").unlink()
    for override, words in refused.items():
        assert main(["train", "--resume", str(run), override]) == 2
        assert words in message(capsys.readouterr().err)
    assert json.loads((run / "run.json").read_text()) == manifest


def test_what_a_checkpoint_goes_on_from_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics and episodes of the steps before it, and the number of threads, without which the bytes would not be the same."""
    run, lost = tmp_path / "run", tmp_path / "lost"
    process = start(*LAYER, "--output", run)
    stop_when(process, lambda: len(lines(run / "metrics.jsonl")) >= 4, signal.SIGTERM)
    finish(process, 143)
    metrics, kept = run / "metrics.jsonl", sorted((run / "episodes").iterdir())
    whole = metrics.read_bytes()
    first, _, rest = whole.partition(b"\n")
    cut = whole[: len(whole) // 2]
    missing = cut.count(b"\n")
    for damaged, words in (
        (None, "and step 0 is missing"),
        (b"", "and step 0 is missing"),
        (cut, f"and step {missing} is missing"),
        (rest, "and step 0 is missing"),
        (b"{}" + first + b"\n" + rest, "metrics.jsonl:1: not the metrics of a step"),
    ):
        metrics.unlink() if damaged is None else metrics.write_bytes(damaged)
        assert main(["train", "--resume", str(run)]) == 2
        assert words in (said := message(capsys.readouterr().err)) and str(metrics) in said
    metrics.write_bytes(whole)
    content = kept[0].read_bytes()
    for damaged in (None, b"", content[: len(content) // 2]):
        kept[0].rename(lost) if damaged is None else kept[0].write_bytes(damaged)
        assert main(["train", "--resume", str(run)]) == 2
        said = message(capsys.readouterr().err)
        assert f"{run / 'episodes'}: the checkpoint has done" in said and "step 0 is missing or cannot be read; bring it back" in said
    kept[0].write_bytes(content)
    recipe = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(recipe[: recipe.index("  lr:")])  # still a recipe, of another training
    assert main(["train", "--resume", str(run)]) == 2
    assert "config.yaml: not the recipe that the checkpoint was made under" in message(capsys.readouterr().err)
    (run / "config.yaml").write_text(recipe)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    torch.save(checkpoint | {"threads": 3}, run / "checkpoint.pt")
    shown = onelayer("train", "--resume", run).stderr
    assert "begun with 3 threads and continued with 1, so the result is not the same to the byte; OMP_NUM_THREADS=3 keeps it" in shown


def test_a_run_of_an_earlier_version_goes_on(runs: Path, tmp_path: Path) -> None:
    """Its config.yaml lacks keys that came later, which have their defaults, and its checkpoint does not tell its threads."""
    run = tmp_path / "run"
    process = start(*LAYER, "--output", run)
    stop_when(process, lambda: len(lines(run / "metrics.jsonl")) >= 2, signal.SIGTERM)
    finish(process, 143)
    config = (run / "config.yaml").read_text()
    earlier = config.replace("  mask_truncated: false\n", "").replace("  dynamic_sampling: 0\n", "")
    assert len(earlier.splitlines()) == len(config.splitlines()) - 2
    (run / "config.yaml").write_text(earlier)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    assert checkpoint.pop("threads") == 1
    torch.save(checkpoint, run / "checkpoint.pt")
    assert "threads" not in onelayer("train", "--resume", run).stderr
    assert_same_run(run, runs / "layer")


def test_a_full_disk_is_one_line_and_the_run_goes_on(runs: Path, tmp_path: Path) -> None:
    for size, file in ((2_500, "episodes/000000-000001.parquet"), (100_000, "checkpoint.pt")):
        run = tmp_path / str(size)
        found = finish(start(size, *LAYER, "--output", run, program=("-c", SMALL_DISK)), 2)
        assert message(found.stderr) == f"onelayer: {run / file}: cannot be written (File too large); choose another place or free this one"
        onelayer("train", "--resume", run)
        assert_same_run(run, runs / "layer")


def test_a_run_that_had_nothing_to_learn_from_says_so(tmp_path: Path) -> None:
    """One token is never an answer: every reply is paid alike."""
    run = tmp_path / "run"
    small = ["trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "agent.max_tokens=1"]
    for command in (["quickstart", *small, "--output", run], ["--resume", run]):
        found = onelayer("train", *command, code=1)
        assert found.stdout == f"{run / 'patch.safetensors'}\n"
        assert f"onelayer: {run}: no group of any step had an advantage" in found.stderr
    assert json.loads((run / "run.json").read_text())["no_signal"] is True


def a_damaged_checkpoint_is_refused(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    intact = path.read_bytes()
    middle = len(intact) // 2
    for damaged in (intact[:middle], intact[:middle] + bytes([intact[middle] ^ 1]) + intact[middle + 1 :]):
        path.write_bytes(damaged)
        assert main(["train", "--resume", str(path.parent)]) == 2
        assert f"{path}: damaged" in message(capsys.readouterr().err)
    path.write_bytes(intact)


def test_a_patch_and_its_exported_model_are_the_same_policy(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patch, model = runs / "layer" / "patch.safetensors", tmp_path / "model"
    evaluation = ["eval", "--suite", "arithmetic", "--items", "16", "--n", "2"]
    onelayer("export", "--run", runs / "layer", "--output", model)
    policies = {"patched": ["--patch", str(patch)], "exported": ["--model", str(model)]}
    for process in [start(*evaluation, *policy, "--output", tmp_path / name) for name, policy in policies.items()]:
        finish(process)
    assert main([*evaluation, "--output", str(tmp_path / "base")]) == 0
    for decoding in ("sampled", "greedy"):
        patched, exported, before = (replies(tmp_path / which, decoding) for which in ("patched", "exported", "base"))
        assert patched == exported != before
    manifest = read_evaluation(tmp_path / "patched").manifest
    (origin,) = manifest.trained
    assert origin and (origin.algorithm, origin.trained_set, origin.seed, origin.lr) == ("grpo", "layer:3", 0, 1e-3)
    capsys.readouterr()
    assert main([*evaluation, *policies["patched"], *policies["exported"], "--output", str(tmp_path / "refused")]) == 2
    assert "patch layer:3 belongs to base" in message(capsys.readouterr().err)
    assert not (tmp_path / "refused").exists()
