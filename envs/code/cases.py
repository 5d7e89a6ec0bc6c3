"""Tests that are inputs and right outputs, in the forms of the published sets: of a whole program, or of a function.

The sources of each form: LiveCodeBench's lcb_runner/benchmarks/code_generation.py and evaluation/testing_util.py; APPS's and TACO's
testing_util.py; for DeepCoder, which joins sets of both forms, rllm's rewards/code_reward.py. docs/code-grading.md says where this differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...common.reading import parse_json
from .compare import OWN, Printed, called, called_or_wrapped
from .problems import Calls, Programs, Ungradable

STDIN = {"stdin", "stdin_stdout"}
FUNCTION = {"functional", "function_call"}
LIVECODEBENCH = Printed(rtol=0, atol=0, indented=False)  # equal numbers, however they are written
OTHERS = Printed(indented=False)


@dataclass(frozen=True)
class Cases:
    """Inputs and outputs as the data has them."""

    inputs: Sequence[Any]
    outputs: Sequence[Any]
    function: str = ""
    """The function that is called; empty for a whole program."""
    published: bool = True
    """Whether the rows are in a published form, or plain pairs, in which white space at the beginning of a line counts."""
    livecodebench: bool = False
    """Whether LiveCodeBench's rules hold, or those of APPS and TACO."""

    def tests(self) -> Calls | Programs:
        """Raises Ungradable for values of another form."""
        if not self.inputs or len(self.inputs) != len(self.outputs):
            raise Ungradable(f"it has {len(self.inputs)} inputs and {len(self.outputs)} outputs")
        if not self.function:
            pairs = tuple((_text(typed), _text(printed)) for typed, printed in zip(self.inputs, self.outputs, strict=True))
            printed = LIVECODEBENCH if self.livecodebench else OTHERS if self.published else OWN
            return Programs(pairs, printed, cpu_seconds=6.0 if self.livecodebench else 4.0)
        inputs = tuple(map(_arguments, self.inputs))
        outputs = tuple(_value(output, given) for output, given in zip(self.outputs, self.inputs, strict=True))
        if self.livecodebench:
            return Calls(inputs, expected=outputs, accepts=called, cpu_seconds=6.0)
        return Calls(inputs, expected=outputs, accepts=called_or_wrapped, cpu_seconds=4.0)


def cases_in(value: Any, function: str = "") -> Cases | None:
    """The cases of a row, None where the value is of no such form. function: what the row says of it elsewhere.

    Raises Ungradable for cases of a kind that is not known, and of several kinds.
    """
    if isinstance(value, Mapping) and {"inputs", "outputs"} <= value.keys():  # APPS, TACO
        return Cases(_list(value["inputs"]), _list(value["outputs"]), _name(value["fn_name"]) if value.get("fn_name") else "")
    if not (isinstance(value, list) and value and all(isinstance(case, Mapping) and {"input", "output"} <= case.keys() for case in value)):
        return None
    kinds = {case.get("testtype") or case.get("type") or "stdin" for case in value}
    if others := sorted(map(str, kinds - STDIN - FUNCTION)):
        raise Ungradable(f"it has tests of the type {others[0]!r}")
    if len(kinds) > 1:
        raise Ungradable(f"it has tests of several types: {', '.join(sorted(kinds))}")
    first = value[0]
    if kinds <= FUNCTION:
        metadata = first.get("metadata")
        function = first.get("fn_name") or (metadata.get("func_name") if isinstance(metadata, Mapping) else None) or function
        function = _name(function)
    else:
        function = ""
    inputs, outputs = ([case[name] for case in value] for name in ("input", "output"))
    return Cases(inputs, outputs, function, published="testtype" in first or "type" in first, livecodebench="testtype" in first)


def _name(function: Any) -> str:
    if not isinstance(function, str) or not function.isidentifier():
        raise Ungradable("it has tests of a function without its name")
    return function


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Ungradable("its inputs or outputs are not a list")
    return value


def _text(value: Any) -> str:
    """What is typed or printed: a text, or its lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise Ungradable(f"an input or output is not text: {json.dumps(value, default=str)[:40]}")
    return value


def _arguments(given: Any) -> tuple[Any, ...]:
    """The arguments of a call: a list of them, or a text with one in JSON on each line."""
    if isinstance(given, list):
        return tuple(_int_keys(argument) for argument in given)
    if isinstance(given, str):
        return tuple(_json(line) for line in given.split("\n"))
    raise Ungradable(f"the arguments of a test are not a list: {json.dumps(given, default=str)[:40]}")


def _value(output: Any, given: Any) -> Any:
    """The right value: in JSON where the arguments are."""
    return _json(output) if isinstance(given, str) and isinstance(output, str) else _int_keys(output)


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise Ungradable(f"an argument or value is not JSON: {text[:40]!r}") from error


def _int_keys(value: Any) -> Any:
    """A dict whose keys JSON made texts of, as the loaders of APPS and TACO have it."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return [_int_keys(item) for item in value] if isinstance(value, list) else value
