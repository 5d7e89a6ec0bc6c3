"""Synthetic studies for the tests of this package, and servers of the viewer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import viewed
from made_studies import arms, samples, study
from served_pages import Ask, serving, wait_for

from onelayer.pages.viewer import run_index

__all__ = ["arms", "samples", "study"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return viewed.make_viewed(tmp_path_factory.mktemp("viewed"))


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Ask a server of tmp_path/runs."""
    monkeypatch.setattr(run_index, "LOOK_EVERY", 0.0)
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "runs") as found:
        yield found


@pytest.fixture(scope="module")
def all_of_it(made: Path) -> Iterator[Ask]:
    with serving(made) as found:
        wait_for(lambda: "being computed" not in found("/profiles")[1])
        yield found
