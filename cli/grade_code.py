"""`onelayer grade code`"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..envs.code.grader import Result
    from ..envs.code.problems import Problem
    from ..envs.code.sources import Problems
    from ..envs.data_files import Record

KS = (1, 10, 100)
NAMED = 10  # tasks without samples that are named


def grade_code(
    input: Annotated[Path, typer.Option(metavar="FILE.jsonl", help='lines {"task_id": ..., "solution": ...} or "completion"')],
    suite: Annotated[str, typer.Option(metavar="NAME", help="humaneval+, mbpp+, functions or FILE.jsonl")] = "humaneval+",
    output: Annotated[Path | None, typer.Option(metavar="OUT.jsonl", help='the same lines with "base" and "plus" added')] = None,
    unsafe_sandbox: Annotated[
        bool, typer.Option("--unsafe-sandbox", help="run code even where this machine offers nothing to contain it")
    ] = False,
) -> None:
    """Run samples in EvalPlus's format against a suite's tests and print pass@k with its 95% interval.

    A "solution" is a whole program; a "completion" continues the task's prompt. "base" is the verdict on the original tests, "plus" the one
    on those and the added tests together. Other fields pass through. A task without samples counts as not solved. Verdicts are correct,
    wrong, raised, timeout, memory, crashed and output. The output is written whole or not at all.

    \b
    Example:
      onelayer grade code --suite humaneval+ --input samples.jsonl --output graded.jsonl
    """
    from ..common.files import make_writable, write_atomically
    from ..envs.code.sources import load_problems
    from ..envs.config import CodeConfig
    from ..envs.data_files import read_lines

    if unsafe_sandbox:
        os.environ["ONELAYER_UNSAFE_SANDBOX"] = "1"
    if output is not None:
        make_writable(output.parent)
    _, problems = load_problems(CodeConfig(suite=suite), "all" if suite.endswith(".jsonl") else "test")
    records = read_lines(input)
    samples = [sample(record, f"{input}:{record.number}", problems, suite) for record in records]
    results = check_all(samples)
    if output is not None:
        lines = [
            json.dumps({**record.values, "base": str(result.base), "plus": str(result.verdict)}, ensure_ascii=False)
            for record, result in zip(records, results, strict=True)
        ]
        write_atomically(output, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    print("\n".join(summary([problem.id for problem, _ in samples], results, list(problems))))


def sample(record: Record, place: str, problems: Problems, suite: str) -> tuple[Problem, str]:
    """The task of a line and the whole program. Raises UserError, with file and line, for unknown tasks and missing keys."""
    from difflib import get_close_matches

    from ..common.errors import UserError

    form = 'a line is {"task_id": "...", "solution": "..."} or {"task_id": "...", "completion": "..."}'
    task = record.values.get("task_id")
    if not isinstance(task, str):
        problem = "'task_id' is not text" if "task_id" in record.values else "no key 'task_id'"
        raise UserError(f"{place}: {problem}; {form}")
    if task not in problems:
        near = get_close_matches(task, problems, n=1, cutoff=0.0)[0]
        raise UserError(f"{place}: no task {task!r} in {suite}; the nearest is {near!r}")
    key = next((key for key in ("solution", "completion") if key in record.values), None)
    if key is None:
        raise UserError(f"{place}: neither 'solution' nor 'completion'; {form}")
    code = record.values[key]
    if not isinstance(code, str):
        raise UserError(f"{place}: {key!r} is not text; {form}")
    problem = problems[task]
    return problem, problem.header + code if key == "completion" else code


def check_all(samples: Sequence[tuple[Problem, str]]) -> list[Result]:
    """The results in order, as many at a time as the sandbox has places, with a progress bar on stderr."""
    from concurrent.futures import ThreadPoolExecutor

    from rich.progress import track

    from ..common.console import Console
    from ..envs.code.grader import check

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        try:
            running = pool.map(lambda pair: check(pair[1], pair[0]), samples)
            return list(track(running, "grading", total=len(samples), console=Console(stderr=True), transient=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def summary(tasks: Sequence[str], results: Sequence[Result], every: Sequence[str]) -> Iterator[str]:
    """The lines that are printed: pass@k of base and plus, the verdicts, the tasks without samples.

    pass@k is the mean over all tasks of the suite, 0 for one without samples, for each k that every other task has samples for.
    """
    from ..envs.code.grader import Verdict
    from ..evals.statistics import pass_at_k, pass_rate

    correct: dict[str, dict[str, list[bool]]] = {"base": defaultdict(list), "plus": defaultdict(list)}
    for task, result in zip(tasks, results, strict=True):
        correct["base"][task].append(result.base is Verdict.CORRECT)
        correct["plus"][task].append(result.verdict is Verdict.CORRECT)
    fewest = min(map(len, correct["plus"].values()))
    for name, outcomes in correct.items():
        for k in KS:
            if k > fewest:
                continue
            rates = [pass_at_k([outcomes[task]], k) if task in outcomes else 0.0 for task in every]
            if len(every) == 1:
                yield f"{name} pass@{k} {rates[0]:.4f}"
                continue
            rate = pass_rate(rates)
            yield f"{name} pass@{k} {rate.mean:.4f} (95% interval {rate.low:.4f} to {rate.high:.4f})"
    for name, verdicts in (("base", [r.base for r in results]), ("plus", [r.verdict for r in results])):
        counts = Counter(verdicts)
        yield f"{name}: " + ", ".join(f"{v} {counts[v]}" for v in Verdict if v is not Verdict.NO_CODE) + f", of {len(results)}"
    missing = [task for task in every if task not in correct["plus"]]
    if missing:
        names = ", ".join(missing[:NAMED]) + (", ..." if len(missing) > NAMED else "")
        yield f"no samples for {len(missing)} of {len(every)} tasks, which count as not solved: {names}"
