"""ALFWorld's fast engine against alfworld and textworld as they are, in one run: the same walks through the same games.

    python bench/alfworld.py [--games 12] [--steps 20]     # figures, ratios, and whether the two said the same
    python bench/alfworld.py --record                      # writes tests/envs/alfworld/stock.json: textworld's own 30 games x 30 steps

Times are CPU seconds of one process, so that another load on the machine does not count. The last two parts are the fast
engine alone: 64 environments in 2 processes, episodes of 50 random commands, games drawn at random (wall time); and the
memory of one process that plays 2,000 different games.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]  # alfworld is not this file

from onelayer.envs.alfworld.env import ALFWorldEnv  # noqa: E402
from onelayer.envs.alfworld.game import Game, GameSession  # noqa: E402
from onelayer.envs.alfworld.stock import StockPlay  # noqa: E402

TESTS = Path(__file__).parents[1] / "tests" / "envs" / "alfworld"
SHARED = runpy.run_path(str(TESTS / "transcript.py"))
transcript, digest, drawn = SHARED["transcript"], SHARED["digest"], SHARED["drawn"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    if args.record:
        record()
        return
    compare(drawn(args.games), args.steps)
    together()
    memory()


def record(games: int = 30, steps: int = 30) -> None:
    told = []
    for number, data in enumerate(drawn(games)):
        told.append(digest(transcript(StockPlay(data), number, steps)))
        print(number, told[-1], flush=True)
    (TESTS / "stock.json").write_text(json.dumps({"games": games, "steps": steps, "sha256": told}, indent=1) + "\n")


def compare(games: list[dict[str, Any]], steps: int) -> None:
    seconds: dict[str, dict[str, list[float]]] = {engine: {"load": [], "reset": [], "step": []} for engine in ("stock", "fast")}
    for engine in (StockPlay, Game):  # imports, and the grammar, which the fast engine reads once in a process
        engine(games[0])
    same = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(games):
            path = Path(folder, f"{number}.json")
            path.write_text(json.dumps(data))
            said = []
            for engine in ("stock", "fast"):
                times = seconds[engine]
                started = time.process_time()
                content = json.loads(path.read_text())
                game = Game(content) if engine == "fast" else content
                play: GameSession | StockPlay = GameSession(game) if isinstance(game, Game) else StockPlay(content)
                times["load"].append(time.process_time() - started)
                started = time.process_time()
                if isinstance(play, StockPlay):
                    play._environment.reset()
                else:
                    play = GameSession(play.game)
                times["reset"].append(time.process_time() - started)
                said.append(digest(walk(play, number, steps, times["step"])))
            same += said[0] == said[1]
    print(f"{len(games)} games x {steps} steps, CPU seconds of one process; the same SHA-256 of all that was said: {same}/{len(games)}")
    print(f"{'':<34}{'stock':>12}{'fast':>12}{'ratio':>9}")
    for name, what in (("load", "first load, with reset"), ("reset", "reset of a loaded game")):
        slow, quick = (statistics.mean(seconds[engine][name]) for engine in ("stock", "fast"))
        print(f"{what + ' (ms)':<34}{1e3 * slow:>12.2f}{1e3 * quick:>12.2f}{slow / quick:>8.0f}x")
    slow, quick = (len(games) * steps / sum(seconds[engine]["step"]) for engine in ("stock", "fast"))
    print(f"{'steps/s on one core':<34}{slow:>12.1f}{quick:>12.0f}{quick / slow:>8.0f}x")


def walk(play: GameSession | StockPlay, seed: int, steps: int, times: list[float]) -> list[Any]:
    """`transcript`, with the steps timed and nothing else."""
    step = play.step

    def timed(command: str) -> None:
        started = time.process_time()
        step(command)
        times.append(time.process_time() - started)

    play.step = timed
    told = transcript(play, seed, steps)
    times.pop()  # the walk goes one step further than it tells
    return told


def together(environments: int = 64, processes: int = 2, episodes: int = 2) -> None:
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        counts = pool.starmap(play_some, [(environments // processes, episodes, number) for number in range(processes)])
    steps, slowest = sum(count for count, _, _ in counts), max(seconds for _, seconds, _ in counts)
    busy = statistics.mean(cpu for _, _, cpu in counts)
    print(
        f"{environments} environments in {processes} processes, resets and loads included: {steps / slowest:,.0f} steps/s together", end=""
    )
    print(f" by the clock, {steps / busy:,.0f} if each process had a core to itself")


def play_some(environments: int, episodes: int, seed: int) -> tuple[int, float, float]:
    envs = [ALFWorldEnv() for _ in range(environments)]
    rng = random.Random(seed)
    envs[0].reset()  # reads the grammar
    steps, started, busy = 0, time.perf_counter(), time.process_time()
    for _ in range(episodes):
        infos = [env.reset(seed=rng.randrange(10**6))[1] for env in envs]
        for _ in range(50):
            for at, env in enumerate(envs):
                if "verdict" not in infos[at]:
                    infos[at] = env.step(rng.choice(infos[at]["admissible"]))[4]
                    steps += 1
    return steps, time.perf_counter() - started, time.process_time() - busy


def memory(games: int = 2000) -> None:
    env = ALFWorldEnv(size=games)
    rng = random.Random(0)
    for number, item in enumerate(env.items):
        info = env.reset(options={"item": item})[1]
        for _ in range(10):
            if "verdict" not in info:
                info = env.step(rng.choice(info["admissible"]))[4]
        if number in (0, 9, 99) or (number + 1) % 250 == 0:
            print(f"memory after {number + 1:>5} games: {resident():.0f} MiB")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
