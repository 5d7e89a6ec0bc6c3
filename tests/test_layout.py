"""The layout is as docs/design.md says: imports run one way, the package is `onelayer` and nothing else, the docs are up to date."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from onelayer.cli import reference

ROOT = Path(__file__).parent.parent
PACKAGES = ["common", "envs", "agents", "evals", "trainers", "studies", "pages", "cli"]  # each may import those before it
FOREIGN = {"common": {"torch", "transformers"}, "envs": {"torch", "transformers"}}


def imported_names(file: Path, source: str) -> Iterator[tuple[int, str]]:
    """Line and full name of what `source`, the text of ROOT/`file`, imports."""
    package = ".".join(["onelayer", *file.parent.parts])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def imports_against_the_rule(file: Path, source: str) -> Iterator[str]:
    """Imports in `source` that run upwards, or that bring a model library into common or envs."""
    later = PACKAGES[PACKAGES.index(file.parts[0]) + 1 :]
    for line, name in imported_names(file, source):
        top, _, rest = name.partition(".")
        if (top == "onelayer" and rest.partition(".")[0] in later) or top in FOREIGN.get(file.parts[0], ()):
            yield f"{file}:{line}: {name}"


def test_imports_run_one_way() -> None:
    files = [file.relative_to(ROOT) for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert {file.parts[0] for file in files} == set(PACKAGES)
    assert [line for file in files for line in imports_against_the_rule(file, (ROOT / file).read_text())] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    paths = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    names = [".".join(["onelayer", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__") for file in paths]
    files = dict(zip(names, paths, strict=True))
    imports = {}
    for module, file in files.items():
        there = imported_names(file.relative_to(ROOT), file.read_text())
        found = {name if name in files else name.rpartition(".")[0] for _, name in there}
        imports[module] = (found & files.keys()) - {module}
    list(TopologicalSorter(imports).static_order())  # raises CycleError with the modules of a circle


def test_files_are_of_a_size_to_be_read() -> None:
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    long = {name for name in files if len((ROOT / name).read_text().splitlines()) > 400}
    assert long <= {"tests/envs/sandbox/attacks.py"}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("agents/policy.py", "from ..trainers.config import Config"),
        ("agents/tiny/pretrain.py", "def f():\n    from ...evals import statistics"),
        ("evals/records.py", "import onelayer.cli.main"),
        ("evals/records.py", "from onelayer import trainers"),
        ("envs/__init__.py", "from .. import agents"),
        ("envs/math/env.py", "import torch.nn"),
        ("envs/math/env.py", "if True:\n    from transformers import AutoTokenizer"),
    ],
)
def test_an_import_upwards_is_found(file: str, source: str) -> None:
    assert len(list(imports_against_the_rule(Path(file), source))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "import onelayer.envs",
        "from onelayer.cli.main import main; main(['train', '--help'])",
        "import onelayer.evals.suites, onelayer.studies.store, onelayer.studies.compare, onelayer.studies.leaderboard.build",
    ],
)
def test_environments_help_and_readers_bring_no_torch(code: str) -> None:
    check = "import sys; assert not {'torch', 'transformers'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True, stdout=subprocess.DEVNULL)


def test_the_wheel_holds_the_package_and_works(tmp_path: Path) -> None:
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "tests", "bench")
    shutil.copytree(ROOT, tmp_path / "tree", symlinks=True, ignore=unwanted)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        tmp_path / "tree",
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"onelayer", next(top for top in tops if top.endswith(".dist-info"))}
    sources = {file.relative_to(ROOT).as_posix() for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    shipped = {file.relative_to(ROOT).as_posix() for pattern in SHIPPED for file in ROOT.glob(pattern) if file.is_file()}
    assert "configs/quickstart.yaml" in shipped
    assert "agents/tiny/model/model.safetensors" in shipped
    assert {f"onelayer/{name}" for name in sources | shipped} <= set(names)
    check = (
        "import onelayer, sys; from onelayer.cli.config import load; from onelayer.agents import tiny; load('quickstart'); "
        "print(tiny.PATH); from onelayer.common.documentation import page; print(page('vllm'))"
    )
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PYTHONDONTWRITEBYTECODE": "1"}
    found = subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    model, page = map(Path, found.stdout.splitlines())
    assert model.is_relative_to(tmp_path) and page.is_relative_to(tmp_path)
    assert (model / "config.json").is_file() and page.is_file()


SHIPPED = ["configs/**/*.yaml", "docs/*.md", "agents/tiny/model/*", "pages/templates/*"]


def test_the_configuration_page_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    reference.main()
    assert capsys.readouterr().out == (ROOT / "docs" / "configuration.md").read_text(), "run `make docs`"
