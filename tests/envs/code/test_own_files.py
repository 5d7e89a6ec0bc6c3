"""A user's own file of tasks: what is read, how it is divided, and how a broken line is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelayer.envs import UserError, check_disjoint, load
from onelayer.envs.code.config import CodeFields
from onelayer.envs.code.grader import grade
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig


def write(path: Path, rows: list) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


DOUBLE = "def double(a):\n    return 2 * a"
CHECK = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate('ab') == 'abab'\n"
TASKS = {
    "a text of asserts": {"prompt": "Double it.", "entry_point": "double", "tests": "assert double(2) == 4\nassert double('a') == 'aa'"},
    "a list of asserts": {
        "question": "Double it.",
        "entry_point": "double",
        "test_list": ["import math", "x = 3", "assert double(x) == 6"],
    },
    "a check, as HumanEval has it": {"text": "Double it.", "entry_point": "double", "test": CHECK},
    "a check that is called": {"prompt": "Double it.", "entry_point": "double", "test": CHECK + "\ncheck(double)"},
}
SUM = {"prompt": "Read numbers, print their sum.", "tests": [{"input": "1 2\n", "output": "3"}, {"input": "5\n", "output": "5\n"}]}


@pytest.mark.parametrize("form", TASKS)
def test_tests_that_assert(tmp_path: Path, form: str) -> None:
    split, problems = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [{**TASKS[form], "solution": DOUBLE}])), "all")
    (item,) = split.items
    assert (item.id, item.question, item.gold) == ("own/1", "Double it.", DOUBLE)
    wrong = "def double(a):\n    return 5"
    found = [grade(reply, problems[item.id]) for reply in (DOUBLE, wrong, "def double(a):\n    return 1 / 0", "def other(): pass", "no")]
    assert [str(result.verdict) for result in found] == ["correct", "wrong", "raised", "no_code", "no_code"]
    assert "double(" in str(found[1].failure) or form.startswith("a check")
    assert "== 6" not in str(found[1].failure) and "== 4" not in str(found[1].failure)


def test_programs(tmp_path: Path) -> None:
    split, problems = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [{**SUM, "type": "sums", "task_id": "s"}])), "all")
    assert (split.items[0].id, split.items[0].meta["type"]) == ("s", "sums")
    replies = {
        "print(sum(map(int, input().split())))": "correct",
        "import sys\nprint(sum(map(int, sys.stdin.read().split())))\nsys.exit(0)": "correct",
        "print(3)": "wrong",
        "print(undefined)": "raised",
        "import sys\nprint(3)\nsys.exit(1)": "raised",
    }
    results = {reply: grade(f"```python\n{reply}\n```", problems["s"]) for reply in replies}
    assert {reply: str(result.verdict) for reply, result in results.items()} == replies
    assert str(results["print(3)"].failure) == "The input '5\\n' gave '3\\n'."


def test_lines_in_evalpluss_format(tmp_path: Path) -> None:
    row = {"task_id": "T/1", "prompt": 'def f(a):\n    """Double a."""\n', "entry_point": "f", "canonical_solution": "    return a * 2\n"}
    row |= {"base_input": [[1]], "plus_input": [[2.5]], "atol": 0}
    _, problems = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [row])), "all")
    assert [str(grade(reply, problems["T/1"]).verdict) for reply in ("    return a + a", "    return a ** 1")] == ["correct", "wrong"]


def test_code_as_a_prompt_may_be_continued(tmp_path: Path) -> None:
    row = {"prompt": 'import math\n\ndef root(a):\n    """The root of a."""\n', "entry_point": "root", "tests": "assert root(4) == 2"}
    split, problems = load_problems(
        CodeConfig(suite=write(tmp_path / "own.jsonl", [{**row, "solution": "    return math.sqrt(a)\n"}])), "all"
    )
    (problem,) = problems.values()
    assert split.items[0].gold.startswith("import math")
    assert {
        str(grade(reply, problem).verdict) for reply in ("    return a ** .5", "def root(a):\n    return math.sqrt(a)", split.items[0].gold)
    } == {"correct"}


def test_a_file_is_divided_by_its_texts(tmp_path: Path) -> None:
    rows = [{"prompt": f"Add {n}.", "entry_point": "f", "tests": f"assert f(1) == {n + 1}"} for n in range(300)]
    config = CodeConfig(suite=write(tmp_path / "own.jsonl", rows))
    splits = {name: load(config, name) for name in ("train", "validation", "test", "all")}
    sizes = {name: len(split.items) for name, split in splits.items()}
    assert sizes["train"] + sizes["validation"] + sizes["test"] == sizes["all"] == 300 and min(sizes.values()) > 10
    check_disjoint(splits["train"], splits["test"])
    again = CodeConfig(suite=write(tmp_path / "reversed.jsonl", rows[::-1]))
    assert {item.question for item in load(again, "test").items} == {item.question for item in splits["test"].items}


def test_the_tests_are_part_of_the_digest(tmp_path: Path) -> None:
    digests = {
        load(
            CodeConfig(suite=write(tmp_path / f"{n}" / "own.jsonl" if (tmp_path / f"{n}").mkdir() is None else tmp_path, [row])), "all"
        ).digest
        for n, row in enumerate(({**SUM, "tests": SUM["tests"][:1]}, SUM, {**SUM, "prompt": "Sum."}))
    }
    assert len(digests) == 3


GOOD = {"prompt": "Double it.", "entry_point": "f", "tests": "assert f(1) == 2"}
BROKEN: dict[str, tuple[object, str]] = {
    "not JSON": ("{", ":2: not JSON"),
    "no prompt": (
        {"entry_point": "f", "tests": "assert f(1)"},
        ":2: no key 'prompt' or 'question' or 'text'; it has entry_point, tests; set env.fields.prompt",
    ),
    "no tests": ({"prompt": "x", "entry_point": "f"}, ":2: no key 'tests' or 'test_list' or 'test'"),
    "no entry point": ({"prompt": "x", "tests": "assert f(1)"}, ":2: no key 'entry_point'"),
    "an entry point that is none": ({**GOOD, "entry_point": "f(a)"}, ":2: the entry point 'f(a)' is not the name"),
    "a prompt that is not text": ({**GOOD, "prompt": 5}, ":2: 'prompt' is 5"),
    "an empty prompt": ({**GOOD, "prompt": " "}, ":2: 'prompt' is \" \""),
    "half a surrogate pair": (
        '{"prompt": "\\ud800", "entry_point": "f", "tests": "assert f(1)"}',
        ":2: 'prompt' holds half a surrogate pair",
    ),
    "tests that are no Python": ({**GOOD, "tests": ["assert f(1) ="]}, ":2: 'tests' is not Python"),
    "tests of another form": ({**GOOD, "tests": {"a": 1}}, ":2: 'tests' is neither text, a list of assert statements"),
    "no tests in the list": ({**GOOD, "tests": []}, ":2: 'tests' is neither text"),
    "pairs without output": ({"prompt": "x", "tests": [{"input": "1"}]}, ":2: 'tests' is neither text"),
    "the same id": ({**GOOD, "task_id": "own/1"}, ":2: the id 'own/1' is taken by"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_lines_are_reported(tmp_path: Path, case: str) -> None:
    row, message = BROKEN[case]
    suite = write(tmp_path / "own.jsonl", [GOOD, row])
    with pytest.raises(UserError) as error:
        load(CodeConfig(suite=suite), "all")
    assert f"{suite}{message}" in str(error.value) and "\n" not in str(error.value)


def test_fields_can_be_named(tmp_path: Path) -> None:
    rows = [{"q": "Double it.", "name": "f", "checks": "assert f(1) == 2", "answer": "def f(a): return 2 * a", "key": 7}]
    fields = CodeFields(prompt="q", entry_point="name", tests="checks", solution="answer", id="key")
    (item,) = load(CodeConfig(suite=write(tmp_path / "own.jsonl", rows), fields=fields), "all").items
    assert (item.id, item.gold) == ("7", "def f(a): return 2 * a")
    with pytest.raises(UserError, match=r":1: no key 'nope'; it has .*; set env.fields.id"):
        load(CodeConfig(suite=write(tmp_path / "own.jsonl", rows), fields=fields.model_copy(update={"id": "nope"})), "all")


def test_suites_and_splits_that_are_not_there(tmp_path: Path) -> None:
    for suite, split, message in (
        ("humaneval", "test", r"no suite 'humaneval'; there are functions, humaneval\+, mbpp\+, and files"),
        ("mbpp+", "train", r"mbpp\+ has no split 'train'; it has test"),
        (str(tmp_path / "none.jsonl"), "all", "No such file"),
    ):
        with pytest.raises(UserError, match=message):
            load(CodeConfig(suite=suite), split)
