"""Files that are written whole or not at all, in directories that one process at a time writes to."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file, its directories too: a reader sees the old content or the new, never half of it. Raises as `atomically` does."""
    with atomically(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Where to write what is to become the file: beside it; then it is flushed to disk and renamed.

    Raises UserError where that cannot be done.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_new(directory: Path) -> None:
    """Raises UserError where the directory already holds something."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: {'not empty' if directory.is_dir() else 'a file'}; name a new directory")


def make_writable(directory: Path) -> None:
    """Make the directory. Raises UserError where files cannot be written there: now, not after minutes of work."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            reason = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(reason, os.strerror(reason))


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Make the directory, and keep other processes out of it until the `with` ends, however this process ends.

    What writes that were killed left behind is removed. Raises UserError where it cannot be written or is in use.
    """
    make_writable(directory)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{directory}: another process is at work here; wait for it, or end it") from error
        except OSError:
            pass  # a file system without locks, as some clusters have: there it is up to the user
        for leftover in directory.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


class GrowingFile:
    """A file that grows by lines, each handed to the system at once, which keeps it when the process is killed."""

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file

    def write(self, line: bytes) -> None:
        """Append a line with its line break, whole or not at all. Raises UserError where that cannot be done."""
        with writing(self._path):
            end = os.fstat(self._file.fileno()).st_size
            try:
                while line:
                    line = line[self._file.write(line) :]
            except OSError:
                os.truncate(self._file.fileno(), end)
                raise

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        with writing(self._path):
            os.fsync(self._file.fileno())


@contextmanager
def growing(path: Path, end: int) -> Iterator[GrowingFile]:
    """Go on with the file after its first `end` bytes; the rest of it is removed. Raises UserError where it cannot be written."""
    with writing(path):
        file = path.open("ab", buffering=0)
    with file:
        os.truncate(file.fileno(), end)
        yield GrowingFile(path, file)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses while `path` is written becomes a UserError that names it, and not the file beside it."""
    try:
        yield
    except OSError as error:
        remedy = "make this one writable" if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else "free this one"
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place or {remedy}") from error
