"""`onelayer compare`"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..studies.compare import Measurement, TrainedRun
    from ..trainers.config import Config

# Keys without a bearing on the result: where a run computes, in which portions, how it is named and measured.
ASIDE = ("name", "pool.", "eval.", "study.", "model.device", "agent.max_batch", "trainer.seed", "trainer.checkpoint_every")
ASIDE += ("trainer.tensorboard", "trainer.keep_episodes", "trainer.tokens_per_forward", "trainer.skip_zero_rows")


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="directories of training runs, studies or evaluations")],
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="where the page goes  [default: runs/compare-TIME]")] = None,
) -> None:
    """Put runs side by side: what each policy solves, what it differs by, what it cost.

    Runs are grouped by what they were measured on. Runs that differ in their seed alone are pooled; each policy is compared with the
    base and with the first run given, on the same items. DIR gets compare.html, with the learning curves, and compare.json.

    \b
    Examples:
      onelayer compare runs/quickstart
      onelayer compare runs/grpo runs/gigpo runs/eval-alfworld-random
      onelayer compare runs/grpo-seed-* runs/dr_grpo-seed-* --output runs/grpo-or-dr_grpo
    """
    from ..common.console import Console
    from ..common.files import make_writable
    from ..pages.compare_page import render_terminal, write_comparison
    from ..studies.compare import compare as put_side_by_side

    comparison = put_side_by_side([entry for path in runs for entry in read(path)])
    directory = output or Path("runs") / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    make_writable(directory)
    page = write_comparison(comparison, directory)
    Console().print(render_terminal(comparison))
    print(f"page: {page}")


def read(path: Path) -> list[TrainedRun | Measurement]:
    """What a directory holds: a study's base and runs, a run, or an evaluation. Raises UserError where it is none, or broken."""
    from ..common.errors import UserError
    from ..evals.records import MANIFEST, read_evaluation
    from ..studies import study
    from ..studies.compare import Measurement
    from ..trainers import run

    if not path.is_dir():
        raise UserError(f"{path}: {'a file, not a directory' if path.exists() else 'no such directory'}; name a run, study or evaluation")
    if (path / study.CONFIG).is_file():
        return read_study(path)
    if (path / run.CONFIG).is_file():
        return [read_run(path)]
    if (path / MANIFEST).is_file():
        return [Measurement(path, read_evaluation(path))]
    files = f"{run.CONFIG}, {study.CONFIG} and {MANIFEST}"
    raise UserError(f"{path}: no run, study or complete evaluation, it has none of {files}; name the directory of one")


def read_study(directory: Path) -> list[TrainedRun | Measurement]:
    """The base and the runs that the study reports; while learning rates are still being tried, those runs too."""
    from ..common.errors import UserError
    from ..evals.records import MANIFEST, read_evaluation
    from ..studies import study
    from ..studies.compare import Measurement
    from ..trainers import run
    from .config import load

    config = load(str(directory / study.CONFIG), earlier=True)
    base = directory / "base"
    found: list[TrainedRun | Measurement] = [Measurement(base, read_evaluation(base))] if (base / MANIFEST).is_file() else []
    for name in study.trained_sets(config):
        inside = sorted(path.parent for path in (directory / name.replace(":", "-")).glob(f"lr-*-seed-*/{run.CONFIG}"))
        runs = [read_run(path) for path in inside]
        chosen = [entry.settings["trainer.lr"] for entry in runs if entry.measurements]
        found += [entry for entry in runs if not chosen or entry.settings["trainer.lr"] in chosen]
    if not found:
        raise UserError(f"{directory}: a study of which nothing is measured or trained yet; continue it with `onelayer study`")
    return found


def read_run(directory: Path) -> TrainedRun:
    """A run with the evaluations inside it, finished or not. Raises UserError where anything in it is broken."""
    from ..common.errors import UserError
    from ..studies.compare import TrainedRun
    from ..studies.learning_curve import LearningCurve, read_curve
    from ..trainers import run
    from .config import load

    manifest = run.read_manifest(directory)
    config = manifest.config if manifest else load(str(directory / run.CONFIG), earlier=True)
    settings = config.trainer
    metrics = directory / run.METRICS
    curve = LearningCurve(points=[])
    if manifest or metrics.exists():
        curve = read_curve(metrics, settings.prompts_per_step * settings.group_size)
    if manifest and len(curve.points) != settings.steps:
        raise UserError(
            f"{metrics}: {len(curve.points)} steps of a finished run of {settings.steps}; bring the file back, or leave this run out"
        )
    return TrainedRun(
        directory=directory,
        domain=manifest.split.rpartition("/")[0] if manifest else domain(config),
        settings=settings_of(config.model_dump(mode="json")),
        seed=settings.seed,
        steps=settings.steps,
        curve=curve,
        patch=manifest.patch_sha256 if manifest else None,
        parameters=manifest.trained_parameters if manifest else None,
        share=manifest.trained_parameters / manifest.total_parameters if manifest else None,
        seconds=manifest.seconds if manifest else None,
        measurements=read_measurements(directory, manifest.patch_sha256 if manifest else None),
    )


def read_measurements(run: Path, patch: str | None) -> list[Measurement]:
    """The evaluations inside a run; not the one that chose a study's learning rate, which flatters the rate chosen.

    Raises UserError for one that is broken or of another policy.
    """
    from ..common.errors import UserError
    from ..evals.records import MANIFEST, read_evaluation
    from ..studies import study
    from ..studies.compare import Measurement

    in_study = (run.resolve().parent.parent / study.CONFIG).is_file()
    found = []
    for path in sorted(path.parent for path in run.glob(f"*/{MANIFEST}")):
        if in_study and path.name == "validation":
            continue
        measurement = Measurement(path, read_evaluation(path))
        if measurement.manifest.patches != [patch]:
            raise UserError(f"{path}: measured something else than the run it lies in ended in; move it elsewhere, or evaluate again")
        found.append(measurement)
    return found


def domain(config: Config) -> str:
    """The suite of a run's items as its splits name it, without loading them."""
    from ..envs.config import ALFWorldConfig, OtherConfig

    env = config.env
    if isinstance(env, OtherConfig):
        return env.id
    if isinstance(env, ALFWorldConfig):
        return "ALFWorld" if env.suite == "generated" else f"ALFWorld {env.suite}"
    return env.suite


def settings_of(recipe: dict[str, Any]) -> dict[str, Any]:
    """The dotted keys of a resolved recipe that bear on the result, without the seed, as today's releases call them."""
    from ..trainers.algorithms.earlier import upgraded

    flat = flatten(upgraded(recipe))
    named = {"trainer.algorithm" if key == "trainer.algorithm.name" else key: value for key, value in flat.items()}
    return {key: value for key, value in named.items() if not key.startswith(ASIDE)}


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
