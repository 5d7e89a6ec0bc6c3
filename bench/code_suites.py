"""Every canonical solution of both EvalPlus suites through the code grader, several times: all must pass, every time.

    ONELAYER_DATA=... python bench/code_suites.py --runs 5          # five full runs
    ONELAYER_DATA=... python bench/code_suites.py --runs 1 --load   # with every core kept busy by something else

The first run on a machine also finds out what the solutions return (kept under XDG_CACHE_HOME).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from onelayer.envs.code.grader import Verdict, check
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig

SUITES = ("humaneval+", "mbpp+")


def run(suite: str) -> tuple[int, float, list[str]]:
    """Tasks, seconds, and the tasks whose solution did not pass, with the verdict."""
    problems = list(load_problems(CodeConfig(suite=suite), "test")[1].values())
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda problem: check(problem.solution, problem), problems))
    failed = [f"{p.id} {r.verdict} ({r.failure})" for p, r in zip(problems, results, strict=True) if r.verdict is not Verdict.CORRECT]
    return len(problems), time.perf_counter() - started, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--load", action="store_true", help="keep every core busy with spinning processes during the runs")
    args = parser.parse_args()
    spin = "import os\nwhile os.getppid() == %d: pass" % os.getpid()  # noqa: UP031
    spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)] if args.load else []
    try:
        for number in range(1, args.runs + 1):
            for suite in SUITES:
                tasks, seconds, failed = run(suite)
                print(
                    f"run {number}{' under load' if args.load else ''}: {suite} {tasks - len(failed)} of {tasks} in {seconds:.1f} s",
                    flush=True,
                )
                for line in failed:
                    print(f"  {line}", flush=True)
    finally:
        for process in spinning:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
