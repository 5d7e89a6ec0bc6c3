"""Files that are written whole or not at all, in directories that one process at a time writes to."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file, its directories too: a reader sees the old content or the new, never half of it.

    It is written beside the target, flushed to disk and renamed. Raises UserError where that can not be done.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_new(directory: Path) -> None:
    """Raises UserError where the directory already holds something."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: {'not empty' if directory.is_dir() else 'a file'}; name a new directory")


def make_writable(directory: Path) -> None:
    """Make the directory. Raises UserError where files can not be written there: now, not after minutes of work."""
    with _writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Make the directory, and keep other processes out of it until the `with` ends, however this process ends.

    What writes that were killed left behind is removed. Raises UserError where it can not be written or is in use.
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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place or free this one") from error
