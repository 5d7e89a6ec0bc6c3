"""How long the leaderboard of many runs takes to build, in how much memory, and how long its page takes to open.

    OMP_NUM_THREADS=1 python bench/leaderboard.py --runs 1000 --samples 2000000
    OMP_NUM_THREADS=1 python bench/leaderboard.py --runs 1000 --samples 2000000 --suites 1 --seeds 1   # one table of 1,000 entries

Makes runs in the store's own format, with episodes and manifests, runs `onelayer leaderboard` as a process, and prints its seconds and peak
resident memory; then the median time from opening index.html in Chromium until its rows are painted. `--keep DIR` leaves the runs and
the site there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onelayer.common.cost import Cost, Hardware
from onelayer.evals.records import MANIFEST, Evaluation, Scores, Trained
from onelayer.evals.samples import ROWS_PER_GROUP, SAMPLES, samples_schema
from onelayer.evals.statistics import pass_rate
from onelayer.trainers.config import Config

EACH = 4
SETS = ["full", *(f"layer:{number}" for number in range(36))]
ALGORITHMS = ["grpo", "dr_grpo", "gigpo"]
OPENINGS = 5
CHROMIUM = "/usr/bin/chromium"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=2_000_000, help="of all runs together")
    parser.add_argument("--suites", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.keep or Path(folder)
        started = time.perf_counter()
        items = max(2, options.samples // options.runs // (EACH + 1))
        make(root / "runs", options.runs, options.suites, options.seeds, items)
        size = sum(path.stat().st_size for path in (root / "runs").rglob("*") if path.is_file())
        print(f"made {options.runs} runs, {options.runs * items * (EACH + 1):,} samples, {size / 2**20:.0f} MiB ", end="")
        print(f"in {time.perf_counter() - started:.0f} s")
        seconds, peak = build(root / "runs", root / "site")
        page = (root / "site/index.html").stat().st_size
        print(f"leaderboard: {seconds:.1f} s, peak {peak / 2**30:.2f} GiB, page of {page / 2**20:.1f} MiB")
        print(f"opened in Chromium: {open_page(root / 'site/index.html'):.2f} s (median of {OPENINGS})")


def build(runs: Path, site: Path) -> tuple[float, int]:
    """Seconds and most resident bytes of the command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "onelayer", "leaderboard", str(runs), "--output", str(site)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the command failed: {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def open_page(page: Path) -> float:
    """Median seconds from asking for the page until its rows are painted."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(OPENINGS):
            tab = browser.new_page(viewport={"width": 1366, "height": 850})
            started = time.perf_counter()
            tab.goto(page.as_uri())
            tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            found.append(time.perf_counter() - started)
            tab.close()
        browser.close()
    return statistics.median(found)


def make(root: Path, runs: int, suites: int, seeds: int, items: int) -> None:
    """For each suite a base, and runs of every algorithm and trained set, as many as there is room for."""
    rng = np.random.default_rng(0)
    table = template(items)
    for suite in range(suites):
        easy_I = rng.normal(size=items)
        for number in range(runs // suites + (suite < runs % suites)):
            kind, seed = divmod(number - 1, seeds)
            algorithm, trained_set = ALGORITHMS[kind // len(SETS) % len(ALGORITHMS)], SETS[kind % len(SETS)]
            gain = 0.0 if number == 0 else 1.2 if trained_set == "full" else 1.2 - 0.05 * abs(kind % len(SETS) - 18)
            p_I = 1 / (1 + np.exp(-(easy_I - 0.8 + gain + rng.normal(scale=0.1))))
            correct_IS = rng.random((items, EACH + 1)) < p_I[:, None]
            directory = root / f"suite-{suite}" / f"run-{number}"
            trained = None if number == 0 else write_run(directory, algorithm, trained_set, seed, 1e-5 * (1 + kind // 111))
            write_evaluation(directory / "test", table, correct_IS, trained, f"suite-{suite}/test")


def template(items: int) -> pa.Table:
    """Records without verdicts: sampled, then greedy."""
    prompt = "<|im_start|>user\nWhat is {}? Think step by step, and put the answer in a box.<|im_end|>\n<|im_start|>assistant\n"
    rows = []
    for decoding, count in (("sampled", EACH), ("greedy", 1)):
        for item in range(items):
            for sample in range(count):
                text = f"It is {item} times {sample}, and so on, which is \\boxed{{{item * sample}}}"
                step = {"observation": f"What is {item}?", "prompt": prompt.format(item), "response": text, "action": text, "reward": 0.0}
                step |= {"truncated": False, "valid": True, "token_ids": [(item + at) % 1000 for at in range(30)], "advantage": None}
                row = {
                    "key": hashlib.md5(f"{decoding}{item}{sample}".encode()).hexdigest(),
                    "decoding": decoding,
                    "item": f"suite/{item:012x}",
                }
                row |= {"type": None, "sample": sample, "seed": item * 1000 + sample, "env_seed": item, "verdict": "", "reward": 0.0}
                row |= {"answer": str(item), "tokens": 30, "truncated": False, "error": None, "ending": "", "steps": [step]}
                rows.append(row)
    return pa.Table.from_pylist(rows, schema=samples_schema())


def write_evaluation(directory: Path, table: pa.Table, correct_IS: np.ndarray, trained: Trained | None, split: str) -> None:
    right = np.concatenate([correct_IS[:, :EACH].ravel(), correct_IS[:, EACH]])
    schema = samples_schema()
    verdicts = pa.array(np.where(right, "correct", "wrong").tolist(), pa.string())
    table = table.set_column(schema.get_field_index("verdict"), "verdict", verdicts)
    table = table.set_column(schema.get_field_index("reward"), "reward", pa.array(right.astype(float)))
    directory.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, directory / SAMPLES, compression="zstd", row_group_size=ROWS_PER_GROUP)
    scores = [
        Scores(
            samples=part.shape[1],
            pass_rate=pass_rate(part.mean(axis=1)),
            pass_at_k={1: float(part.mean())},
            majority=None,
            mean_reward=float(part.mean()),
            mean_tokens=30.0,
            truncated=0.0,
            errors=0,
            by_type={},
            verdicts={"correct": int(part.sum()), "wrong": int((~part).sum())},
        )
        for part in (correct_IS[:, :EACH], correct_IS[:, EACH:])
    ]
    manifest = Evaluation(
        policy=trained.trained_set if trained else "base",
        model="Qwen/Qwen3-4B-Base",
        base="b" * 64,
        patches=[hashlib.sha256(str(directory).encode()).hexdigest()] if trained else [],
        trained=[trained] if trained else [],
        domain="math",
        split=split,
        digest=hashlib.sha256(split.encode()).hexdigest(),
        items=len(correct_IS),
        temperature=1.0,
        max_tokens=2048,
        prompt="{observation}",
        seed=0,
        protocol=hashlib.sha256(str(directory).encode()).hexdigest(),
        config=Config().model_dump(mode="json", include={"model", "env", "agent", "pool", "eval"}),
        cost=Cost(seconds=60.0, tokens=30 * len(right)),
        hardware=Hardware(cpu="any", cores=1, threads=1, gpu=None),
        versions={},
        git_commit=None,
        finished="2026-01-01T00:00:00+00:00",
        sampled=scores[0],
        greedy=scores[1],
    )
    (directory / MANIFEST).write_text(manifest.model_dump_json(indent=2))


def write_run(directory: Path, algorithm: str, trained_set: str, seed: int, lr: float) -> Trained:
    trainer = {"algorithm": algorithm, "trained_set": trained_set, "seed": seed, "lr": lr}
    config = Config.model_validate({"name": "bench", "model": {"path": "Qwen/Qwen3-4B-Base"}, "trainer": trainer})
    cost = Cost(seconds=3600.0 + seed, cpu_seconds=9e3, gpu_seconds=3600.0, peak_memory=9 << 30, peak_gpu_memory=40 << 30, flops=3e17)
    directory.mkdir(parents=True)
    weights = str(directory / "test").encode()
    (directory / "patch.safetensors").write_bytes(weights)
    patch = hashlib.sha256(weights).hexdigest()
    manifest = {"schema_version": 2, "config": config.model_dump(mode="json"), "base": "b" * 64, "trained_set": trained_set}
    (directory / "run.json").write_text(json.dumps(manifest | {"patch_sha256": patch, "cost": cost.model_dump()}))
    size = 4_000_000_000 if trained_set == "full" else 100_000_000
    return Trained(
        algorithm=algorithm,
        trained_set=trained_set,
        seed=seed,
        lr=lr,
        parameters=size,
        total_parameters=4_000_000_000,
        recipe="bench",
        split="numina/train",
        split_digest="e" * 64,
        cost=cost,
    )


if __name__ == "__main__":
    main()
