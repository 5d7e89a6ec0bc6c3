"""Files appear whole or not at all, and a directory has one writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onelayer.common.errors import UserError
from onelayer.common.files import owned, write_atomically, writing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    before = os.umask(0o022)
    try:
        write_atomically(path, "old")
        write_atomically(path, b"n\xffw")
    finally:
        os.umask(before)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"n\xffw", 0o644)
    assert list(path.parent.iterdir()) == [path]


def test_where_nothing_can_be_written_the_place_and_a_remedy_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"cannot be written \(.+\); choose another place"):
            write_atomically(path, "text")
    with pytest.raises(UserError, match="cannot be written"), owned(tmp_path / "file"):
        pass
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_read_only_place_says_so(tmp_path: Path) -> None:
    for code in (errno.EROFS, errno.EACCES):
        told = rf"{tmp_path}: cannot be written \({os.strerror(code)}\); choose another place or make this one writable"
        with pytest.raises(UserError, match=told), writing(tmp_path):
            raise OSError(code, os.strerror(code), str(tmp_path / ".file.1.tmp"))


def test_a_growing_file_has_whole_lines_only(tmp_path: Path) -> None:
    """Where the disk is full in the middle of a line, what of it was written is taken back."""
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntorn")
    code = "import resource, sys; from pathlib import Path; from onelayer.common.files import growing\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (12, resource.RLIM_INFINITY))\n"
    code += "with growing(Path(sys.argv[1]), 4) as file: file.write(b'two\\n'); file.sync(); file.write(b'three\\n')"
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert f"UserError: {path}: cannot be written (File too large)" in found.stderr
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_directory_has_one_owner_until_that_dies(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    code = "import sys, time; from pathlib import Path; from onelayer.common.files import owned\n"
    code += "with owned(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(UserError, match="another process is at work here"), owned(directory):
            pass
        (directory / ".half.txt.1.tmp").write_text("what a killed write leaves")
        (directory / ".hidden").write_text("a user's own")
        process.send_signal(signal.SIGKILL)
    with owned(directory):
        assert [path.name for path in directory.iterdir()] == [".hidden"]
    with owned(directory), owned(directory / "inner"):
        pass
