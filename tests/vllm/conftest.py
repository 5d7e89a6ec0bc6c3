"""Tests that need vLLM: `make test-vllm` runs them, in an environment of its own. Without vLLM they fail, they are never skipped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onelayer.agents import tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import Base, load_base
from onelayer.agents.vllm_engine import WORKER, VllmEngine, in_process, on_server

MakeEngine = Callable[[Base], VllmEngine]


@pytest.fixture
def base() -> Base:
    return load_base(ModelConfig(device="cpu"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as docs/vllm.md starts it, on the tiny base."""
    options = ["--logprobs-mode", "processed_logprobs", "--worker-extension-cls", WORKER]
    yield from serve(tmp_path_factory.mktemp("server"), options, {"VLLM_SERVER_DEV_MODE": "1"})


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server as it comes: it takes over no weights, and reports logprobs of temperature 1."""
    yield from serve(tmp_path_factory.mktemp("server"), [], {"VLLM_SERVER_DEV_MODE": "0"})


@pytest.fixture(params=["in process", "server"])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    if request.param == "in process":
        return vllm
    url = request.getfixturevalue("server")
    return lambda base: on_server(base, url, max_batch=64)


def vllm(base: Base) -> VllmEngine:
    return in_process(base, max_batch=64, kv_cache_gib=0.25)


def serve(folder: Path, options: list[str], settings: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny.PATH), "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "64", "--enforce-eager", *options]
    here = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | here | settings, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not healthy(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None, (folder / "log").read_text()[-4000:]
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as reply:
            return reply.status == 200
    except OSError:
        return False
