"""Commands carried out one after another, each in a process that is forked from one which has imported everything: what is measured is the
command and not its imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = """
import glob, json, os, signal, sys, time, traceback
import duckdb, pyarrow.parquet, transformers.models.qwen3.modeling_qwen3
import onelayer.cli.verify, onelayer.cli.eval, onelayer.agents.agent, onelayer.agents.policy, onelayer.evals.evaluator
import onelayer.studies.submissions.verification, onelayer.trainers.run, onelayer.trainers.train, onelayer.pages.viewer.server
from onelayer.cli.main import main
folder = sys.argv[1]
for line in sys.stdin:
    asked = json.loads(line)
    started = time.perf_counter()
    if not (child := os.fork()):
        signal.alarm(asked["seconds"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.chdir(asked["where"])
        try:
            code = main(asked["words"])
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    while asked["kill"] and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        pattern, size = asked["kill"]
        if any(os.path.exists(path) and os.path.getsize(path) >= size for path in glob.glob(pattern, include_hidden=True)):
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.0005)
    _, status, used = os.wait4(child, 0)
    seconds = [time.perf_counter() - started, used.ru_utime + used.ru_stime]
    print(json.dumps([os.waitstatus_to_exitcode(status), *seconds, used.ru_maxrss * 1024]), flush=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    code: int
    """Of its exit; negative: the signal that ended it."""
    seconds: float
    """Wall clock."""
    processor_seconds: float
    memory: int
    """Peak resident memory in bytes."""
    out: str
    err: str

    @property
    def traceback(self) -> bool:
        return "Traceback" in self.err

    @property
    def lines(self) -> int:
        """On standard error."""
        return len(self.err.splitlines())


class Commands:
    """The process that forks. folder: an empty one, for what the commands say."""

    def __init__(self, folder: Path):
        self._folder = folder
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder)], **pipes)

    def __call__(self, *words: object, where: Path | None = None, seconds: int = 180, kill: tuple[str, int] | None = None) -> Outcome:
        """Carry out `onelayer WORDS`.

        where: its working directory, by default this one. seconds: then SIGALRM ends it. kill: a pattern of paths and a size in bytes;
        SIGKILL ends the command as soon as a file of that pattern has that size.
        """
        assert self._process.stdin and self._process.stdout
        asked = {"words": list(map(str, words)), "where": str(where or Path.cwd()), "seconds": seconds, "kill": kill}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        measured = json.loads(self._process.stdout.readline())
        return Outcome(*measured, *((self._folder / name).read_text(errors="replace") for name in ("out", "err")))

    def close(self) -> None:
        self._process.communicate()
