"""The code grader against evalplus 0.3.1 on canonical solutions and mutants of them, with the same tests and right outputs.

    ONELAYER_DATA=... python bench/code_agreement.py --mutants 3 --output agreement.jsonl
    ONELAYER_DATA=... python bench/code_agreement.py --replies humaneval+=replies.jsonl --output agreement.jsonl

With --replies, the solutions are those in the replies of a model, {"task_id": ID, "response": TEXT} a line: what is graded here is
given to evalplus as it is. Prints how often the two agree, and every disagreement with both verdicts; docs/code-grading.md explains them.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from onelayer.envs.code.extract import extract_code
from onelayer.envs.code.grader import check
from onelayer.envs.code.problems import Calls, Problem
from onelayer.envs.code.reference import reference
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig

SUITES = {"humaneval+": "humaneval", "mbpp+": "mbpp"}
PATIENCE = 2.0  # seconds that evalplus waits for a call, on the clock
SLOW = 3.0  # CPU seconds of a solution whose mutants are left out
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.FloorDiv,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn}
TYPES = ("float", "str", "list", "tuple", "int", "bool", "repr")
Change = Callable[[], None]


def mutations(tree: ast.Module, name: str, rng: random.Random) -> Iterator[tuple[str, Change]]:
    """(kind, how to make the change in place) for every place of the function `name` that can be changed."""
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    node: Any
    for node in ast.walk(function):
        form = type(node)
        if form is ast.BinOp and type(node.op) in OPERATORS:
            yield "operator", lambda node=node: setattr(node, "op", OPERATORS[type(node.op)]())
        if form is ast.Compare and type(node.ops[0]) in COMPARISONS:
            yield "operator", lambda node=node: node.ops.__setitem__(0, COMPARISONS[type(node.ops[0])]())
        if form is ast.BoolOp:
            yield "operator", lambda node=node: setattr(node, "op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
        if form is ast.Constant and type(node.value) in (int, float):
            yield "constant", lambda node=node: setattr(node, "value", node.value + rng.choice((-1, 1, 2)))
        if form is ast.Constant and type(node.value) is bool:
            yield "constant", lambda node=node: setattr(node, "value", not node.value)
        if form is ast.Constant and type(node.value) is str and node.value and "\n" not in node.value:
            yield "constant", lambda node=node: setattr(node, "value", node.value[1:])
        if form is ast.Call and getattr(node.func, "id", "") == "range":
            yield "off by one", lambda node=node: node.args.append(_plus_one(node.args.pop()))
        if form is ast.Slice and node.upper:
            yield "off by one", lambda node=node: setattr(node, "upper", _plus_one(node.upper))
        if form is ast.Slice and node.lower:
            yield "off by one", lambda node=node: setattr(node, "lower", _plus_one(node.lower))
        if form is ast.Return and node.value is not None:
            for kind in (*rng.sample(TYPES, 2), "[]"):
                yield "type", lambda node=node, kind=kind: setattr(node, "value", _converted(node.value, kind))
        if form is ast.Call and len(node.args) == 2:
            yield "swapped", lambda node=node: node.args.reverse()
        if form is ast.BinOp:
            yield "swapped", lambda node=node: node.__dict__.update(left=node.right, right=node.left)
        for body in (getattr(node, "body", []), getattr(node, "orelse", [])):
            for at, statement in enumerate(body if isinstance(body, list) else []):
                if not isinstance(statement, ast.Expr):
                    yield "deleted", lambda body=body, at=at: body.__setitem__(at, ast.Pass())


def _plus_one(value: ast.expr) -> ast.expr:
    return ast.BinOp(value, ast.Add(), ast.Constant(1))


def _converted(value: ast.expr, kind: str) -> ast.expr:
    return ast.List([value], ast.Load()) if kind == "[]" else ast.Call(ast.Name(kind, ast.Load()), [value], [])


def mutants(problem: Problem, count: int) -> Iterator[tuple[str, str]]:
    """`count` different programs near the solution, or as many as there are, of as many kinds as there are."""
    rng = random.Random(problem.id)
    tree = ast.parse(problem.solution)
    seen = {ast.unparse(tree)}
    kinds: dict[str, list[int]] = {}
    for at, (kind, _) in enumerate(mutations(tree, problem.entry_point, random.Random(problem.id))):
        kinds.setdefault(kind, []).append(at)
    kind_of = {at: kind for kind, places in kinds.items() for at in places}
    kinds = {kind: rng.sample(kinds[kind], len(kinds[kind])) for kind in rng.sample(list(kinds), len(kinds))}
    order = [places.pop() for _ in range(max(map(len, kinds.values()), default=0)) for places in kinds.values() if places]  # kinds in turn
    for chosen in order[:50]:
        if len(seen) > count:
            return
        changed = copy.deepcopy(tree)
        list(mutations(changed, problem.entry_point, random.Random(problem.id)))[chosen][1]()
        source = ast.unparse(ast.fix_missing_locations(changed))
        if source not in seen:
            seen.add(source)
            yield kind_of[chosen], source


def theirs(task: tuple[str, str, str], patience: float = PATIENCE) -> tuple[bool, bool, float]:
    """evalplus's verdicts on base, and on base and plus, and its seconds. Right outputs and limits are the same as ours or wider."""
    from evalplus.eval import untrusted_check

    suite, item, source = task
    problem = load_problems(CodeConfig(suite=suite), "test")[1][item]
    right, tests = reference(problem), problem.tests
    assert isinstance(tests, Calls)
    started, passed = time.perf_counter(), []
    for inputs, outputs in ((tests.base, right.outputs[: len(tests.base)]), (tests.plus, right.outputs[len(tests.base) :])):
        times = [right.slowest] * len(inputs)
        status, _ = untrusted_check(
            SUITES[suite],
            source,
            list(inputs),
            problem.entry_point,
            list(outputs),
            tests.atol,
            times,
            fast_check=True,
            min_time_limit=patience,
        )
        passed.append(status == "pass")
        if not passed[-1]:
            break  # base and plus together have failed too
    return passed[0], all(passed), time.perf_counter() - started


def of_solutions(size: int | None, count: int) -> Iterator[tuple[str, Problem, str, str]]:
    """Suite, problem, kind and source of canonical solutions and their mutants."""
    for suite in SUITES:
        for problem in list(load_problems(CodeConfig(suite=suite), "test")[1].values())[:size]:
            yield suite, problem, "canonical", problem.solution
            if reference(problem).total < SLOW:
                yield from ((suite, problem, kind, source) for kind, source in mutants(problem, count))


def of_replies(files: list[str]) -> Iterator[tuple[str, Problem, str, str]]:
    """The same of the replies of a model; a reply without code is graded as an empty program."""
    for suite, _, file in (name.partition("=") for name in files):
        problems = load_problems(CodeConfig(suite=suite), "test")[1]
        for line in Path(file).read_text().splitlines():
            row = json.loads(line)
            problem = problems[row["task_id"]]
            yield suite, problem, "reply", extract_code(row["response"], problem.entry_point, problem.header, problem.preamble) or ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=3, help="of each solution")
    parser.add_argument("--size", type=int, help="only the first tasks of each suite")
    parser.add_argument("--replies", metavar="SUITE=FILE", action="append", default=[], help="replies of a model instead; may be repeated")
    parser.add_argument("--output", type=Path, required=True, help="JSON lines: every solution with both verdicts")
    args = parser.parse_args()
    tasks = list(of_replies(args.replies) if args.replies else of_solutions(args.size, args.mutants))
    print(f"{len(tasks)} solutions: {dict(Counter(kind for _, _, kind, _ in tasks))}", flush=True)
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        our = list(threads.map(lambda task: check(task[3], task[1]), tasks))
    ours_seconds, started = time.perf_counter() - started, time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as processes:
        their = list(processes.map(theirs, [(suite, problem.id, source) for suite, problem, _, source in tasks]))
    print(f"ours {ours_seconds:.0f} s, evalplus {time.perf_counter() - started:.0f} s", flush=True)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        for at, (suite, problem, _, source) in enumerate(tasks):  # its time is that of the clock: once more, alone and with patience
            if our[at].verdict == "correct" and not their[at][1]:
                their[at] = process.submit(theirs, (suite, problem.id, source), 10 * PATIENCE).result()
    counts: Counter[tuple[str, str, bool, bool]] = Counter()
    with args.output.open("w") as file:
        for (suite, problem, kind, source), result, (base, plus, seconds) in zip(tasks, our, their, strict=True):
            for part, mine, other in (("base", result.base == "correct", base), ("plus", result.verdict == "correct", plus)):
                counts[suite, part, mine, other] += 1
                if mine != other:
                    print(f"{problem.id} {kind} {part}: ours {result.verdict} ({result.failure}), evalplus {'pass' if other else 'fail'}")
            row = {"task_id": problem.id, "kind": kind, "solution": source, "base": str(result.base), "plus": str(result.verdict)}
            row |= {"evalplus_base": base, "evalplus_plus": plus, "evalplus_seconds": round(seconds, 3)}
            file.write(json.dumps(row) + "\n")
    print(f"{'suite':12}{'tests':6}{'both pass':>10}{'both fail':>10}{'only ours':>10}{'only theirs':>12}")
    for suite in SUITES:
        for part in ("base", "plus"):
            cells = [counts[suite, part, mine, other] for mine, other in ((True, True), (False, False), (True, False), (False, True))]
            print(f"{suite:12}{part:6}{cells[0]:10}{cells[1]:10}{cells[2]:10}{cells[3]:12}")


if __name__ == "__main__":
    main()
