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
    ["`", "```\n", "```python\n", "'''", "a,", "a, ", "a ", "a: ", "[", "=", "<think>", "</think>", "f(", "\n", " ", "\x00", "\ud800"],
)
def test_long_replies_are_no_work(unit: str) -> None:
    """No assertion on time: with a rule that is not linear this would not end."""
    extract_code(unit * (MAX_REPLY // len(unit)), "f", HEADER)
    extract_code("def f(a):\n" + unit * (MAX_REPLY // len(unit) - 20), "f", HEADER)
    assert extract_code(F + " " * MAX_REPLY, "f") is None
