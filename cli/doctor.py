"""`onelayer doctor`"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from ..agents import tiny
from ..common.documentation import page
from ..common.text import counted

REQUIRED = ("transformers", "tokenizers", "safetensors", "gymnasium", "math-verify", "pydantic", "numpy", "scipy", "plotly", "jinja2")
OPTIONAL = {  # distribution -> what it is for, the command that brings it
    "tensorboard": ("training curves", "pip install 'onelayer[tensorboard]'"),
    "datasets": ("hub suites", "pip install 'onelayer[hub]'"),
    "peft": ("training of lora:R", "pip install 'onelayer[lora]'"),
    "alfworld": ("games", "make alfworld"),
    "textworld": ("games", "make alfworld"),
    "evalplus": ("code", "make code"),
    "reasoning-gym": ("reasoning_gym:TASK", "pip install 'onelayer[reasoning]'"),
    "lm_eval": ("lm-eval:TASK", "pip install 'onelayer[lm-eval]'"),
    "vllm": ("GPU rollouts", "pip install 'onelayer[vllm]' in an environment of its own"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked for: `found` is None where it is missing, `remedy` the command that brings it."""

    what: str
    found: str | None
    remedy: str = ""
    required: bool = False


def doctor() -> None:
    """Look for everything that onelayer uses, and name the command that installs what is missing.

    The exit code is 1 where something that every command needs is missing, else 0.

    \b
    Example:
      onelayer doctor
    """
    from rich import box
    from rich.markup import escape

    from ..common.console import Console, Table

    findings = list(examine())
    table = Table("what", "found", "install with", title="onelayer doctor", title_justify="left", box=box.SIMPLE_HEAD)
    for finding in findings:
        if finding.found is not None:
            table.add_row(finding.what, escape(finding.found), "")
        else:
            missing = "[bold red]missing, required[/]" if finding.required else "[yellow]missing, optional[/]"
            table.add_row(finding.what, missing, escape(finding.remedy))
    Console(emoji=False).print(table)
    if any(finding.required and finding.found is None for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Everything worth knowing about this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("Python", platform.python_version())
    yield Finding("onelayer", _version("onelayer") or "not installed, run from its source", "make install")
    yield Finding("torch", _torch(), "pip install torch==2.13.0", required=True)
    for name in REQUIRED:
        yield Finding(name, _version(name), f"pip install {name}", required=True)
    for name, folder in tiny.PATHS.items():
        yield Finding(f"base {name}", _size(folder), "make tiny", required=True)
    for name, (purpose, remedy) in OPTIONAL.items():
        yield Finding(f"{name} ({purpose})", _version(name), remedy)
    yield Finding("sandbox (code)", _sandbox(), f"a Linux kernel with Landlock, seccomp or user namespaces ({page('sandbox')})")
    yield Finding("ONELAYER_DATA", _data(), "export ONELAYER_DATA=DIR (a folder for each suite)")
    yield Finding("C++ compiler, cmake", _compiler(), "apt install build-essential cmake")
    yield Finding("cores", f"{cores} usable, OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}")


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _torch() -> str | None:
    try:
        torch = import_module("torch")
    except ImportError:
        return None
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return f"{torch.__version__}, {', '.join(devices) or 'no CUDA device'}, {counted(torch.get_num_threads(), 'thread')}"


def _size(model: Path) -> str | None:
    files = [file for file in model.glob("*") if file.is_file()]
    if not any(file.suffix == ".safetensors" for file in files):
        return None
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _sandbox() -> str | None:
    try:
        from ..envs.sandbox import describe
    except ImportError:
        return None
    return describe()


def _data() -> str | None:
    folder = os.environ.get("ONELAYER_DATA")
    if not folder:
        return None
    try:
        from ..envs.math.sources import SUITES
    except ImportError:
        return folder
    there = {suite: all((Path(folder) / suite / f"{kind}.jsonl").is_file() for kind in files.files) for suite, files in SUITES.items()}
    found = ", ".join(suite for suite in there if there[suite])
    missing = ", ".join(suite for suite in there if not there[suite])
    return f"{folder}: {found or 'no suite'}" + (f"; not there: {missing}" if missing else "")


def _compiler() -> str | None:
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return f"{compiler}, {shutil.which('cmake')}" if compiler and shutil.which("cmake") else None
