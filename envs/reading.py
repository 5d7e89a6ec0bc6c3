"""Files that others made, read within limits: what is longer or deeper than it may be, or no regular file, is refused before it takes
memory or time."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

from .errors import UserError


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
        return file.read(limit)


def parse_json(text: str | bytes) -> Any:
    """JSON as Python values. Raises ValueError for what is none, for numbers of thousands of digits, and for what is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def safetensors_header_size(path: Path) -> int:
    """Bytes of the JSON that a safetensors file begins with, by its first 8 bytes, which are all that is read.

    Raises UserError for no regular file, OSError where it cannot be read.
    """
    with open_regular(path) as file:
        return int.from_bytes(file.read(8), "little")
