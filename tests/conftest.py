"""What all tests share: no hub, no time limits, and a loud account of the tests that were left out for want of data."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # golden values and exact comparisons are those of float32 on a CPU
settings.register_profile("onelayer", deadline=None)
settings.load_profile("onelayer")

_without_data: list[str] = []


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of published problem sets; tests that take it are marked `data`."""
    folder = os.environ.get("ONELAYER_DATA")
    if not folder:
        pytest.fail('ONELAYER_DATA is not set; set it, or leave these tests out with -m "not data"')
    return Path(folder)


def pytest_deselected(items: Iterable[pytest.Item]) -> None:
    _without_data.extend(item.nodeid for item in items if item.get_closest_marker("data"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:  # one of several processes: all leave out the same
        output["without_data"] = _without_data


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _without_data[:] = getattr(node, "workeroutput", {}).get("without_data", _without_data)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _without_data and not os.environ.get("ONELAYER_DATA"):
        terminalreporter.section(f"{len(_without_data)} tests left out: they need ONELAYER_DATA, which is not set")
        for name in _without_data:
            terminalreporter.write_line(f"left out {name}")
