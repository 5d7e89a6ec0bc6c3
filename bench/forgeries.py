"""Forged submissions: each is made of an honest one, all hashes computed anew, and given to `onelayer verify`.

    OMP_NUM_THREADS=1 python bench/forgeries.py [--only WORDS]

Prints for each whether it was refused, in how many seconds and at what peak memory, then the worst. It is a fault where one is accepted,
ends in a traceback, or takes more than 1 GiB or 30 s of processor.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from forgery_table import LAYER, NAMES, NONSENSE, PATCH, REGENERATE, SIZES, SUBMISSION, edit

from onelayer.evals.records import MANIFEST

COMMAND = [sys.executable, "-c", "import sys; from onelayer.cli.main import main; sys.exit(main(sys.argv[1:]))"]
MEMORY, SECONDS = 1 << 30, 30.0


def honest(folder: Path) -> Path:
    """A base and a trained layer on 40 items, packed and unpacked."""
    train = ["train", "quickstart", "trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]
    suite = ["eval", "--suite", "arithmetic", "--items", "40", "--n", "2", "--output"]
    for words in (
        [*train, "--output", "runs/layer"],
        [*suite, "runs/base"],
        [*suite, "runs/layer/test", "--patch", f"runs/layer/{PATCH}"],
        ["submit", "runs", "--output", "honest.tar"],
    ):
        subprocess.run([*COMMAND, *words], cwd=folder, check=True, capture_output=True)
    with tarfile.open(folder / "honest.tar") as archive:
        archive.extractall(folder / "honest", filter="data")
    return folder / "honest"


def seal(directory: Path, output: Path) -> None:
    """Pack a directory as a submission that lists its files as they are."""
    paths = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    paths.pop(SUBMISSION)
    files = {}
    for name, path in paths.items():
        with path.open("rb") as file:
            files[name] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}
    edit(directory / SUBMISSION, files=files)
    with tarfile.open(output, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, path in [(SUBMISSION, directory / SUBMISSION), *paths.items()]:
            header = tarfile.TarInfo(name)
            header.size = path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(header, file if header.size else io.BytesIO())


class Verifier:
    """A process that has imported everything, and forks one for each archive: what is measured is the verification and not the imports."""

    PROGRAM = """
import json, os, signal, sys, time, traceback
import duckdb, pyarrow.parquet, transformers.models.qwen3.modeling_qwen3
import onelayer.cli.verify, onelayer.studies.submissions.verification, onelayer.trainers.run
from onelayer.cli.main import main
for line in sys.stdin:
    started = time.perf_counter()
    if not (child := os.fork()):
        signal.alarm(180)
        errors = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 2)
        os.dup2(errors, 1)
        try:
            code = main(["verify", *json.loads(line)])
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status, used = os.wait4(child, 0)
    seconds = [time.perf_counter() - started, used.ru_utime + used.ru_stime]
    print(json.dumps([os.waitstatus_to_exitcode(status), *seconds, used.ru_maxrss * 1024]), flush=True)
"""

    def __init__(self, folder: Path):
        self._errors = folder / "errors.txt"
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, "-c", self.PROGRAM, str(self._errors)], **pipes)

    def __call__(self, *words: str) -> tuple[int, float, float, int, str]:
        """Exit code, seconds, processor seconds, peak resident memory in bytes and the end of what was said."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(words), file=self._process.stdin, flush=True)
        code, seconds, cpu, memory = json.loads(self._process.stdout.readline())
        said = " ".join(self._errors.read_text(errors="replace").split())
        return code, seconds, cpu, memory, ("Traceback: " if "Traceback" in said else "") + said[-200:]

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="forgeries with these words in their names")
    options = parser.parse_args()
    faults, found = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = honest(folder)
        verify = Verifier(folder)
        for words in ([], ["--regenerate", "5"]):
            code, seconds, cpu, memory, _ = verify(str(folder / "honest.tar"), *words)
            print(f"honest {' '.join(words)}: code {code}, {seconds:.1f} s, {cpu:.1f} s of processor, {memory >> 20} MiB", flush=True)
        (folder / "endless.jsonl").symlink_to("/dev/zero")
        os.mkfifo(folder / "pipe.jsonl")
        for name, doctor in [*NAMES.items(), *SIZES.items(), *NONSENSE.items(), *REGENERATE.items()]:
            if options.only not in name:
                continue
            forged, archive = folder / "forged", folder / "forged.tar"
            shutil.copytree(source, forged)
            doctor(forged)
            manifest = forged / LAYER / MANIFEST
            for word, place in (("ENDLESS", "endless.jsonl"), ("PIPE", "pipe.jsonl")):
                manifest.write_text(manifest.read_text().replace(f'"{word}"', f'"{folder / place}"'))
            seal(forged, archive)
            shutil.rmtree(forged)
            size = archive.stat().st_size
            code, seconds, cpu, memory, said = verify(str(archive), *(["--regenerate", "1"] if name in REGENERATE else []))
            archive.unlink()
            bad = code != 2 or "Traceback" in said or memory > MEMORY or cpu > SECONDS
            faults += [name] * bad
            found.append((seconds, cpu, memory, name))
            start = f"{'FAULT ' if bad else ''}{name}: {size >> 10} KiB"
            print(f"{start}, code {code}, {seconds:.1f} s, {cpu:.1f} s of processor, {memory >> 20} MiB: {said}", flush=True)
        verify.close()
    print(f"{len(found)} forgeries, {len(faults)} faults: {', '.join(faults) or 'none'}")
    for at, unit in ((0, "s"), (1, "s of processor"), (2, "bytes")):
        worst = max(found, key=lambda one: one[at])
        print(f"worst: {worst[at]:.1f} {unit} ({worst[3]})")


if __name__ == "__main__":
    main()
