"""What a directory holds for a comparison: the base and runs of a study or of several, a run with its evaluations, or an evaluation."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ..common.errors import UserError, first_problem
from ..common.reading import read_yaml_mapping
from ..evals.records import MANIFEST, read_evaluation
from ..trainers.config import settings_of
from ..trainers.manifest import CONFIG, METRICS, RecordedConfig, read_manifest
from ..trainers.metrics import read_metrics
from .compare import Measurement, TrainedRun
from .learning_curve import learning_curve
from .store import STUDY, trained_on


def read(path: Path) -> list[TrainedRun | Measurement]:
    """Raises UserError for a directory that holds none of these, and where one is broken."""
    if not path.is_dir():
        raise UserError(f"{path}: {'a file, not a directory' if path.exists() else 'no such directory'}; name a run, study or evaluation")
    if (path / STUDY).is_file():
        return read_study(path)
    if (path / CONFIG).is_file():
        return [read_run(path)]
    if (path / MANIFEST).is_file():
        return [Measurement(path, read_evaluation(path))]
    if studies := sorted(found.parent for found in path.glob(f"*/{STUDY}")):
        return [entry for study in studies for entry in read_study(study)]
    raise UserError(
        f"{path}: no run, study or complete evaluation, it has none of {CONFIG}, {STUDY} and {MANIFEST}; name the directory of one"
    )


def read_study(directory: Path) -> list[TrainedRun | Measurement]:
    """The base and the runs that the study reports; while learning rates are still being tried, those runs too."""
    base = directory / "base"
    found: list[TrainedRun | Measurement] = [Measurement(base, read_evaluation(base))] if (base / MANIFEST).is_file() else []
    for name in ("full", *_trained_sets(directory / STUDY)):
        inside = sorted(path.parent for path in (directory / name.replace(":", "-")).glob(f"lr-*-seed-*/{CONFIG}"))
        runs = [read_run(path) for path in inside]
        chosen = [run.settings["trainer.lr"] for run in runs if run.measurements]
        found += [run for run in runs if not chosen or run.settings["trainer.lr"] in chosen]
    if not found:
        raise UserError(f"{directory}: a study of which nothing is measured or trained yet; continue it with `onelayer study`")
    return found


def _trained_sets(path: Path) -> list[str]:
    names = (read_yaml_mapping(path).get("study") or {}).get("trained_sets")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: study.trained_sets is not a list of names; bring the file back")
    return names


def read_run(directory: Path) -> TrainedRun:
    """A run with the evaluations inside it, finished or not."""
    manifest, path = read_manifest(directory), directory / METRICS
    config = manifest.config if manifest else _recorded(directory / CONFIG)
    trainer, recipe = config.trainer, config.model_dump(mode="json")
    if manifest and not path.exists():
        raise UserError(f"{path}: is gone; bring it back, or leave this run out")
    steps = read_metrics(path)
    if manifest and len(steps) != trainer.steps:
        raise UserError(f"{path}: {len(steps)} steps of a finished run of {trainer.steps}; bring the file back, or leave this run out")
    return TrainedRun(
        directory=directory,
        suite=manifest.split.rpartition("/")[0] if manifest else trained_on(recipe),
        settings=settings_of(recipe),
        seed=trainer.seed,
        steps=trainer.steps,
        curve=learning_curve(steps, trainer.prompts_per_step * trainer.group_size),
        patch=manifest.patch_sha256 if manifest else None,
        parameters=manifest.trained_parameters if manifest else None,
        share=manifest.trained_parameters / manifest.total_parameters if manifest else None,
        seconds=manifest.seconds if manifest else None,
        measurements=_measurements(directory, manifest.patch_sha256 if manifest else None, extended=bool(manifest and manifest.extended)),
    )


def _recorded(path: Path) -> RecordedConfig:
    try:
        return RecordedConfig.model_validate(read_yaml_mapping(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; bring the file back, or leave this run out") from error


def _measurements(run: Path, patch: str | None, extended: bool) -> list[Measurement]:
    """The evaluations inside a run; not the one that chose a study's learning rate, which flatters the rate chosen.

    Nor those made before the run was extended, nor that of the best point of its held-out curve: runs are compared by what they ended
    in. Raises UserError for one that is broken or of another policy.
    """
    in_study = (run.resolve().parent.parent / STUDY).is_file()
    found = []
    for path in sorted(path.parent for path in run.glob(f"*/{MANIFEST}")):
        if in_study and path.name == "validation":
            continue
        measurement = Measurement(path, read_evaluation(path))
        if measurement.manifest.is_best_point:
            continue
        if measurement.manifest.patches != [patch] and extended:
            continue
        if measurement.manifest.patches != [patch]:
            raise UserError(f"{path}: measured something else than the run it lies in ended in; move it elsewhere, or evaluate again")
        found.append(measurement)
    return found
