"""Tests that need vLLM: `make test-vllm` runs them, in an environment of its own. Without vLLM they fail, they are never skipped."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vllm_engines import MakeEngine, at, here

from onelayer.agents import tiny
from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import Base, load_base
from onelayer.agents.vllm_worker import WORKER

DEFAULTS = {"temperature": 0.3, "top_k": 2, "top_p": 0.5, "min_p": 0.2, "repetition_penalty": 1.8}
"""Sampling that a server takes over from the model's generation_config.json, for requests that do not say otherwise."""


@pytest.fixture
def base() -> Base:
    return load_base(ModelConfig(device="cpu"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Callable[[], str], Callable[[], str]]]:
    """Two servers of the tiny base, begun together; each says its URL as soon as it answers.

    The first is started as docs/vllm.md says, the second as it comes, with a bound on all replies.
    """
    folder = tmp_path_factory.mktemp("servers")
    model = Path(shutil.copytree(tiny.PATH, folder / "model"))
    found = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(found | DEFAULTS))
    options = ["--logprobs-mode", "processed_logprobs", "--worker-extension-cls", WORKER]
    shorter = ["--override-generation-config", '{"max_new_tokens": 25}']
    with (
        serve(model, folder / "first.log", options, {"VLLM_SERVER_DEV_MODE": "1"}) as first,
        serve(model, folder / "second.log", shorter, {"VLLM_SERVER_DEV_MODE": "0"}) as second,
    ):
        yield first, second


@pytest.fixture
def server(servers: tuple[Callable[[], str], Callable[[], str]]) -> str:
    """A server that takes over weights, and reports the logprobs of the distribution sampled from."""
    return servers[0]()


@pytest.fixture
def plain_server(servers: tuple[Callable[[], str], Callable[[], str]]) -> str:
    """A server that takes over no weights, reports logprobs of temperature 1, and ends every reply after 25 tokens."""
    return servers[1]()


@pytest.fixture(params=["in process", "server"])
def make_engine(request: pytest.FixtureRequest) -> MakeEngine:
    if request.param == "in process":
        return here
    url = request.getfixturevalue("server")
    return lambda base: at(base, url)


@contextmanager
def serve(model: Path, log: Path, options: list[str], settings: dict[str, str]) -> Iterator[Callable[[], str]]:
    """Start a server, and end it; what it gives waits until the server answers, and then is its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-num-seqs", "64", "--enforce-eager", *options]
    here = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

    def url() -> str:
        while not healthy(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()[-4000:]
            time.sleep(0.2)
        return f"http://127.0.0.1:{port}"

    with log.open("wb") as output:
        process = subprocess.Popen(command, env=os.environ | here | settings, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield url
        finally:
            process.terminate()
            process.wait()


def healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as reply:
            return reply.status == 200
    except OSError:
        return False
