"""Real commands as processes, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from onelayer.evals.samples import SAMPLES, read_table

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
DEADLY = """
import os, signal, sys
from pathlib import Path

name, moment, *arguments = sys.argv[1:]
replace = Path.replace

def deadly_replace(self, target):
    mine = Path(target).name == name
    if mine and moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(self, target)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)

Path.replace = deadly_replace
from onelayer.cli.main import main
raise SystemExit(main(arguments))
"""
SMALL_DISK = """
import resource, sys

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from onelayer.cli.main import main
raise SystemExit(main(sys.argv[2:]))
"""
"""A command that can write no file beyond a size: what a full disk does to it, but for the reason."""


def start(*arguments: object, program: tuple[str, ...] = ("-m", "onelayer")) -> subprocess.Popen[str]:
    """A command, begun."""
    words = [sys.executable, *program, *map(str, arguments)]
    return subprocess.Popen(words, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def onelayer(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command, carried out; its exit code is as expected."""
    process = start(*arguments)
    return finish(process, code)


def finish(process: subprocess.Popen[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate()
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    return subprocess.CompletedProcess(process.args, code, stdout, stderr)


def dies_at(name: str, moment: str, *arguments: object) -> None:
    """Carry out a command that is killed (SIGKILL) right before or after the file `name` gets its new content."""
    finish(start(name, moment, *arguments, program=("-c", DEADLY)), -signal.SIGKILL)


def stop_when(process: subprocess.Popen[str], seen: Callable[[], bool], number: int, delay: float = 0) -> None:
    """Send the signal `delay` seconds after `seen()` becomes true; after a SIGKILL, wait for the end."""
    while not seen():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.communicate()


def message(stderr: str) -> str:
    """The one line of the command itself, beside the progress display."""
    (line,) = [line for line in stderr.splitlines() if line.startswith("onelayer: ")]
    return line


def replies(directory: Path, decoding: str | None = None) -> list[dict]:
    """The records of a complete evaluation, without what names the policy."""
    table = read_table(directory / SAMPLES).drop_columns(["key"]).to_pylist()
    return [row for row in table if decoding in (None, row["decoding"])]


def lines(path: Path) -> list[dict]:
    """The complete lines of a JSON-lines file that may be being written."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []


def figures(directory: Path) -> dict:
    """report.json of a study without what a clock and a gauge of memory say."""

    def timeless(value: object) -> object:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if not (key.endswith("seconds") or "memory" in key)}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    report = timeless(json.loads((directory / "report.json").read_text()))
    assert isinstance(report, dict)
    return report
