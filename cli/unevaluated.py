"""The command that evaluates a run as its recipe asks, for runs that nobody has evaluated."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from ..envs import parse_suite
from ..envs.config import EnvConfig
from ..evals.protocol import flatten
from ..studies.compare import Measurement, TrainedRun
from ..trainers.config import Config
from ..trainers.manifest import CONFIG, PATCH
from .config import compose_suite, load

OPTIONS = {"model.path": "--model", "eval.n": "--n", "eval.temperature": "--temperature", "eval.items": "--items"}
SAID_OTHERWISE = ("eval.suite", "eval.every", "eval.panel")
"""Keys that `eval` takes in another way, or not at all."""


def unevaluated(entries: Sequence[TrainedRun | Measurement]) -> list[str]:
    """A line for each finished run of which there is no evaluation among the entries: its directory, and the command."""
    measured = {patch for entry in entries if isinstance(entry, Measurement) for patch in entry.manifest.patches}
    missing = [run for run in entries if isinstance(run, TrainedRun) and run.patch and not run.measurements and run.patch not in measured]
    return [f"{run.directory}: not evaluated, so it is in no table of results; evaluate it with: {_command(run)}" for run in missing]


def _command(run: TrainedRun) -> str:
    config = load(str(run.directory / CONFIG), earlier=True)
    suite = config.eval.suite or _suite(run.suite, config.env)
    default = flatten(compose_suite(suite, [])[0].model_dump(mode="json")) | {"model.path": "tiny"}
    words = ["onelayer", "eval", "--suite", suite, "--patch", str(run.directory / PATCH), "--output", str(run.directory / "test")]
    for key, value in flatten(_of_an_evaluation(config)).items():
        if value == default.get(key) or key.startswith(SAID_OTHERWISE):
            continue
        words += [OPTIONS[key], str(value)] if key in OPTIONS else [f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _of_an_evaluation(config: Config) -> dict[str, object]:
    env = {"env"} if config.eval.suite is None else set[str]()
    return config.model_dump(mode="json", include={"model", "agent", "eval"} | env)


def _suite(trained: str, env: EnvConfig) -> str:
    """The name of a suite by that of the split that was trained on."""
    return next((name for name in (trained, trained.lower(), env.id) if type(parse_suite(name)[0]) is type(env)), trained)
