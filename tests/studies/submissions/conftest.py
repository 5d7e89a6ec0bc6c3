"""A base and a trained layer on a few items, and the archive of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from forged_submissions import EACH, ITEMS

from onelayer.agents.config import ModelConfig
from onelayer.agents.policy import Base, load_base
from onelayer.cli.main import main
from onelayer.studies.store import PATCH
from onelayer.studies.submissions.archive import unpack
from onelayer.studies.submissions.verification import Tools

TRAIN = ["train", "quickstart", "trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3"]


@pytest.fixture(scope="session")
def base() -> Base:
    return load_base(ModelConfig())


@pytest.fixture(scope="session")
def tools(base: Base) -> Tools:
    return Tools(load_base=lambda config: base, foreign=True)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base and a trained layer on a few items."""
    root = tmp_path_factory.mktemp("runs")
    suite = ["eval", "--suite", "arithmetic", "--items", str(ITEMS), "--n", str(EACH), "--output"]
    assert main([*TRAIN, "--output", str(root / "layer")]) == 0
    assert main([*suite, str(root / "base")]) == 0
    assert main([*suite, str(root / "layer" / "test"), "--patch", str(root / "layer" / PATCH)]) == 0
    return root


@pytest.fixture(scope="session")
def archive(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "mine.tar"
    assert main(["submit", str(runs), "--output", str(path)]) == 0
    return path


@pytest.fixture
def opened(archive: Path, tmp_path: Path) -> Path:
    """The archive's files, to be doctored."""
    unpack(archive, tmp_path / "opened")
    return tmp_path / "opened"
