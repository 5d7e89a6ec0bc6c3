"""How long a page of `onelayer view` takes where a run has 100,000 samples: at the server, and in Chromium from a click to the picture.

    python bench/viewer.py [--samples 100000] [--conversations 4000] [--clicks 12]

Two evaluations are made in a temporary directory: one of --samples single-turn episodes (prompts of 150 words, responses of 250), and
one of --conversations episodes of 20 turns whose prompts hold all that was said before. `cpu` is processor time of the whole process,
which other work on the machine does not lengthen. Without Playwright or Chromium the second half is left out.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from onelayer.evals.records import MANIFEST
from onelayer.evals.samples import ROWS_PER_GROUP, SAMPLES, samples_schema
from onelayer.pages.viewer import episode_table
from onelayer.pages.viewer.episode_page import PAGE, url
from onelayer.pages.viewer.server import Server
from onelayer.studies.store import DirectoryKind

EACH = 200  # samples of an item
RNG = random.Random(0)
WORDS = ["".join(RNG.choices("abcdefghijklmnopqrstuvwxyz", k=RNG.randint(2, 9))) for _ in range(5000)]


def words(count: int) -> str:
    return " ".join(RNG.choices(WORDS, k=count))


def episode(turns: int) -> list[dict[str, object]]:
    """Steps; each prompt holds the conversation so far."""
    steps, said = [], words(150 if turns == 1 else 40)
    for turn in range(turns):
        response = words(250 if turns == 1 else 30)
        tokens = [RNG.randrange(150_000) for _ in range(350 if turns == 1 else 40)]
        steps.append(
            {
                "observation": said[-200:],
                "prompt": said,
                "response": response,
                "action": response[-30:],
                "reward": float(turn == turns - 1),
                "truncated": False,
                "valid": True,
                "token_ids": tokens,
                "advantage": None,
            }
        )
        said += "\n" + response + "\n" + words(30)
    return steps


def make(directory: Path, samples: int, turns: int) -> None:
    """samples.parquet in the store's format: row groups of as many rows, each with texts of its own order."""
    directory.mkdir(parents=True)
    schema = samples_schema()
    kinds = schema.field("steps").type
    pool = pa.array([episode(turns) for _ in range(min(ROWS_PER_GROUP, samples, 4096 if turns == 1 else 512))], kinds)
    shuffle = np.random.default_rng(0)
    with pq.ParquetWriter(directory / SAMPLES, schema, compression="zstd") as writer:
        for first in range(0, samples, ROWS_PER_GROUP):
            rows = np.arange(first, min(first + ROWS_PER_GROUP, samples))
            verdicts = shuffle.choice(["correct", "wrong"], len(rows)).tolist()
            columns = {
                "key": [f"{row:032x}" for row in rows],
                "decoding": ["sampled"] * len(rows),
                "item": [f"math500-{row // EACH}" for row in rows],
                "type": [None] * len(rows),
                "sample": rows % EACH,
                "seed": rows,
                "env_seed": rows // EACH,
                "verdict": verdicts,
                "reward": [float(verdict == "correct") for verdict in verdicts],
                "answer": ["42"] * len(rows),
                "tokens": [350] * len(rows),
                "truncated": [False] * len(rows),
                "error": [None] * len(rows),
                "ending": ["done"] * len(rows),
                "steps": pool.take(pa.array(shuffle.integers(0, len(pool), len(rows)))),
            }
            arrays = [pa.array(columns[field.name], field.type) if field.name != "steps" else columns["steps"] for field in schema]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=ROWS_PER_GROUP)
    (directory / MANIFEST).write_text("{}")  # the episodes are what is measured; the page of runs calls it broken


def pages(run: str, samples: int, clicks: int) -> Iterator[tuple[str, list[str]]]:
    """What is asked for, and addresses: of pages at the beginning, the middle, the end, within a filter, and single episodes."""
    last = -(-samples // PAGE)
    half = clicks // 2
    yield "first", [url("episodes", run=run, page=page) for page in range(1, clicks + 1)]
    yield "middle", [url("episodes", run=run, page=last // 2 + page - half) for page in range(clicks)]
    yield "last", [url("episodes", run=run, page=last - page) for page in range(clicks)]
    matching = -(-samples // 2 // PAGE) - 2  # about half are wrong
    yield "filtered by verdict", [url("episodes", run=run, verdict="wrong", page=1 + page * matching // clicks) for page in range(clicks)]
    items = samples // EACH
    yield "filtered by item", [url("episodes", run=run, item=f"math500-{at * items // clicks}") for at in range(clicks)]
    rows = [RNG.randrange(samples) for _ in range(clicks)]
    yield "an episode", [url("episodes", run=run, open=f"sampled/{row % EACH}/math500-{row // EACH}") for row in rows]
    yield (
        "its neighbour",
        [url("episodes", run=run, open=f"sampled/{(row + 1) % EACH}/math500-{(row + 1) // EACH}") for row in rows if row + 1 < samples],
    )


def told(what: str, seconds: list[float], cpu: list[float] | None = None) -> None:
    figures = f"{1000 * statistics.median(seconds):8.1f} {1000 * max(seconds):8.1f}"
    print(f"  {what:22} {figures}" + (f" {1000 * statistics.median(cpu):8.1f} {1000 * max(cpu):8.1f}" if cpu else ""), flush=True)


def at_the_server(port: int, run: str, samples: int, clicks: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(address: str) -> tuple[float, float]:
        began, spent = time.perf_counter(), time.process_time()
        connection.request("GET", address)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200 and b'class="step"' in body, address
        return time.perf_counter() - began, time.process_time() - spent

    print(f"{run}: {samples:,} samples\n  server, ms               median    worst   median    worst cpu")
    first, cpu = ask(url("episodes", run=run))
    told("the very first", [first], [cpu])
    for what, addresses in pages(run, samples, clicks):
        found = [ask(address) for address in addresses]
        told(what, [one for one, _ in found], [one for _, one in found])


def in_chromium(address: str, run: str, samples: int, clicks: int) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return print("  Chromium is left out: Playwright is not installed")
    if (chromium := which("chromium")) is None:
        return print("  Chromium is left out: it is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address + url("episodes", run=run)[1:])
        print("  Chromium, ms             median    worst")
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        told("the page is loaded", [loaded / 1000])
        shown = (  # from the click to two frames later, when what has changed is on the screen
            "async address => { const began = performance.now(); await go(address, "
            ");"
            " await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); return performance.now() - began; }"
        )
        for what, addresses in pages(run, samples, clicks):
            told(what, [page.evaluate(shown, one) / 1000 for one in addresses])
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--conversations", type=int, default=4000)
    parser.add_argument("--clicks", type=int, default=12)
    options = parser.parse_args()
    sizes = {"single-turn": (options.samples, 1), "conversations": (options.conversations, 20)}
    with tempfile.TemporaryDirectory() as folder:
        for name, (samples, turns) in sizes.items():
            make(Path(folder) / name, samples, turns)
            size = (Path(folder) / name / SAMPLES).stat().st_size / 2**20
            there = episode_table.open_episodes(Path(folder) / name, DirectoryKind.EVALUATION, None)
            print(f"{name}: {len(there.listing):,} samples, {size:.0f} MiB")
        episode_table._listing.cache_clear()
        episode_table._read_listed.cache_clear()
        with Server("127.0.0.1", 0, Path(folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for name, (samples, _) in sizes.items():
                at_the_server(server.server_port, name, samples, options.clicks)
                in_chromium(server.url, name, samples, options.clicks)
            server.shutdown()


if __name__ == "__main__":
    main()
