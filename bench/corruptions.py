"""Damaged files and killed commands: what each command says of them, and whether what is continued ends in the same bytes.

    OMP_NUM_THREADS=1 python bench/corruptions.py [--only WORDS]

Every file of `FILES` is damaged in every way of `DAMAGES`, and each command of its row is given the directory anew. It is a fault where a
command ends in a traceback, in another code than 0 or 2 (or 1, with which `env check` tells of a broken contract), with 2 and not one line,
above 1 GiB or 30 s of processor, or where it ends well and what it has continued differs from what an undamaged run ends in. Then training,
an evaluation and a study are killed (SIGKILL) at every moment of `KILLS` and continued.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from forked import Commands, Outcome

from onelayer.agents import tiny
from onelayer.evals.samples import read_table

MEMORY, SECONDS = 1 << 30, 30.0
STEPS = 4
TRAIN = "train quickstart trainer.prompts_per_step=4 trainer.group_size=4 trainer.lr=1e-3 trainer.trained_set=layer:3 --output begun"
TRAIN += f" trainer.steps={STEPS} trainer.checkpoint_every=2"
EVAL = "eval --suite arithmetic --items 12 --n 2 agent.max_batch=4 --output"
PATCHED = "--patch run/patch.safetensors"
STUDY = "study quickstart trainer.steps=1 trainer.prompts_per_step=2 trainer.group_size=2 eval.items=8 eval.n=1 study.validation_items=8"
STUDY += " study.lr_grid=[1e-3] --output study"
TIMES = ("rollout_seconds", "update_seconds", "sync_seconds", "tokens_per_second")

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "a bit flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "zeros in the middle": lambda data: data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * len(data) // 3 :],
    "brackets": lambda data: b"[" * 100_000,
    "an object of a number": lambda data: b'{"schema_version": ' + b"1" * 5000 + b"}",
}
FILES = {  # file: commands that read it
    "begun/config.yaml": ["train --resume begun", "compare begun run", "runs list .", "runs show begun"],
    "begun/metrics.jsonl": ["train --resume begun", "compare begun run", "runs show begun"],
    "begun/checkpoint.pt": ["train --resume begun", "runs list ."],
    "begun/episodes/000000-000001.parquet": ["train --resume begun", "runs show begun"],
    "run/config.yaml": ["train --resume run", "compare run", "export --run run --output new", "leaderboard ."],
    "run/run.json": [
        *("train --resume run", "compare run", "export --run run --output new", "runs list .", "runs show run", "leaderboard ."),
        f"{EVAL} new {PATCHED}",
    ],
    "run/metrics.jsonl": ["compare run", "runs show run", "leaderboard ."],
    "run/patch.safetensors": [f"{EVAL} new {PATCHED}", "export --run run --output new", "submit tuned run --output new.tar"],
    "tuned/evaluation.json": [
        "compare base tuned",
        "runs list .",
        "runs show tuned",
        "leaderboard .",
        "verify tuned",
        f"{EVAL} tuned {PATCHED}",
    ],
    "tuned/samples.parquet": ["compare base tuned", "runs show tuned", "leaderboard .", "verify tuned", f"{EVAL} tuned {PATCHED}"],
    "unfinished/journal.jsonl": [f"{EVAL} unfinished", "runs list .", "runs show unfinished", "compare unfinished base"],
    "study/study.yaml": [STUDY, "compare study", "runs list ."],
    "study/report.json": [STUDY, "compare study", "runs show study"],
    "data/own.jsonl": ["eval --suite data/own.jsonl --items 4 --n 1 --output new", "env check onelayer/Math-v0 env.suite=data/own.jsonl"],
    "data/responses.jsonl": ["eval --suite arithmetic --items 12 --responses data/responses.jsonl --output new"],
    "model/config.json": [f"{EVAL} new --model model", "train quickstart model.path=model --dry-run"],
    "model/model.safetensors": [f"{EVAL} new --model model", "export --run run --output new model.path=model"],
    "submission.tar": ["verify submission.tar", "verify submission.tar --unpack new"],
}
KILLS = {  # command that is killed: when a file matches the pattern and has that share of its final size; what is given to go on
    TRAIN: (
        [("config.yaml", 0.0), *(("metrics.jsonl", share) for share in (0.2, 0.45, 0.7, 0.95))]
        + [
            (name, 0.0)
            for name in (".checkpoint.pt.*", "checkpoint.pt", "episodes/.*", "episodes/*.parquet", ".patch*", "patch*", ".run.json*")
        ],
        "train --resume begun",
    ),
    f"{EVAL} unfinished": (
        [*(("journal.jsonl", share) for share in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99))]
        + [(name, 0.0) for name in (".samples.parquet.*", "samples.parquet", ".evaluation.json.*")],
        f"{EVAL} unfinished",
    ),
    STUDY: ([(f"**/{name}", 0.0) for name in ("checkpoint.pt", "patch.safetensors", "journal.jsonl", "evaluation.json")], STUDY),
}
WHOLE = {"begun": "run", "unfinished": "base"}
"""The undamaged directory that one which was continued must equal, where it has another name."""


def content(directory: Path) -> dict[str, object]:
    """All that must be the same in a directory which was continued: patches and samples to the byte, metrics without times, episodes."""
    found: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.name in ("patch.safetensors", "samples.parquet"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "metrics.jsonl":
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            found[name] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
        elif path.parent.name == "episodes":  # whose files go from checkpoint to checkpoint
            name = path.parent.relative_to(directory).as_posix()
            found[name] = [*found.get(name, []), *read_table(path).to_pylist()]  # pyright: ignore[reportGeneralTypeIssues]
    return found


def honest(folder: Path, command: Commands) -> None:
    """What is damaged: a run, one that was begun, evaluations, a study, data, a model and a submission."""

    def done(words: str, **options: Any) -> None:
        if (found := command(*words.split(), where=folder, **options)).code not in (0, -9):
            raise SystemExit(f"{words}: {found.err}")

    done(TRAIN)
    (folder / "begun").rename(folder / "run")
    done(f"{EVAL} base")
    done(f"{EVAL} tuned {PATCHED}")
    for words, name, file in ((TRAIN, "begun", "metrics.jsonl"), (f"{EVAL} unfinished", "unfinished", "journal.jsonl")):
        done(words, kill=(f"{folder}/{name}/{file}", size_of(folder, name, file, 0.6)))
    done(STUDY)
    items = read_table(folder / "base" / "samples.parquet", ["item"])["item"].unique().to_pylist()
    rows = {"own": [{"question": f"{n} + {n}", "answer": str(2 * n)} for n in range(40)]}
    rows["responses"] = [{"item": item, "response": "The answer is 4."} for item in items]
    (folder / "data").mkdir()
    for name, some in rows.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    shutil.copytree(tiny.PATHS["tiny"], folder / "model")
    done("submit base tuned run --output submission.tar")


def size_of(folder: Path, name: str, pattern: str, share: float) -> int:
    """Bytes of a share of a file's final size; 0 where there is none in the end."""
    if pattern == "journal.jsonl":  # it is removed in the end: about as much as its samples have in JSON
        rows = read_table(folder / WHOLE[name] / "samples.parquet").to_pylist()
        return int(share * sum(len(json.dumps(row)) + 60 for row in rows))
    path = folder / WHOLE.get(name, name) / pattern
    return int(share * path.stat().st_size) if path.exists() else 0


def continued(words: str) -> str | None:
    """The directory that a command goes on with, where it does."""
    if words == STUDY:
        return "study"
    return next(
        (name for name in ("begun", "run", "unfinished", "tuned") if words.startswith((f"train --resume {name}", f"{EVAL} {name}"))), None
    )


def same(words: str, whole: Path, place: Path) -> str:
    """Whether what was continued is what an undamaged directory holds: yes, no, or nothing where nothing was continued."""
    name = continued(words)
    return "" if name is None else "yes" if content(place / name) == content(whole / WHOLE.get(name, name)) else "no"


def damaged(whole: Path, folder: Path, command: Commands, only: str) -> Iterator[tuple[str, Outcome, str]]:
    for file, words_of in FILES.items():
        for damage, change in DAMAGES.items():
            for words in words_of:
                if only not in (name := f"{file} {damage}: {words}"):
                    continue
                place = folder / "damaged"
                shutil.copytree(whole, place)
                data = change((place / file).read_bytes())
                (place / file).unlink() if data is None else (place / file).write_bytes(data)
                found = command(*words.split(), where=place)
                yield name, found, same(words, whole, place) if found.code == 0 else ""
                shutil.rmtree(place)


def killed(whole: Path, folder: Path, command: Commands, only: str) -> Iterator[tuple[str, Outcome, str]]:
    for first, (moments, again) in KILLS.items():
        name = continued(again)
        assert name
        for pattern, share in moments:
            if only not in (title := f"{name} killed at {pattern} {share:g}: {again}"):
                continue
            place = folder / "killed"
            place.mkdir()
            shutil.copytree(whole / "run", place / "run")
            stopped = command(*first.split(), where=place, kill=(f"{place}/{name}/{pattern}", size_of(whole, name, pattern, share)))
            begun = (place / name / ("study.yaml" if first == STUDY else "config.yaml")).exists() or first != TRAIN
            found = command(*(again if begun else first).split(), where=place)
            yield f"{title} ({'killed' if stopped.code == -9 else 'ended before'})", found, same(again, whole, place)
            shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with these words in their names")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    began, counts, faults = time.monotonic(), {"0": 0, "2": 0, "same": 0, "continued": 0, "cases": 0}, []
    worst_memory, worst_seconds, processor = (0, ""), (0.0, ""), 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("whole", "said"):
            (folder / name).mkdir()
        command = Commands(folder / "said")
        honest(folder / "whole", command)
        print(f"made in {time.monotonic() - began:.0f} s", flush=True)
        for make in (damaged, killed):
            for name, found, identical in make(folder / "whole", folder, command, options.only):
                refusals = [line for line in found.err.splitlines() if line.startswith("onelayer: ")]
                bad = (
                    found.traceback
                    or found.code not in ((0, 1, 2) if ": env check" in name else (0, 2))
                    or (found.code == 2 and len(refusals) != 1)
                    or identical == "no"
                )
                bad = bad or found.memory > MEMORY or found.processor_seconds > SECONDS or (make is killed and found.code != 0)
                faults += [name] * bad
                counts["cases"] += 1
                processor += found.processor_seconds
                counts["continued"] += identical != ""
                counts["same"] += identical == "yes"
                counts[str(found.code)] = counts.get(str(found.code), 0) + 1
                worst_memory = max(worst_memory, (found.memory, name))
                worst_seconds = max(worst_seconds, (found.processor_seconds, name))
                told = f"rc {found.code}, {found.lines} lines, traceback {'yes' if found.traceback else 'no'}"
                told += f", same bytes {identical}" if identical else ""
                said = " ".join(found.err.split())[-150:]
                print(
                    f"{'FAULT ' if bad else ''}{name}: {told}, {found.processor_seconds:.1f} s, {found.memory >> 20} MiB: {said}",
                    flush=True,
                )
        command.close()
    print(f"{len(FILES) * len(DAMAGES)} corruptions and {sum(len(moments) for moments, _ in KILLS.values())} kills, {counts}")
    print(f"worst: {worst_memory[0] >> 20} MiB ({worst_memory[1]}); {worst_seconds[0]:.1f} s of processor ({worst_seconds[1]})")
    print(f"{time.monotonic() - began:.0f} s in all, {processor:.0f} s of processor for the commands")
    print(f"{len(faults)} faults: {'; '.join(faults) or 'none'}")


if __name__ == "__main__":
    main()
