"""Published sets of code: small invented rows under the columns of each, loaded from a file and as if from the hub, and graded.

Where the columns come from:

- DeepCoder (agentica-org/DeepCoder-Preview-Dataset): rllm at 9beb6e0, cookbooks/deepcoder/prepare_deepcoder_data.py (problem, tests as
  JSON, starter_code, metadata.func_name; the subsets), rllm/data/preprocess/code/primeintellect.ipynb (problem, solutions, tests) and
  rllm/rewards/code_reward.py (fn_name, testtype).
- LiveCodeBench (livecodebench/code_generation_lite): LiveCodeBench at 28fef95, lcb_runner/benchmarks/code_generation.py (the fields of
  CodeGenerationProblem, how private tests are packed) and lcb_runner/evaluation/testing_util.py (arguments and values as JSON).
- TACO (BAAI/TACO): the features on its card; TACO at 245eba3, metrics/testing_util.py (input_output with inputs, outputs, fn_name).
- APPS (codeparrot/apps): the features on its card; apps at 362aedc, eval/testing_util.py (lists of lines, wrapped values, integer keys).
- KodCode (KodCode/KodCode-V1): the columns style, subset, question_id, question, solution, test, test_info and gpt_difficulty as kodcode at
  1d3515b writes them (demo/KodCode_algorithm_100_1741212598.json); its tests are files of pytest that import from `solution`.
"""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from onelayer.envs import UserError, load, parse_suite
from onelayer.envs.code.grader import grade
from onelayer.envs.code.problems import Calls, Programs
from onelayer.envs.code.sources import load_problems
from onelayer.envs.config import CodeConfig

SUM = "a, b = map(int, input().split())\nprint(a + b)"
TWO_SUM = """class Solution:
    def twoSum(self, nums: List[int], target: int) -> List[int]:
        seen = {}
        for at, value in enumerate(nums):
            if target - value in seen:
                return [seen[target - value], at]
            seen[value] = at
"""
STARTER = "class Solution:\n    def twoSum(self, nums: List[int], target: int) -> List[int]:\n        "
CALLS = [
    {"input": "[2, 7, 11]\n9", "output": "[0, 1]", "testtype": "functional"},
    {"input": "[3, 3]\n6", "output": "[0, 1]", "testtype": "functional"},
]
TYPED = [{"input": "1 2\n", "output": "3", "testtype": "stdin"}, {"input": "5 5\n", "output": "10\n", "testtype": "stdin"}]


def packed(tests: list, dump: object = None) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests) if dump is None else dump))).decode()


def livecodebench(number: int, tests: list, **changes: object) -> dict:
    row = {"question_title": "T", "question_content": f"Task {number}.", "platform": "leetcode", "question_id": f"q{number}"}
    row |= {"contest_id": "c", "contest_date": "2024-01-01T00:00:00", "starter_code": "", "difficulty": "easy"}
    return {**row, "public_test_cases": json.dumps(tests[:1]), "private_test_cases": packed(tests[1:]), "metadata": "{}", **changes}


def apps(number: int, **changes: object) -> dict:
    row = {"problem_id": number, "question": f"Task {number}.", "solutions": json.dumps(["print 1", SUM]), "difficulty": "interview"}
    return {
        **row,
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "url": "https://example.org",
        "starter_code": "",
        **changes,
    }


def taco(number: int, **changes: object) -> dict:
    row = {
        name: None
        for name in ("raw_tags", "name", "source", "tags", "skill_types", "url", "time_limit", "date", "picture_num", "memory_limit")
    }
    row |= {"Expected Auxiliary Space": None, "Expected Time Complexity": None, "question": f"Task {number}.", "solutions": "[]"}
    return {
        **row,
        "starter_code": "",
        "difficulty": "EASY",
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        **changes,
    }


def kodcode(number: int, test: str, solution: str, declaration: str, **changes: object) -> dict:
    row = {
        "style": "instruct",
        "subset": "Algorithm",
        "question_id": f"Algorithm_{number}_I",
        "question": f"Task {number}.",
        "solution": solution,
    }
    info = [{"function_name": "f", "parameter_list": "(a)", "function_declaration": declaration, "docstring": "D."}]
    return {**row, "test": test, "test_info": info, "gpt_difficulty": "easy", "gpt_pass_percentage": 0.5, **changes}


DOUBLE = "def double(a):\n    return 2 * a"
STACK = """class Stack:
    def __init__(self, size):
        self.size, self.items = size, []

    def push(self, item):
        if len(self.items) == self.size:
            raise OverflowError("full")
        self.items.append(item)
        return len(self.items)

    def pop(self):
        return self.items.pop()

    def __len__(self):
        return len(self.items)
"""
SORT = "def order(items):\n    items.sort()"
ROWS = {
    "deepcoder": [
        {"problem": "Task 1.", "tests": json.dumps(TYPED), "starter_code": "", "metadata": {}},
        {"problem": "Task 2.", "tests": json.dumps(CALLS), "starter_code": STARTER, "metadata": {"func_name": "twoSum"}},
        {
            "problem": "Task 3.",
            "solutions": [f"```python\n{SUM}\n```"],
            "tests": json.dumps([{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}]),
        },
        {
            "problem": "Task 4.",
            "solutions": [DOUBLE],
            "tests": json.dumps([{"type": "function_call", "fn_name": "double", "input": [2], "output": [4]}]),
        },
        {"problem": "Task 5.", "solutions": [SUM], "tests": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]})},
        {"problem": "Task 6.", "tests": json.dumps([{"type": "interactive", "input": "1", "output": "2"}])},
        {"problem": "Task 7.", "tests": "[]"},
        {"problem": "Task 8.", "tests": None},
        {"problem": "Task 9.", "tests": "nothing"},
    ],
    "livecodebench": [
        livecodebench(1, TYPED),
        livecodebench(2, CALLS, starter_code=STARTER, metadata=json.dumps({"func_name": "twoSum"})),
        livecodebench(3, TYPED, private_test_cases=json.dumps(TYPED[1:])),
        livecodebench(4, CALLS, metadata="{}"),
        livecodebench(5, TYPED, private_test_cases=packed([], dump=print)),
    ],
    "apps": [
        apps(1),
        apps(2, input_output=json.dumps({"inputs": [["1 2"], ["3 4", ""]], "outputs": [["3"], ["7"]]})),
        apps(
            3,
            input_output=json.dumps({"fn_name": "double", "inputs": [[2], ["a"]], "outputs": [[4], ["aa"]]}),
            solutions=json.dumps([DOUBLE]),
            starter_code="def double(a):\n\t",
        ),
        apps(4, input_output=""),
        apps(5, input_output=json.dumps({"inputs": ["1", "2"], "outputs": ["1"]})),
    ],
    "taco": [
        taco(1),
        taco(2, input_output=json.dumps({"fn_name": "twoSum", "inputs": [[[2, 7], 9]], "outputs": [[0, 1]]}), starter_code=STARTER),
        taco(3, input_output=json.dumps({"inputs": [], "outputs": []})),
        taco(4, input_output=json.dumps({"fn_name": "two sum", "inputs": [[1]], "outputs": [1]})),
    ],
    "kodcode": [
        kodcode(
            1,
            "from solution import double\n\ndef test_double():\n    assert double(2) == 4\n    assert double('a') == 'aa'\n",
            DOUBLE,
            "def double(a):",
        ),
        kodcode(
            2,
            "import pytest\nfrom solution import Stack\n\ndef test_push():\n    s = Stack(1)\n    assert s.push(1) == 1 and len(s) == 1\n"
            "    with pytest.raises(OverflowError, match='full'):\n        s.push(2)\n    assert s.pop() == 1 and s.items == []\n",
            STACK,
            "class Stack:",
        ),
        kodcode(
            3,
            "from solution import order\ndef test_order():\n    items = [3, 1, 2]\n    order(items)\n    assert items == [1, 2, 3]\n",
            SORT,
            "def order(items):",
        ),
        kodcode(
            4,
            "import pytest\nfrom solution import double\n\n@pytest.mark.parametrize('a, b', [(1, 2), (2.5, 5)])\ndef test_double(a, b):\n"
            "    assert double(a) == pytest.approx(b)\n",
            DOUBLE,
            "def double(a):",
        ),
        kodcode(
            5,
            "from solution import double\ndef test_double(capsys):\n    double(1)\n    assert capsys.readouterr().out == ''\n",
            DOUBLE,
            "def double(a):",
        ),
        kodcode(7, "from solution import double\n\ndef test_double():\n    double(2)\n", DOUBLE, "def double(a):"),
        kodcode(8, "", DOUBLE, "def double(a):"),
        kodcode(6, f"{DOUBLE}\n\ndef test_double():\n    assert double(2) == 4\n", DOUBLE, "def double(a):"),
    ],
}
SKIPPED = {
    "deepcoder": {
        6: "it has tests of the type 'interactive'",
        7: "it has no tests",
        8: "it has no tests",
        9: "'tests' does not say which function it tests",
    },
    "livecodebench": {4: "it has tests of a function without its name", 5: "its private test cases cannot be unpacked (UnpicklingError"},
    "apps": {4: "it has no tests", 5: "it has 2 inputs and 1 outputs"},
    "taco": {3: "it has 0 inputs and 0 outputs", 4: "it has tests of a function without its name"},
    "kodcode": {
        5: "'test' uses the fixture capsys",
        6: "'test' defines double itself, and does not test the program's",
        7: "'test' asserts nothing",
        8: "it has no tests",
    },
}
RIGHT = [SUM, TWO_SUM, DOUBLE, STACK, SORT]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_read_skipped_and_graded(tmp_path: Path, name: str) -> None:
    """Each task takes one of the right programs and no other; each row that cannot be graded is left out with its reason."""
    suite = write(tmp_path / f"{name}.jsonl", ROWS[name])
    split, problems = load_problems(CodeConfig(suite=suite), "all")
    assert len(split.items) + len(split.skipped) == len(ROWS[name])
    reasons = {
        int(one.id.split("/")[-1]) if "/" in one.id else int("".join(filter(str.isdigit, one.id))): one.reason for one in split.skipped
    }
    assert reasons.keys() == SKIPPED[name].keys()
    assert all(reasons[number].startswith(reason) for number, reason in SKIPPED[name].items()), reasons
    for item in split.items:
        verdicts = [str(grade(f"```python\n{program}\n```", problems[item.id]).verdict) for program in RIGHT]
        assert verdicts.count("correct") == 1, (item.id, verdicts)
        if item.gold:
            assert grade(f"```python\n{item.gold}\n```", problems[item.id]).verdict == "correct", item.id
    with pytest.raises(UserError, match=rf"{name}.jsonl:\d+: .*env.unreadable=skip"):
        load(CodeConfig(suite=suite, unreadable="refuse"), "all")


def test_what_the_agent_reads(tmp_path: Path) -> None:
    questions = {}
    for name, rows in ROWS.items():
        for item in load(CodeConfig(suite=write(tmp_path / f"{name}.jsonl", rows)), "all").items:
            questions[item.id] = item.question
            assert "[0, 1]" not in item.question
    stdin = "\n\nRead from standard input and print to standard output."
    assert questions["q1"] == f"Task 1.{stdin}"
    assert questions["q2"] == f"Task 2.\n\nUse this starter code:\n```python\n{STARTER}\n```"
    assert questions["deepcoder/4"] == "Task 4.\n\nThe function is called double."
    assert questions["Algorithm_1_I"] == "Task 1.\n\nThe declaration is:\n```python\ndef double(a):\n```"


def test_sets_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the package datasets, which has no network here."""
    seen = []

    def load_dataset(name: str, config: str | None, split: str) -> list[dict]:
        seen.append((name, config, split))
        return ROWS["deepcoder"]

    stand_in = SimpleNamespace(load_dataset=load_dataset, get_dataset_split_names=lambda name, config=None: ["train", "test"])
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    config, split = parse_suite("hub:agentica-org/DeepCoder-Preview-Dataset:lcbv5/test")
    assert isinstance(config, CodeConfig) and split == "test"
    found = load(config, split)
    assert (len(found.items), len(found.skipped)) == (5, len(SKIPPED["deepcoder"]))
    assert seen == [("agentica-org/DeepCoder-Preview-Dataset", "lcbv5", "test")]
    with pytest.raises(UserError, match="these are tasks of code: write code: before the suite"):
        load(*parse_suite("hub:me/tasks/test"))
    other, _ = parse_suite("code:hub:me/tasks/test")
    assert other == CodeConfig(suite="hub:me/tasks") and load(other, "test").items[0].id == "me/tasks/test/1"


@pytest.mark.parametrize("name", ROWS)
def test_a_file_of_code_is_told_from_one_of_mathematics(tmp_path: Path, name: str) -> None:
    suite = write(tmp_path / f"{name}.jsonl", ROWS[name])
    assert parse_suite(f"{suite}/all") == (CodeConfig(suite=suite), "all")


def test_the_benchmarks_rules_of_comparison(tmp_path: Path) -> None:
    """LiveCodeBench takes equal numbers, APPS and TACO close ones; white space at the ends of lines counts in neither."""
    tests = [{"input": "1\n", "output": "0.5 1\n yes", "testtype": "stdin"}]
    lcb, other = (
        load_problems(CodeConfig(suite=write(tmp_path / f"{at}.jsonl", [row])), "all")[1]
        for at, row in enumerate(
            (livecodebench(1, tests * 2), apps(1, input_output=json.dumps({"inputs": ["1\n"], "outputs": ["0.5 1\n yes"]})))
        )
    )
    (strict,), (close,) = lcb.values(), other.values()
    for printed, verdicts in {
        "0.50 1\nyes": ("correct", "correct"),
        " 0.5 1.0\nyes \n": ("correct", "correct"),
        "0.500001 1\nyes": ("wrong", "correct"),
        "0.51 1\nyes": ("wrong", "wrong"),
        "0.5 1.000001\nyes": ("wrong", "wrong"),  # a whole number is compared to the last digit
        "1 0.5\nyes": ("wrong", "wrong"),  # in order, though the last of APPS's comparisons is one of sets
        "0.5 1\nno": ("wrong", "wrong"),
    }.items():
        reply = f"```python\nprint({printed!r})\n```"
        assert (grade(reply, strict).verdict, grade(reply, close).verdict) == verdicts, printed


def test_values_as_the_loaders_of_apps_read_them(tmp_path: Path) -> None:
    """Some rows wrap a value in a list, JSON makes texts of integer keys, and has no tuples. A list of several is no choice."""
    cases = {"fn_name": "f", "inputs": [[1], [2], [{"3": 4}]], "outputs": [[7], [[1, [2, 3]]], [{"3": 4}]]}
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "a.jsonl", [apps(1, input_output=json.dumps(cases))])), "all")[1].values()
    assert isinstance(problem.tests, Calls)
    right = "def f(a):\n    return {1: 7, 2: (1, (2, 3))}[a] if type(a) is int else a if a == {3: 4} else None"
    assert grade(right, problem).verdict == "correct"
    several = {"fn_name": "f", "inputs": [[1]], "outputs": [[7, 8]]}
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "b.jsonl", [apps(1, input_output=json.dumps(several))])), "all")[
        1
    ].values()
    assert [str(grade(f"def f(a): return {out}", problem).verdict) for out in ("[7, 8]", "7")] == ["correct", "wrong"]


def test_a_checker_that_the_data_brings(tmp_path: Path) -> None:
    checker = "def check(input, output, expected):\n    a, b = map(int, output.split())\n    return a + b == int(input)\n"
    row = {"prompt": "Split it.", "tests": [{"input": "5\n", "output": "2 3"}], "checker": checker}
    _, problems = load_problems(CodeConfig(suite=write(tmp_path / "own.jsonl", [row])), "all")
    (problem,) = problems.values()
    assert isinstance(problem.tests, Programs)
    replies = {"print(1, 4)": "correct", "print(2, 3)": "correct", "print(1, 1)": "wrong", "print('x')": "wrong", "print(1 / 0)": "raised"}
    assert {reply: str(grade(f"```python\n{reply}\n```", problem).verdict) for reply in replies} == replies
    broken = {**row, "checker": "def check(input, output, expected):\n    return undefined\n"}
    (problem,) = load_problems(CodeConfig(suite=write(tmp_path / "broken.jsonl", [broken])), "all")[1].values()
    with pytest.raises(UserError, match="the checker of a task fails on the input '5"):
        grade("print(2, 3)", problem)
    script = {**row, "generated_checker": "import sys\nprint(open(sys.argv[1]).read())", "checker": None}
    unread = {**row, "checker": "def check(:"}
    for wrong, message in (
        (script, r"'generated_checker' defines no check\(input, output, expected\)"),
        (unread, "'checker' is not Python"),
    ):
        with pytest.raises(UserError, match=message):
            load(CodeConfig(suite=write(tmp_path / "wrong.jsonl", [wrong]), unreadable="refuse"), "all")


def test_the_commands_take_a_file_of_code(tmp_path: Path) -> None:
    suite = write(tmp_path / "kodcode.jsonl", ROWS["kodcode"])
    checked = subprocess.run(
        [sys.executable, "-m", "onelayer", "env", "check", f"{suite}/all"], capture_output=True, text=True, cwd=tmp_path
    )
    assert checked.returncode == 0, checked.stdout
    assert "4 items" in checked.stdout and "4 skipped" in checked.stdout and "4 of 4 solved" in checked.stdout
    play = ["eval", "--suite", f"{suite}/all", "--baseline", "gold", "--n", "1", "--output", "records"]
    played = subprocess.run([sys.executable, "-m", "onelayer", *play], capture_output=True, text=True, cwd=tmp_path)
    assert played.returncode == 0 and "Algorithm_5_I ('test' uses the fixture capsys)" in played.stdout + played.stderr
    assert json.loads((tmp_path / "records" / "evaluation.json").read_bytes())["items"] == 4
