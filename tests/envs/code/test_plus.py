"""EvalPlus's published suites: their files, their types, their own solutions."""

from __future__ import annotations

import ast
import gzip
import hashlib
import json
import random
from importlib.util import find_spec
from pathlib import Path

import pytest

from onelayer.envs import UserError, load
from onelayer.envs.code import plus, reference
from onelayer.envs.code.grader import check, grade
from onelayer.envs.code.problems import Calls
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig

SIZES = {"humaneval+": 164, "mbpp+": 378}


@pytest.mark.data
def test_the_files_are_those_that_were_released(data: Path) -> None:
    for suite, release in plus.RELEASES.items():
        assert hashlib.sha256(gzip.decompress((data / release.file).read_bytes())).hexdigest() == release.sha256, suite


@pytest.mark.data
@pytest.mark.parametrize("suite", SIZES)
def test_every_task_loads(suite: str) -> None:
    split, problems = load_problems(CodeConfig(suite=suite), "test")
    assert len(split.items) == len(problems) == SIZES[suite]
    assert load(CodeConfig(suite=suite, size=5), "test").items == split.items[:5]
    assert all(item.gold == problems[item.id].solution and len(str(item.meta["tests"])) == 64 for item in split.items)
    assert all(problem.preamble + "def " in problem.header or suite == "mbpp+" for problem in problems.values())


@pytest.mark.data
@pytest.mark.evalplus
def test_the_types_of_inputs_are_evalpluss(data: Path) -> None:
    """Its function is compiled alone: importing its module wants the full package."""
    spec = find_spec("evalplus")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("data").joinpath("mbpp.py").read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "mbpp_deserialize_inputs"]
    namespace: dict = {}
    exec(compile(tree, "mbpp.py", "exec"), namespace)
    changed = 0
    for line in gzip.decompress((data / plus.RELEASES["mbpp+"].file).read_bytes()).splitlines():
        record = json.loads(line)
        for key in ("base_input", "plus_input"):
            theirs = [list(args) for args in namespace["mbpp_deserialize_inputs"](record["task_id"], record[key])]
            ours = [list(args) for args in plus.restore(record["task_id"], list(record[key]))]
            assert (ours, list(map(repr, ours))) == (theirs, list(map(repr, theirs))), record["task_id"]
            changed += repr(ours) != repr(list(record[key]))
    assert changed > 100


@pytest.mark.data
@pytest.mark.evalplus
def test_the_special_tasks_are_evalpluss() -> None:
    from evalplus.eval import _special_oracle as special

    problems = load_problems(CodeConfig(suite="mbpp+"), "test")[1]
    named = {problem.entry_point: problem.id for problem in problems.values()}
    several = {
        *special.MBPP_OUTPUT_SET_EQ_TASKS,
        *special.MBPP_OUTPUT_NOT_NONE_TASKS,
        "are_equivalent",
        "sum_div",
        "surface_Area",
        "digit_distance_nums",
    }
    assert {named[name] for name in several if name in named} <= plus.RULES.keys()
    assert {named[name] for name in special.MBPP_OUTPUT_NOT_NONE_TASKS} == plus.NOT_NONE


@pytest.mark.data
@pytest.mark.parametrize("suite", SIZES)
def test_canonical_solutions_pass_and_their_neighbours_fail(suite: str) -> None:
    """A third of the tasks, those that take no time; bench/code_suites.py runs them all."""
    problems = list(load_problems(CodeConfig(suite=suite), "test")[1].values())
    always = [problem for problem in problems if problem.id in plus.RULES or problem.id in ("Mbpp/115", "Mbpp/124", "Mbpp/252", "Mbpp/793")]
    chosen = [p for p in random.Random(0).sample(problems, len(problems) // 3) if p.id not in SLOW] + always
    for problem in chosen:
        assert check(problem.solution, problem).verdict == "correct", problem.id
        result = check(
            f"{problem.solution}\n_kept = {problem.entry_point}\ndef {problem.entry_point}(*args):\n    return [_kept(*args), 0]", problem
        )
        assert result.verdict in ("wrong", "output") or problem.id in plus.NOT_NONE, problem.id


SLOW = {f"HumanEval/{n}" for n in (15, 36, 59, 83, 94, 100, 130, 139)} | {
    f"Mbpp/{n}" for n in (123, 255, 271, 389, 392, 462, 589, 592, 599, 603, 630)
}


@pytest.mark.data
def test_base_and_plus_are_told_apart() -> None:
    """A solution by heart of the base tests is right on base alone."""
    problem = load_problems(CodeConfig(suite="humaneval+"), "test")[1]["HumanEval/2"]
    assert isinstance(problem.tests, Calls)
    known = dict(zip([args[0] for args in problem.tests.base], reference.reference(problem).outputs, strict=False))
    result = check(f"def truncate_number(number):\n    return {known!r}.get(number, 0.0)", problem)
    assert (result.base, result.verdict) == ("correct", "wrong")
    assert result.failure is not None and result.failure.input.startswith("truncate_number(") and result.failure.expected is None


@pytest.mark.data
def test_a_reply_may_be_a_whole_function_or_its_body_alone() -> None:
    problem = load_problems(CodeConfig(suite="humaneval+"), "test")[1]["HumanEval/0"]  # its head needs List from the preamble
    body = problem.solution.removeprefix(problem.header)
    whole = problem.solution.removeprefix(problem.preamble)
    assert [str(grade(reply, problem).verdict) for reply in (body, whole, f"```python\n{whole}```", problem.solution, "pass")] == [
        *["correct"] * 4,
        "no_code",
    ]


@pytest.mark.data
def test_right_outputs_are_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = load_problems(CodeConfig(suite="mbpp+"), "test")[1]["Mbpp/2"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reference._references.clear()
    first = reference.reference(problem)
    (file,) = (tmp_path / "onelayer" / "code").iterdir()
    for damage in (None, b"", b"damaged", file.read_bytes()[:-5]):
        if damage is None:
            monkeypatch.setattr(reference, "calls", None)  # not needed again
        else:
            monkeypatch.undo()
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
            file.write_bytes(damage)
        reference._references.clear()
        again = reference.reference(problem)
        assert (again.outputs, again.atol) == (first.outputs, first.atol)


def record(**changes: object) -> dict[str, object]:
    usual = {"task_id": "T/1", "prompt": 'def f(a):\n    """Double a."""\n', "entry_point": "f", "canonical_solution": "    return a * 2\n"}
    return {**usual, "base_input": [[1]], "plus_input": [[2], ["ab"]], "atol": 0, **changes}


def test_a_solution_that_fails_is_the_datas_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = plus.problem(record(canonical_solution="    return a / 2\n"))
    with pytest.raises(UserError, match=r"T/1: its own solution fails on input 3 of 3 .*TypeError"):
        check("def f(a):\n    return a", problem)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", json.dumps(record(atol="0")).encode(), json.dumps({**record(), "base_input": None}).encode()]
)
def test_a_broken_release_is_reported_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    file = tmp_path / "humanevalplus" / "HumanEvalPlus.jsonl.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(json.dumps(record()).encode() + b"\n" + line + b"\n"))
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"HumanEvalPlus.jsonl.gz:2: ") as error:
        load(CodeConfig(suite="humaneval+"), "test")
    assert "\n" not in str(error.value)
    file.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot be unpacked"):
        load(CodeConfig(suite="humaneval+", size=1), "test")


def test_what_is_fetched_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served.gz"
    monkeypatch.delenv("ONELAYER_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = json.dumps(record()).encode()
    for sha256, body, message in (
        ("0" * 64, None, "cannot be fetched .* set ONELAYER_DATA to a folder that holds mbpp/x.gz"),
        ("0" * 64, gzip.compress(content), "another file than was released"),
        ("0" * 64, b"<html>", "another file than was released"),
        (hashlib.sha256(content).hexdigest(), gzip.compress(content), None),
    ):
        if body is not None:
            served.write_bytes(body)
        monkeypatch.setitem(plus.RELEASES, "mbpp+", plus.Release("mbpp/x.gz", served.as_uri(), sha256))
        if message is None:
            assert load(CodeConfig(suite="mbpp+", size=1), "test").items[0].id == "T/1"
            served.unlink()
            assert len(load_problems(CodeConfig(suite="mbpp+", seed=1), "test")[1]) == 1
        else:
            with pytest.raises(UserError, match=message):
                load(CodeConfig(suite="mbpp+", size=1), "test")
