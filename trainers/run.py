"""A run's directory: configuration, metrics, checkpoint, patch and manifest; written so that a kill at any moment loses
at most the steps since the last checkpoint.

    config.yaml        the resolved configuration
    metrics.jsonl      a line a step
    checkpoint.pt      optimiser state and float32 masters, replaced as a whole
    patch.safetensors  the result
    run.json           the manifest; there only when the run is complete
"""

from __future__ import annotations

import io
import json
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..agents import patch
from ..agents.policy import Base, TrainedSet
from ..envs.errors import UserError
from ..envs.files import write_atomically
from ..envs.items import Split
from .config import Config, dump


class Manifest(BaseModel):
    """What a complete run was and what came of it (run.json)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(1, description="version of this format")
    config: Config = Field(description="the resolved configuration")
    base: str = Field(description="fingerprint of the base model")
    trained_set: str = Field(description="what was trained")
    trained_parameters: int = Field(description="how many parameters that is")
    total_parameters: int = Field(description="parameters of the whole model")
    split: str = Field(description="name of the split trained on")
    split_digest: str = Field(description="SHA-256 of its items")
    patch_sha256: str = Field(description="SHA-256 of patch.safetensors")
    seconds: float = Field(description="wall seconds of training, summed over resumptions")
    versions: dict[str, str] = Field(description="python, torch and transformers")
    finished: str = Field(description="UTC time of completion, ISO 8601")


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written."""

    def __init__(self, signal_number: int, directory: Path):
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; continue with: onelayer train --resume {directory}")
        self.exit_code = 128 + signal_number


class Run:
    """An open run directory."""

    def __init__(self, directory: Path, config: Config, base: Base, trained: TrainedSet, split: Split, checkpoint: dict[str, Any] | None):
        self.directory, self.config, self.checkpoint = directory, config, checkpoint
        self._base, self._trained, self._split = base, trained, split
        self._seconds, self._started = (checkpoint or {}).get("seconds", 0.0), time.perf_counter()
        self._signal: int | None = None
        self._board: Any = None

    @classmethod
    @contextmanager
    def open(cls, directory: Path, config: Config, base: Base, trained: TrainedSet, split: Split, resume: bool) -> Iterator[Run]:
        """Start or continue a run. Raises UserError for a directory that holds another run."""
        directory.mkdir(parents=True, exist_ok=True)
        text, config_path = dump(config), directory / "config.yaml"
        if config_path.exists() and not resume:
            raise UserError(f"{directory}: holds a run already; continue it with --resume {directory}, or name another --output")
        if config_path.exists() and config_path.read_text() != text:
            raise UserError(f"{config_path}: differs from the configuration given; a run is resumed under its own")
        write_atomically(config_path, text)
        run = cls(directory, config, base, trained, split, _read_checkpoint(directory / "checkpoint.pt"))
        run._truncate_metrics()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with suppress(ValueError):  # off the main thread signals are the caller's business
            for number in handlers:
                signal.signal(number, run._stop)
        try:
            with (directory / "metrics.jsonl").open("a") as run._metrics:
                yield run
        finally:
            with suppress(ValueError):
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    def steps(self, start: int, stop: int) -> Iterator[int]:
        """The steps still to do, under a progress display."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(self._trained.spec, total=stop, completed=start, note="")
            self._note = lambda note: progress.update(task, advance=1, note=note)
            yield from range(start, stop)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Append one line of metrics."""
        metrics = metrics | {"tokens_per_second": metrics["tokens"] / metrics["rollout_seconds"]}
        self._metrics.write(json.dumps({"step": step, **{name: _short(value) for name, value in metrics.items()}}) + "\n")
        self._metrics.flush()
        if self.config.trainer.tensorboard:
            self._board = self._board or _tensorboard(self.directory)
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        self._note(f"reward {metrics['reward']:.3f}  length {metrics['response_length']:.1f}")

    def save_checkpoint(self, state: dict[str, Any], last: bool) -> None:
        """Write a checkpoint where one is due. Raises Interrupted where the run was asked to stop."""
        if self._signal is None and not last and state["step"] % self.config.trainer.checkpoint_every:
            return
        buffer = io.BytesIO()
        torch.save(state | {"seconds": self._elapsed()}, buffer)
        write_atomically(self.directory / "checkpoint.pt", buffer.getvalue())
        if self._signal is not None and not last:
            raise Interrupted(self._signal, self.directory)

    def finish(self, result: patch.Patch) -> Path:
        """Write patch and manifest; the checkpoint has served its purpose."""
        path = self.directory / "patch.safetensors"
        manifest = Manifest(
            schema_version=1,
            config=self.config,
            base=self._base.fingerprint,
            trained_set=self._trained.spec,
            trained_parameters=self._trained.count,
            total_parameters=self._trained.total,
            split=self._split.name,
            split_digest=self._split.digest,
            patch_sha256=patch.write(path, result),
            seconds=self._elapsed(),
            versions={"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__},
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_atomically(self.directory / "run.json", manifest.model_dump_json(indent=2))
        (self.directory / "checkpoint.pt").unlink(missing_ok=True)
        return path

    def _elapsed(self) -> float:
        return self._seconds + time.perf_counter() - self._started

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:  # asked twice: at once
            raise KeyboardInterrupt
        self._signal = number

    def _truncate_metrics(self) -> None:
        """Drop the lines of steps after the checkpoint: they are about to be done again."""
        path, done = self.directory / "metrics.jsonl", (self.checkpoint or {}).get("step", 0)
        lines = path.read_text().splitlines(keepends=True)[:done] if path.exists() else []
        write_atomically(path, "".join(lines))


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a complete run, None where the run is not complete. Raises UserError for a damaged one."""
    path = directory / "run.json"
    if not path.exists():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: not a manifest of this version: {error.errors()[0]['msg']}") from error


def _read_checkpoint(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _tensorboard(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("trainer.tensorboard is on but TensorBoard is not installed; pip install 'onelayer[tensorboard]'") from error
    return SummaryWriter(str(directory / "tensorboard"))


