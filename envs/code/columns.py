"""What the columns of a row hold, in a user's own file and in the published sets.

tests/envs/code/test_published.py cites the card or loader from which the columns of each set are taken.
"""

from __future__ import annotations

import ast
import base64
import io
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...common.reading import open_regular, parse_json
from .extract import extract_code
from .problems import Ungradable

PROMPTS = ("prompt", "question", "text")
PUBLISHED_PROMPTS = ("problem", "question_content")
PUBLISHED_COLUMNS = frozenset((*PUBLISHED_PROMPTS, "starter_code", "test_info"))  # one of which every row of the published sets has
TESTS = ("tests", "test_list", "test")
PUBLISHED_TESTS = ("test_code", "input_output", "private_test_cases")
SOLUTIONS = ("canonical_solution", "solution", "code", "solutions")
IDS = ("task_id", "question_id", "problem_id")
CHECKERS = ("checker", "generated_checker")
TYPES = ("type", "difficulty", "gpt_difficulty")
CODE_COLUMNS = {*TESTS, *PUBLISHED_TESTS, "public_test_cases", "entry_point", "canonical_solution", "base_input", "starter_code"}
ON_THE_HUB = {
    "agentica-org/deepcoder-preview-dataset",
    "livecodebench/code_generation",
    "livecodebench/code_generation_lite",
    "baai/taco",
    "codeparrot/apps",
    "kodcode/kodcode-v1",
    "kodcode/kodcode-v1-sft-r1",
    "kodcode/kodcode-light-rl-10k",
}


def is_code(suite: str) -> bool:
    """Whether a file (by the columns of its first row) or a data set (by its name) is one of code and not of mathematics."""
    if suite.startswith("hub:"):
        return suite.removeprefix("hub:").partition(":")[0].lower() in ON_THE_HUB
    try:
        with open_regular(Path(suite)) as file:
            first = next((line for line in file if line.strip()), b"")
        row = parse_json(first.removeprefix(b"\xef\xbb\xbf"))
    except (OSError, ValueError):  # whoever reads the file says what is wrong with it
        return False
    return isinstance(row, dict) and is_code_row(row)


def is_code_row(row: Mapping[str, Any]) -> bool:
    return not CODE_COLUMNS.isdisjoint(row) and "answer" not in row and "gold" not in row


def tests_of(values: Mapping[str, Any], key: str) -> Any:
    """The tests of a row, as JSON has them or as text that is Python. Raises Ungradable where they cannot be decoded."""
    if key == "private_test_cases":  # LiveCodeBench
        public = json_in(values.get("public_test_cases")) or []
        private = json_in(values[key])
        if isinstance(private, str):
            private = json_in(_unpacked(private))
        if not isinstance(public, list) or not isinstance(private, list):
            raise Ungradable("its public or private test cases are not a list")
        return public + private
    if key in PUBLISHED_TESTS and not values[key]:
        raise Ungradable("it has no tests")
    return json_in(values[key])


def json_in(value: Any) -> Any:
    """What a text holds in JSON, where it holds a list or an object; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_json(value)
        except ValueError:
            return value
    return value


class _Texts(pickle.Unpickler):
    """Reads a pickled text and no object of any class, so that nothing in a file can run code here."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in the place of a text")


def _unpacked(packed: str) -> str:
    """LiveCodeBench's private tests: JSON, pickled, compressed, in base 64."""
    try:
        found = _Texts(io.BytesIO(zlib.decompress(base64.b64decode(packed, validate=True)))).load()
    except Exception as error:  # pickle raises many kinds
        raise Ungradable(f"its private test cases cannot be unpacked ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(found, str):
        raise Ungradable(f"its private test cases hold a {type(found).__name__}")
    return found


def function_of(values: Mapping[str, Any]) -> str:
    """The function that LiveCodeBench's and DeepCoder's rows name beside the tests; empty where they name none."""
    metadata = json_in(values.get("metadata"))
    name = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


def declarations_of(values: Mapping[str, Any]) -> str:
    """The declarations that KodCode's rows have for the functions and classes under test, one a line."""
    infos = json_in(values.get("test_info"))
    found = (info.get("function_declaration") for info in infos if isinstance(info, Mapping)) if isinstance(infos, list) else ()
    return "\n".join(text.strip() for text in found if isinstance(text, str))


def solution_in(value: Any, entry_point: str, container: str) -> str:
    """A row's solution: a text, in a fenced block or not, or the first of a list of them that is Python; empty where there is none."""
    found = json_in(value)
    if isinstance(found, str):
        return (extract_code(found, entry_point, container=container) or "") if "```" in found else found
    codes = (solution_in(text, entry_point, container) for text in found if isinstance(text, str)) if isinstance(found, list) else ()
    return next((code for code in codes if code and _is_python(code)), "")


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
