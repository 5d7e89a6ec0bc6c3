"""The table of engines, and an engine of the user's own in a package outside of the repository."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.engine import TransformersEngine
from onelayer.agents.engines import make_engine
from onelayer.agents.policy import load_base
from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.evals.records import MANIFEST

OWN = '''
"""The engine on the base's model, with a note of all that it is told."""
from onelayer.agents.engine import TransformersEngine

loaded = []

class Noted:
    returns_tokens = True

    def __init__(self, base, config):
        self.inner = TransformersEngine(base.model, base.end_ids, config.max_batch)
        self.context = self.inner.context
        self.generate, self.end_session = self.inner.generate, self.inner.end_session

    def load(self, weights):
        loaded.append(sorted(weights))
        self.inner.load(weights)

class Half:
    returns_tokens = False
    def __init__(self, base, config): pass

def broken(base, config):
    raise ValueError("no such machine")
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "outside" / "ours"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "engine.py").write_text(OWN)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder.parent)])
    for name in ("ours", "ours.engine"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def test_a_users_own_engine_trains_and_evaluates_to_the_same_bytes(package: Path, tmp_path: Path) -> None:
    """It is told of the base's weights, of nothing but the trained ones, and its samples are those of the engine inside it."""
    small = ["trainer.steps=2", "trainer.prompts_per_step=2", "trainer.group_size=2", "trainer.trained_set=layer:3", "trainer.lr=1e-3"]
    own = "agent.engine=ours.engine:Noted"
    for name, engine in (("plain", []), ("own", [own])):
        assert main(["train", *small, *engine, "--output", str(tmp_path / name)]) == 0
    assert (tmp_path / "plain" / "patch.safetensors").read_bytes() == (tmp_path / "own" / "patch.safetensors").read_bytes()
    loaded = sys.modules["ours.engine"].loaded
    assert loaded[0] == [] and len(loaded) == 4 and all(".layers.3." in name for told in loaded[1:] for name in told)
    assert main(["eval", "--suite", "arithmetic", "--n", "1", "--items", "4", own, "--output", str(tmp_path / "eval")]) == 0
    assert json.loads((tmp_path / "eval" / MANIFEST).read_text())["config"]["agent"]["engine"] == "ours.engine:Noted"


@pytest.mark.parametrize(
    ("engine", "told"),
    [
        ("ours.engine:Nothing", "ours.engine has no class Nothing"),
        ("ours.engine:Half", "Half has no context, generate, end_session, load"),
        ("ours.engine:broken", "cannot be made .ValueError: no such machine."),
        ("nowhere.at_all:Engine", "nowhere.at_all: cannot be imported"),
    ],
)
def test_what_is_wrong_with_an_own_engine_is_one_line(engine: str, told: str, package: Path) -> None:
    with pytest.raises(UserError, match=told):
        make_engine(load_base(ModelConfig()), AgentConfig(engine=engine))


def test_an_engine_is_named_or_refused() -> None:
    for name in ("transformers", "vllm", "http://localhost:8000", "https://host/v1", "package.module:Class"):
        assert AgentConfig(engine=name).engine == name
    for name in ("trnsformers", "URL", "module", "a b:C", ":C", ""):
        with pytest.raises(ValidationError, match=r"give transformers, vllm, the URL of a vLLM server or package\.module:Class"):
            AgentConfig(engine=name)
    assert isinstance(make_engine(load_base(ModelConfig()), AgentConfig()), TransformersEngine)
