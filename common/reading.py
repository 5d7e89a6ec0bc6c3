"""Files that others made, read within limits: what is longer or deeper than it may be, or no regular file, is refused before it takes
memory or time.

The `parse_` functions raise ValueError, for whoever knows the line to name; the `read_` functions raise UserError with the file.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from .errors import UserError

LARGEST_YAML = 1 << 20  # bytes
MOST_YAML_VALUES = 20_000
DEEPEST_YAML = 50
LARGEST_LINES = 4 << 30  # bytes of a file that is read line by line
LARGEST_SAFETENSORS_HEADER = 100 << 20  # bytes, as the format has it


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file. Raises UserError for any other, as a pipe, where reading would wait; OSError where it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path}: no regular file; put a file in its place")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes. Raises UserError for any other, OSError where it cannot be read."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise UserError(f"{path}: {size} bytes, more than the {limit} that are read; name another file")
        return file.read(size)


def parse_json(text: str | bytes) -> Any:
    """JSON as Python values. Raises ValueError for what is none, for numbers of thousands of digits, and for what is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json_object(path: Path, limit: int) -> dict[str, Any]:
    """The JSON object that a file holds. Raises UserError for any other content, OSError where it cannot be read."""
    return _mapping(path, limit, parse_json, "JSON")


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises UserError for any other content, OSError where it cannot be read."""
    return _mapping(path, LARGEST_YAML, parse_yaml, "YAML")


def _mapping(path: Path, limit: int, parse: Callable[[bytes], Any], name: str) -> dict[str, Any]:
    data = read_bytes(path, limit)
    try:
        found = parse(data)
    except ValueError as error:
        raise UserError(f"{path}: not {name} ({error}); bring the file back") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: a {type(found).__name__}, and it must be a mapping of keys; bring the file back")
    return found


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, within limits, and with the scalars of YAML 1.2: 1e-5 is a number, `no` is a word."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own attribute)

    def __init__(self, text: str):
        super().__init__(text)
        self._values = self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._values += 1
        self._depth += 1
        problem = ""
        if self.check_event(yaml.AliasEvent):
            problem = "aliases (*name) are not understood here"
        elif self._depth > DEEPEST_YAML:
            problem = f"nested more than {DEEPEST_YAML} levels deep"
        elif self._values > MOST_YAML_VALUES:
            problem = f"more than {MOST_YAML_VALUES} values"
        if problem:
            raise ComposerError(None, None, problem, self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


YAML_SCALARS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
for _tag, _pattern in YAML_SCALARS.items():
    _YamlLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), ["", *"~nNtTfF+-.0123456789"])


def compose_yaml(text: str) -> yaml.Node | None:
    """YAML as nodes, which know their lines; None where it is empty. Raises yaml.YAMLError for none, for aliases, and for too much."""
    if len(text) > LARGEST_YAML:
        raise yaml.YAMLError(f"{len(text)} characters, more than the {LARGEST_YAML} that are read")
    return yaml.compose(text, _YamlLoader)


def yaml_scalar(node: yaml.ScalarNode) -> Any:
    """A scalar as a Python value. Raises ValueError for a number that cannot be read, and for a tag that is not one of `YAML_SCALARS`."""
    match node.tag.removeprefix("tag:yaml.org,2002:"):
        case "null":
            return None
        case "bool":
            return node.value.lower() == "true"
        case "int" | "float" as kind:
            try:
                return int(node.value) if kind == "int" else float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
            except ValueError as error:
                raise ValueError(f"{node.value[:40]} cannot be read as a number") from error
        case "str":
            return node.value
        case tag:
            raise ValueError(f"the tag {tag} is not understood; write a plain value")


def parse_yaml(text: str | bytes) -> Any:
    """YAML as Python values. Raises ValueError, in one line, for what is none, has aliases or tags, or is too much."""
    try:
        node = compose_yaml(text.decode() if isinstance(text, bytes) else text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    return None if node is None else _plain(node)


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        if not all(isinstance(name, yaml.ScalarNode) for name, _ in node.value):
            raise ValueError(f"line {node.start_mark.line + 1}: a key must be a word")
        return {name.value: _plain(item) for name, item in node.value}
    assert isinstance(node, yaml.ScalarNode)
    return yaml_scalar(node)


def safetensors_header(path: Path, limit: int = LARGEST_SAFETENSORS_HEADER) -> dict[str, Any]:
    """The JSON that a safetensors file begins with: metadata, and type, shape and place of every tensor.

    Raises UserError for a header of more than `limit` bytes or of another form, and where the file ends before a tensor does; OSError
    where it cannot be read.
    """
    with open_regular(path) as file:
        total, size = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
        if size > limit:
            raise UserError(f"{path}: cannot be read as safetensors: a header of {size} bytes, more than {limit}; fetch it again")
        try:
            header = parse_json(file.read(size))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            end = max(ends, default=0)
            if not isinstance(end, int) or 8 + size + end != total:
                raise ValueError(f"{total} bytes, and its header tells of {8 + size + end}")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: cannot be read as safetensors: damaged or cut ({error}); fetch it again") from error
    return header
