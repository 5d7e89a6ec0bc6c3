"""A study one run after another, in two processes and on three Ray nodes of this machine; and with what it runs on killed.

    OMP_NUM_THREADS=1 python bench/parallel.py [--steps 20] [--kills 10] [--seed 0] [--without-timing]

Prints seconds, and the ratio to one after another. With --kills, so many processes are killed (SIGKILL) at random moments of studies on
three nodes: the driver (the command itself), a worker at a task, or a node with all of its workers. A node comes back, and the command is
given again where it was killed. Each study's patches and figures must be those of the study that nothing disturbed; the script
ends with 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NODES = 3
SETS = "layer:1,layer:2,layer:3"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each training run")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of who is killed, and when")
    parser.add_argument("--without-timing", action="store_true", help="only the kills")
    args = parser.parse_args()
    words = ["quickstart", f"trainer.steps={args.steps}", "trainer.checkpoint_every=1", f"study.trained_sets=[{SETS}]", "study.seeds=[0,1]"]
    words += ["study.lr_grid=[1e-3]", "eval.items=128"]
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder, "one")
        alone = timed(words, one)
        if not args.without_timing:
            print(f"one after another  {alone:7.1f} s", flush=True)
            compared("--parallel 2", timed([*words, "--parallel", "2", "--threads", "1"], Path(folder, "two")), alone)
        cluster = Cluster()
        try:
            if not args.without_timing:
                compared(f"{NODES} nodes", timed([*words, *cluster.words], Path(folder, "nodes")), alone)
            wrong = 0
            if args.kills:
                wrong = killed(args, words, cluster, one, Path(folder), alone)
        finally:
            cluster.close()
    raise SystemExit(1 if wrong else 0)


def command(words: list[str], directory: Path) -> list[str]:
    return [sys.executable, "-m", "onelayer", "study", *words, "--output", str(directory), "--quiet"]


def timed(words: list[str], directory: Path) -> float:
    """Seconds of a study."""
    started = time.perf_counter()
    done = subprocess.run(command(words, directory), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def compared(name: str, seconds: float, alone: float) -> None:
    print(f"{name:<18} {seconds:7.1f} s  {seconds / alone:.2f}", flush=True)


class Cluster:
    """Ray nodes on loopback, with one processor each; the first is the head, which is never killed."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        from ray.cluster_utils import Cluster as RayCluster

        self._cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.nodes: list[Any] = [self._cluster.add_node(num_cpus=1) for _ in range(NODES - 1)]

    @property
    def words(self) -> list[str]:
        return ["--ray", str(self._cluster.address), "--threads", "1"]

    def kill_node(self, rng: random.Random) -> None:
        node = self.nodes.pop(rng.randrange(len(self.nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self._cluster.add_node(num_cpus=1))

    def close(self) -> None:
        self._cluster.shutdown()


def workers() -> list[int]:
    """Processes of Ray that are at a task."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::_perform"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def killed(args: argparse.Namespace, words: list[str], cluster: Cluster, one: Path, folder: Path, alone: float) -> int:
    """Kill until `--kills` are done, a few in each study; returns how many studies came to other results."""
    rng, kills, number, wrong = random.Random(args.seed), 0, 0, 0
    while kills < args.kills:
        directory = folder / f"killed-{number}"
        number += 1
        while True:
            given = command([*words, *cluster.words], directory)
            process = subprocess.Popen(given, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and kills < args.kills:
                try:
                    process.wait(timeout=rng.uniform(0.05, 0.5) * alone)
                    break
                except subprocess.TimeoutExpired:
                    who = rng.choice(["driver", "worker", "node"])
                    at_work = workers()
                    if who == "worker" and not at_work:
                        continue
                    kills += 1
                    print(f"kill {kills}: {who}, {len(list(directory.rglob('patch.safetensors')))} runs done", flush=True)
                    if who == "driver":
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                    elif who == "worker":
                        os.kill(rng.choice(at_work), signal.SIGKILL)
                    else:
                        cluster.kill_node(rng)
            _, told = process.communicate()
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"{directory}: exit code {process.returncode}: {told}")
        same = patches(directory) == patches(one) and figures(directory) == figures(one)
        wrong += not same
        print(f"study {number}: {'the same patches and figures' if same else 'OTHER RESULTS'}", flush=True)
    return wrong


def patches(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("patch.safetensors")}


def figures(directory: Path) -> Any:
    """What a report says, without what a clock and a gauge of memory say."""

    def timeless(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: timeless(value) for name, value in found.items() if not (name.endswith("seconds") or "memory" in name)}
        return [timeless(value) for value in found] if isinstance(found, list) else found

    return timeless(json.loads((directory / "report.json").read_text()))


if __name__ == "__main__":
    main()
