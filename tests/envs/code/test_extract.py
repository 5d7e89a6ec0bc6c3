"""Which part of a reply is its code. docs/code-grading.md gives the rules."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelayer.envs.code.extract import MAX_REPLY, extract_code

F = "def f(a):\n    return a"
G = "def g(a):\n    return a"
HEADER = 'import math\n\ndef f(a):\n    """Return a."""\n'

REPLIES = {
    "bare": (F, F),
    "fenced": (f"```python\n{F}\n```", F),
    "fenced without a language": (f"```\n{F}\n```", F),
    "tildes": (f"~~~py\n{F}\n~~~", F),
    "with prose around": (f"Sure!\n\n```python\n{F}\n```\nThis returns a.", F),
    "unclosed": (f"Here:\n```python\n{F}", F),
    "closed on the last line": (f"```python\n{F}```\nDone.", F),
    "windows line ends": (f"```python\r\n{F}\r\n```".replace("\n", "\r\n"), F),
    "in a list": (f"1. So:\n   ```python\n{textwrap.indent(F, '   ')}\n   ```", F),
    "on one line": ("```python f = lambda a: a```", "f = lambda a: a"),
    "the last that defines it": (f"```python\ndef f(a):\n    return 0\n```\nBetter:\n```python\n{F}\n```", F),
    "examples after it": (f"```python\n{F}\n```\nUse:\n```python\nprint(f(1))\n```\n```\n1\n```", F),
    "with a helper": (f"```python\n{G}\n\n{F}\n```", f"{G}\n\n{F}"),
    "thought first": (f"<think>\n```python\ndef f(a):\n    return 0\n```\n</think>\n```python\n{F}\n```", F),
    "the opening of thought in the prompt": (f"def f(a): return 0\n</think>\n{F}", F),
    "thought without end": (f"<think>\n```python\n{F}\n```", None),
    "prose without a fence": (f"Sure, here it is:\n\n{F}\n\nIt returns a. I hope that helps!", F),
    "helpers without a fence": (f"First a helper:\n{G}\nAnd then\n\n{F}\n", f"{G}\n{F}"),
    "imports without a fence": (f"import math\nfrom typing import List\n\n\n{F}", f"import math\nfrom typing import List\n\n\n{F}"),
    "decorated, async": (f"@cache\nasync {F}", f"@cache\nasync {F}"),
    "a docstring with prose in the first column": (
        'def f(a):\n    """\nThe docstring.\n"""\n    return a',
        'def f(a):\n    """\nThe docstring.\n"""\n    return a',
    ),
    "a lambda": ("f = lambda a: a", "f = lambda a: a"),
    "another function in a fence": (f"```python\n{G}\n```", G),
    "no function": ("I do not know.", None),
    "another function": (G, None),
    "the function in prose": ("The def f(a) should return a.", None),
    "empty": ("", None),
    "empty fence": ("```python\n```", None),
    "white space": (" \n\t\n", None),
}


USE = "print(f(2))\nassert f(1) == 2"
REVISED = "def f(a):\n    return g(a) + 1"
NOT_PROGRAMS = {
    "text": "f(1) gives 1",
    "output": "1\n2",
    "json": '{\n  "f": 1\n}',
    "bash": "pip install numpy\npython f.py",
    "console": "$ python f.py\n1",
    "cpp": "int f(int a) { return a; }\nint main() {}",
    "": "1\n2",
    "python-repl": ">>> f(1)\n1",
    "pycon": ">>> f(1)\n1",
}
FENCE_INSIDE = 'def f(a):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return a'
FILLED = f"import sys\nsys.setrecursionlimit(9999)\nT = []\ndef fill():\n    T.append(1)\nfill()\n{F}"
ROOT = "def f(a):\n    return math.sqrt(a)"
LIMITED = "import math\nLIMIT = 3\ndef g(a):\n    return math.floor(min(a, LIMIT))"
WRITTEN = {
    "Python 3": (f"```python3\n{F}\n```", F),
    "py": (f"```py\n{F}\n```", F),
    "capital letters": (f"```Python\n{F}\n```", F),
    "the name of a file": (f"```solution.py\n{F}\n```", F),
    "the name of a file after the language": (f"```python:src/f.py\n{F}\n```", F),
    "attributes": (f"```{{.python .numberLines}}\n{F}\n```", F),
    "a title": (f'```python title="f.py"\n{F}\n```', F),
    "a space before the label": (f"``` python\n{F}\n```", F),
    "the label on the next line": (f"```\npython\n{F}\n```", F),
    "code beside the fence": (f"```{F}\n```", F),
    "a fence after text": (f"Here you are: ```python\n{F}\n```", F),
    "four backticks": (f"````python\n{F}\n````", F),
    "three inside four": (f"````python\n# ```\n{F}\n````", f"# ```\n{F}"),
    "Markdown around it": (f"````markdown\n# Title\n```python\n{F}\n```\n````", F),
    "five tildes": (f"~~~~~python\n{F}\n~~~~~", F),
    "backticks inside tildes": (f"~~~python\n# ```\n{F}\n~~~", f"# ```\n{F}"),
    "a fence in a docstring": (f"```python\n{FENCE_INSIDE}\n```\nDone.", FENCE_INSIDE),
    "a docstring that never ends": (f'```python\n{F}\n"""\n```\nDone.', f'{F}\n"""'),
    "not closed before the next": (f"```python\n{G}\n```python\n{F}\n```", F),
    "words after the closing fence": (f"```python\n{F}\n``` That is all.", F),
    "on a list item's line": (f"- ```python\n{textwrap.indent(F, '  ')}\n  ```", F),
    "indented as a whole": (f"```python\n{textwrap.indent(F, '    ')}\n```", F),
    "Markdown's indented code": (f"The code:\n\n{textwrap.indent(F, '    ')}\n\nThat is all.", F),
    "begun in the prompt": (f"{F}\n```\nIt returns a.", F),
    "tags": (f"<answer>\n{F}\n</answer>", F),
    "CodeLlama's marks": (f"[PYTHON]\n{F}\n[/PYTHON]", F),
    "other thoughts": (f"<reasoning>\n```python\ndef f(a): return 0\n```\n</reasoning>\n{F}", F),
    "examples beside it": (f"```python\n{F}\n\nprint(f(1))\nassert f(1) == 2\n```", F),
    "tests beside it": (f"```python\n{F}\n\ndef test():\n    assert f(1) == 2\n\ntest()\n```", f"{F}\ndef test():\n    assert f(1) == 2"),
    "a loop of examples": (f"```python\n{F}\nfor a in (1, 2):\n    print(f(a))\n```", F),
    "a main block": (f"```python\n{F}\nif __name__ == '__main__':\n    print(f(1))\n```", F),
    "what must be run": (f"```python\n{FILLED}\n```", FILLED),
    "an example over several lines": (f"```python\n{F}\nassert f([\n1,\n]) == [\n1]\n```", f"{F}\nassert f([\n1,\n]) == [\n1]"),
    "examples in a block of their own": (f"```python\n{F}\n```\n```python\n{USE}\n```", F),
    "a helper in an earlier block": (f"```python\n{G}\n```\nNow f:\n```python\n{REVISED}\n```", f"{G}\n{REVISED}"),
    "a helper in a later block": (f"```python\n{REVISED}\n```\nwith\n```python\n{G}\n```", f"{G}\n{REVISED}"),
    "a helper that it holds itself": (f"```python\ndef g(a): return 0\n```\n```python\n{G}\n{REVISED}\n```", f"{G}\n{REVISED}"),
    "an import of an earlier block": (f"```python\nimport math, os\n```\n```python\n{ROOT}\n```", f"import math, os\n{ROOT}"),
    "a helper's helper": (f"```python\n{LIMITED}\n```\n```python\n{REVISED}\n```", f"{LIMITED}\n{REVISED}"),
    "nothing else of an earlier block": (f"```python\na = f(1)\nprint(undefined)\n{G}\n```\n```python\n{REVISED}\n```", f"{G}\n{REVISED}"),
    "an example that imports it": (f"```python\n{F}\n```\n```python\nfrom solution import f\nprint(f(1))\n```", F),
    "an import alone": ("```python\nfrom math import floor as f\n```", "from math import floor as f"),
    "lines of a notebook": (f"```python\n!pip install numpy\n%matplotlib inline\n{F}\n```", F),
    "in a quotation": (f"> ```python\n{textwrap.indent(F, '> ')}\n>\n> ```", F),
    "bare code and an example": (f"{F}\n\nFor example:\n```python\nprint(f(1))\n```", F),
    "an earlier version": (f"```python\ndef f(a):\n    return 0\n```\n```python\n{F}\n```", F),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_code_as_models_write_it(case: str) -> None:
    reply, code = WRITTEN[case]
    assert tidy(extract_code(reply, "f")) == tidy(code)


@pytest.mark.parametrize("label", NOT_PROGRAMS)
def test_a_block_of_something_else_is_no_program(label: str) -> None:
    """After the program, before it, and alone; for a function and for a whole program."""
    other = f"```{label}\n{NOT_PROGRAMS[label]}\n```"
    program = "n = int(input())\nprint(n)"
    for reply in (f"```python\n{F}\n```\nIt gives:\n{other}", f"{other}\n```python\n{F}\n```", f"```\n{F}\n```\n{other}"):
        assert tidy(extract_code(reply, "f")) == tidy(F)
    for reply in (f"```python\n{program}\n```\nIt gives:\n{other}", f"{other}\n```py\n{program}\n```", f"```\n{program}\n```\n{other}"):
        assert tidy(extract_code(reply)) == tidy(program)
    assert extract_code(other, "f") is None and extract_code(other) is None


def test_the_program_among_the_blocks() -> None:
    solve = "def solve(n):\n    return n + 1"
    main = "if __name__ == '__main__':\n    print(solve(int(input())))"
    for reply, program in (
        (f"```python\n{solve}\n```\n```python\n{main}\n```", f"{solve}\n{main}"),  # in two blocks
        (
            "```python\ndef read():\n    return input()\ndef main():\n    print(read())\n```\n```python\nmain()\n```",
            "def read():\n    return input()\ndef main():\n    print(read())\nmain()",
        ),
        (f"```python\n{solve}\n{main}\n```\nFor example:\n```python\nprint(solve(5))\n```", f"{solve}\n{main}"),  # an example reads nothing
        ("```python\nprint(1)\n```\n```python\nprint(2)\n```", "print(2)"),
        ("print(int(input()) + 1)\n```\nIt adds one.", "print(int(input()) + 1)"),
    ):
        assert tidy(extract_code(reply)) == tidy(program)


def test_a_method_or_a_function() -> None:
    method = "class Solution:\n    def f(self, a):\n        return a"
    for reply, code in ((f"```python\n{method}\n```", method), (f"```python\n{F}\n```", F), (method, method)):
        assert tidy(extract_code(reply, "f", container="Solution")) == tidy(code)


def tidy(code: str | None) -> str | None:
    return None if code is None else "\n".join(line for line in code.split("\n") if line.strip())


@pytest.mark.parametrize("case", REPLIES)
def test_the_code_of_a_reply(case: str) -> None:
    reply, code = REPLIES[case]
    assert tidy(extract_code(reply, "f")) == tidy(code)


def test_a_reply_may_continue_the_prompt() -> None:
    for body in ("    return a\n", "    return a\n\nThat is all.", "```python\n    return a\n```", "\n    return a\nprint(f(1))\n"):
        assert tidy(extract_code(body, "f", HEADER)) == tidy(HEADER + "    return a"), body
    assert extract_code("return a", "f", HEADER) is None


def test_the_prompts_imports_and_helpers_are_there() -> None:
    preamble = "import math\n\n"
    assert extract_code(F, "f", HEADER, preamble) == f"{preamble}{F}\n"
    future = f"from __future__ import annotations\n{F}\n"
    assert extract_code(future, "f", HEADER, preamble) == future + "\n"


def test_whole_programs() -> None:
    assert tidy(extract_code("Here:\n```python\nprint(input())\n```")) == "print(input())"
    assert tidy(extract_code("Sure.\nprint(int(input()) + 1)\nDone.")) == "print(int(input()) + 1)"
    assert extract_code("I do not know.") is None


@given(st.text() | st.text(alphabet="`~\n def f(a):'\"=,[]x<think>/", max_size=300))
def test_any_text_is_taken(reply: str) -> None:
    code = extract_code(reply, "f", HEADER)
    assert code is None or code.encode()


@pytest.mark.parametrize(
    "unit",
    [
        "`",
        "```\n",
        "```python\n",
        "'''",
        "a,",
        "a, ",
        "a ",
        "a: ",
        "[",
        "=",
        "```py\na\n```\n",
        "```py\ndef f(a):\n    g()\n```\n",
        '```py\n"""\n```\n',
        "<think>",
        "</think>",
        "f(",
        "\n",
        " ",
        "\x00",
        "\ud800",
    ],
)
def test_long_replies_are_no_work(unit: str) -> None:
    """No assertion on time: with a rule that is not linear this would not end."""
    extract_code(unit * (MAX_REPLY // len(unit)), "f", HEADER)
    extract_code(unit * (MAX_REPLY // len(unit)))
    extract_code("def f(a):\n" + unit * (MAX_REPLY // len(unit) - 20), "f", HEADER)
    assert extract_code(F + " " * MAX_REPLY, "f") is None
