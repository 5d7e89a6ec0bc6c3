"""Digests of the weights that were loaded before, so that a large base need not be hashed each time that it is loaded.

They serve loading alone. The proof at the end of a run hashes what is in memory, and a wrong digest here makes it fail.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import transformers

from ..common.errors import UserError
from ..common.files import write_atomically
from ..common.reading import read_json_object

SCHEME = 1
"""Of `weight_hashes`: another one gives other digests."""
LEAST_BYTES = 2**28
"""Files that are smaller together are hashed faster than it would be noticed."""
LARGEST_RECORD = 64 << 20
READ = (".safetensors", ".bin", ".gguf", ".json")
"""Files that weights and buffers come from."""


class KnownDigests:
    """What is recorded of the files that a model is loaded from, as they are now."""

    def __init__(self, place: Path, *how: object):
        """place: the model's directory or file. how: what else decides the values in memory, as their numeric format."""
        files = sorted(path for path in place.iterdir() if path.suffix in READ) if place.is_dir() else [place]
        states = [(str(path.resolve()), path.stat()) for path in files]
        told = [(path, state.st_size, state.st_mtime_ns, state.st_ino) for path, state in states]
        key = json.dumps([SCHEME, transformers.__version__, told, *map(str, how)])
        self._large = sum(state.st_size for _, state in states) >= LEAST_BYTES
        self._record = directory() / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def read(self, names: Sequence[str]) -> dict[str, str] | None:
        """The digest of each weight; None where they are not known."""
        if not self._large:
            return None
        with suppress(UserError, OSError):
            found = read_json_object(self._record, LARGEST_RECORD)
            if found.keys() == set(names) and all(isinstance(digest, str) and len(digest) == 64 for digest in found.values()):
                return {name: str(found[name]) for name in names}
        return None

    def write(self, digests: dict[str, str]) -> None:
        """Record them, where there is a place for it."""
        if self._large:
            with suppress(UserError, OSError):
                self._record.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._record, json.dumps(digests))


def directory() -> Path:
    """In the user's cache directory; removing it does no harm."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onelayer" / "digests"
