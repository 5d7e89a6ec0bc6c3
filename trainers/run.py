"""A run's directory: configuration, metrics, checkpoint, patch and manifest; written so that a kill at any moment loses
at most the steps since the last checkpoint.

    config.yaml        the resolved configuration
    metrics.jsonl      a line a step
    held_out.jsonl     a line for each point of the held-out curve, where eval.every asks for one
    best-STEP.safetensors  the patch of its best point, where eval.keep_best asks for it
    episodes/          what was played, a file for the steps between two checkpoints
    checkpoint.pt      optimiser state and float32 masters, replaced as a whole; a run of a study is complete without
    patch.safetensors  the result
    run.json           the manifest; there only when the run is complete
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from ..agents import patch
from ..agents.agent import Agent
from ..agents.policy import Base
from ..agents.trained_sets import TrainedSet
from ..common.cost import Cost, Meter, git_commit, hardware, versions
from ..common.errors import UserError
from ..common.files import GrowingFile, atomically, growing, owned, write_atomically
from ..common.progress import progress
from ..common.reading import LARGEST_YAML, parse_yaml, read_bytes
from ..envs.items import Split
from ..evals.protocol import flatten
from .algorithms.earlier import upgraded
from .best import BestPatch, best_file
from .config import Config, decides, dump
from .kept import KeptEpisodes, kept_steps
from .manifest import CHECKPOINT, CONFIG, EPISODES, MANIFEST, METRICS, PATCH, BestPoint, Manifest, RecordedConfig, complete_manifest
from .metrics import read_metrics
from .ranks import ONE_PROCESS, Ranks
from .stopping import StopSignals

NO_SIGNAL = "no group of any step had an advantage (all its episodes were paid alike), so nothing was learned and the patch is the base"

_log = logging.getLogger(__name__)


class Run:
    """An open run directory."""

    def __init__(self, directory: Path, config: Config, base: Base, trained: TrainedSet, split: Split, ranks: Ranks):
        self.directory, self.config, self.ranks = directory, config, ranks
        self._base, self._trained, self._split = base, trained, split
        self.checkpoint = _read_checkpoint(directory / CHECKPOINT, self._origin)
        self._extended = self._earlier_lengths()
        self.meter, self._before = Meter(), Cost.model_validate((self.checkpoint or {}).get("cost", {}))
        self.episodes: KeptEpisodes | None = None
        self.best: BestPatch | None = None
        self.stop = StopSignals(directory, ranks)
        self._phases: dict[str, float] = {}
        self._lines: GrowingFile
        self._board: Any
        self.note: Callable[[str], None] = lambda note: None
        """Shows a text beside the progress."""

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, config: Config, base: Base, trained: TrainedSet, split: Split, resume: bool, ranks: Ranks = ONE_PROCESS
    ) -> Iterator[Run]:
        """Start a run, or with `resume` continue the one in `directory` where there is one.

        Raises UserError for a directory that cannot be written, is in use or holds something else, for a damaged checkpoint, and where
        what is kept of the steps before it is not all there.
        """
        if not resume and (directory / CONFIG).exists():
            raise UserError(f"{directory}: holds a run already; continue it with --resume {directory}, or name another --output")
        with owned(directory):
            longer = resume and extends(directory, config)
            if not longer:
                claim(directory / CONFIG, config)
            run = cls(directory, config, base, trained, split, ranks)
            run._check_history()
            if longer:
                (directory / MANIFEST).unlink(missing_ok=True)
                write_atomically(directory / CONFIG, dump(config))
            with run.meter, run._metrics_files(), run.stop.awaited():
                yield run

    def steps(self, start: int, stop: int) -> Iterator[int]:
        """The steps still to do, under a progress display."""
        with progress(self._trained.spec, stop, start, stays=True) as shown:
            self.note = shown.note
            for step in range(start, stop):
                yield step
                shown.advance()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase of the step; `log` reports it as NAME_seconds."""
        started = time.perf_counter()
        yield
        self._phases[f"{name}_seconds"] = time.perf_counter() - started

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Append one line of metrics; null stands for what the step has no figure of."""
        metrics = {**metrics, **self._phases, "tokens_per_second": (metrics["tokens"] or 0) / self._phases["rollout_seconds"]}
        line = {name: None if value is None else float(f"{value:.6g}") for name, value in metrics.items()}
        self._lines.write(json.dumps({"step": step, **line}).encode() + b"\n")
        for name, value in line.items():
            if self._board and value is not None:
                self._board.add_scalar(name, value, step)
        dropped = f"  dropped {line['dropped']:.0f}" if line.get("dropped") else ""
        self.note(f"reward {line['reward']:.3f}  length {line['response_length']:.1f}{dropped}")

    def save_checkpoint(self, done: int, state: Callable[[], dict[str, Any]], last: bool) -> None:
        """Write a checkpoint of so many steps where one is due. state: what it holds of the learner.

        Raises Interrupted where the run was asked to stop.
        """
        self.stop.agree()
        if self.stop.asked or last or not done % self.config.trainer.checkpoint_every:
            self._write_checkpoint(state(), self._cost())
            self.stop.raise_if_asked()

    def _write_checkpoint(self, state: dict[str, Any], cost: Cost) -> None:
        self._lines.sync()  # what a checkpoint has done is never missing beside it
        if self.episodes:
            self.episodes.write()
        known = {"cost": cost.model_dump(), "config": self.config.model_dump_json(), "extended": self._extended}
        known |= {"threads": torch.get_num_threads(), "ranks": self.ranks.size}
        with atomically(self.directory / CHECKPOINT) as path, path.open("wb") as file:
            try:
                torch.save(state | self._origin | known, file)
            except RuntimeError as error:  # what torch makes of a full disk
                raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        if self.best:
            self.best.settle(state["step"])

    def finish(self, result: patch.Patch, keep_checkpoint: bool) -> None:
        """Write patch and manifest. keep_checkpoint: so that the run can be extended."""
        self._write_result(result, keep_checkpoint, self._cost())

    def _write_result(self, result: patch.Patch, keep_checkpoint: bool, cost: Cost) -> None:
        path, steps = self.directory / PATCH, read_metrics(self.directory / METRICS)
        cut = [step.truncated for step in steps if step.truncated is not None]
        manifest = Manifest(
            config=RecordedConfig.model_validate(self.config.model_dump(mode="json")),
            base=self._base.fingerprint,
            trained_set=self._trained.spec,
            trained_parameters=self._trained.count,
            total_parameters=self._trained.total,
            split=self._split.name,
            split_digest=self._split.digest,
            skipped=len(self._split.skipped),
            patch_sha256=patch.write(path, result),
            best=self._best_point(),
            cost=cost,
            ranks=self.ranks.size,
            dropped=sum(int(step.dropped or 0) for step in steps),
            no_signal=all(step.groups_kept == 0 for step in steps),
            truncated=sum(cut) / len(cut) if cut else None,
            hardware=hardware(),
            versions=versions(),
            git_commit=git_commit(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            extended=self._extended,
        )
        write_atomically(self.directory / MANIFEST, manifest.model_dump_json(indent=2))
        if not keep_checkpoint:
            (self.directory / CHECKPOINT).unlink(missing_ok=True)
        if manifest.dropped:
            _log.warning("%s: %d episodes in all were dropped, since environments failed", self.directory, manifest.dropped)

    def keep_episodes(self, agent: Agent) -> None:
        """Keep what is played from here on, where the recipe asks for it."""
        if self.config.trainer.keep_episodes:
            self.episodes = KeptEpisodes(self.directory, agent, self.done)

    def keep_best(self, rate_by_step: Mapping[int, float]) -> None:
        """Keep the patch of the best point of the held-out curve, where the recipe asks for it. Raises as `BestPatch` does."""
        if self.config.eval.keep_best:
            self.best = BestPatch(self.directory, rate_by_step, self.done)

    def growing(self, name: str, end: int) -> AbstractContextManager[GrowingFile]:
        """Go on with a file of the directory, as `common.files.growing`."""
        return growing(self.directory / name, end)

    def _best_point(self) -> BestPoint | None:
        if self.best is None or self.best.step is None:
            return None
        with best_file(self.directory, self.best.step).open("rb") as file:
            return BestPoint(step=self.best.step, patch_sha256=hashlib.file_digest(file, "sha256").hexdigest())

    @property
    def done(self) -> int:
        """Steps that the checkpoint holds."""
        return (self.checkpoint or {}).get("step", 0)

    def _earlier_lengths(self) -> list[int]:
        """The numbers of steps that the run was to have before it was extended, in order."""
        known = self.checkpoint or {}
        before = json.loads(known["config"])["trainer"]["steps"] if "config" in known else self.config.trainer.steps
        return [*known.get("extended", []), *([before] if before != self.config.trainer.steps else [])]

    def _check_history(self) -> None:
        """What a checkpoint goes on from. Raises UserError where metrics or episodes of a step before it are missing, or of another recipe.

        Warns where another number of threads computes from here on: sums are then added up in another order.
        """
        if self.checkpoint is None:
            return
        if (made := self.checkpoint.get("config")) and decides(Config.model_validate(upgraded(json.loads(made)))) != decides(self.config):
            place = self.directory / CONFIG
            raise UserError(f"{place}: not the recipe that the checkpoint was made under; bring it back, or start a new run")
        kept = {self.directory / METRICS: [step.step for step in read_metrics(self.directory / METRICS, self.done)]}
        if self.config.trainer.keep_episodes:
            kept[self.directory / EPISODES] = kept_steps(self.directory)
        for path, steps in kept.items():
            if steps[: self.done] != list(range(self.done)):
                missing = next(step for step in range(self.done) if step >= len(steps) or steps[step] != step)
                raise UserError(
                    f"{path}: the checkpoint has done {self.done} steps, and step {missing} is missing or cannot be read; bring it back, "
                    f"or remove {self.directory / CHECKPOINT}, and the same command starts the run from its first step"
                )
        for what, now, keeps in (("threads", torch.get_num_threads(), "OMP_NUM_THREADS={}"), ("ranks", self.ranks.size, "as many ranks")):
            if (before := self.checkpoint.get(what)) not in (None, now):
                text = "%s: begun with %d %s and continued with %d, so the result is not the same to the byte; %s keeps it"
                _log.warning(text, self.directory, before, what, now, keeps.format(before))

    @property
    def _origin(self) -> dict[str, str]:
        """What a checkpoint must have come from to be continued."""
        return {"base": self._base.fingerprint, "split": self._split.digest}

    def _cost(self) -> Cost:
        """Of the whole run so far, at all ranks."""
        return self._before + reduce(Cost.beside, self.ranks.gather(self.meter.cost()))

    @contextmanager
    def _metrics_files(self) -> Iterator[None]:
        """Open what `log` writes to, without the steps after the checkpoint: they are about to be done again."""
        path, done = self.directory / METRICS, self.done
        lines = path.read_bytes().splitlines(keepends=True)[:done] if path.exists() else []
        self._board = summary_writer()(str(self.directory / "tensorboard"), purge_step=done) if self.config.trainer.tensorboard else None
        try:
            with growing(path, sum(map(len, lines))) as self._lines:
                yield
        finally:
            if self._board:
                self._board.close()


def extends(directory: Path, config: Config) -> bool:
    """Whether the configuration is that of the run there, with more steps.

    Raises UserError for fewer steps, and for a complete run whose checkpoint was not kept.
    """
    there = recorded(directory / CONFIG) if (directory / CONFIG).exists() else None
    if there is None or _differing(there, config) != ["trainer.steps"]:
        return False
    before, wanted = there.trainer.steps, config.trainer.steps
    if wanted < before:
        raise UserError(f"{directory}: trainer.steps is {before}, and can only be raised ({wanted} given); start a new run with --output")
    if (directory / MANIFEST).exists() and not (directory / CHECKPOINT).exists():
        raise UserError(
            f"{directory}: complete after {before} steps, and without the optimiser's state ({CHECKPOINT}) it cannot be extended; "
            f"train again with trainer.steps={wanted} and another --output"
        )
    return True


def claim(path: Path, config: Config) -> None:
    """Make a directory that of this configuration, which `path` in it holds. Raises UserError where it belongs to something else."""
    if path.exists():
        there = recorded(path)
        if there is None:
            raise UserError(f"{path}: no configuration of this release; name another --output")
        if differing := _differing(there, config):
            one, two = flatten(there.model_dump(mode="json")), flatten(config.model_dump(mode="json"))
            texts = [f"{key} ({json.dumps(one.get(key))} there, {json.dumps(two.get(key))} given)" for key in differing]
            raise UserError(
                f"{path}: differs from the configuration given in {', '.join(texts)}; leave out what differs, or name another --output"
            )
    elif any(path.parent.iterdir()):
        raise UserError(f"{path.parent}: not empty, and without {path.name}; name another --output")
    else:
        write_atomically(path, dump(config))


def _differing(there: Config, config: Config) -> list[str]:
    """The dotted keys in which two configurations differ."""
    one, two = (flatten(found.model_dump(mode="json")) for found in (_settled(there, config), _settled(config, there)))
    return [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]


def _settled(config: Config, other: Config) -> Config:
    """With the portions of the update as the other has them, where it leaves them open: runs of earlier releases do not tell theirs."""
    tokens = config.trainer.tokens_per_forward or other.trainer.tokens_per_forward
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"tokens_per_forward": tokens})})


def recorded(path: Path) -> Config | None:
    """The configuration that a directory was made with, keys that came later at their defaults; None where it cannot be read."""
    try:
        return Config.model_validate(upgraded(parse_yaml(read_bytes(path, LARGEST_YAML))))
    except ValueError:
        return None


def read_patch(directory: Path) -> patch.Patch:
    """The patch of a complete run. Raises UserError where the run is not complete, or the patch is not the one it ended in."""
    found = patch.read(directory / PATCH)
    if found.sha256 != complete_manifest(directory).patch_sha256:
        raise UserError(f"{directory / PATCH}: not the patch that {MANIFEST} describes; bring it back, or train again")
    return found


def read_best(directory: Path) -> patch.Patch:
    """The patch of the best point of a complete run's held-out curve. Raises UserError as `read_patch` does, and where none was kept."""
    if (best := complete_manifest(directory).best) is None:
        raise UserError(f"{directory}: this run has kept no patch of a best point; eval.keep_best asks for it")
    path = best_file(directory, best.step)
    found = patch.read(path)
    if found.sha256 != best.patch_sha256:
        raise UserError(f"{path}: not the patch that {MANIFEST} describes; bring it back, or train again")
    return found


def summary_writer() -> Any:
    """TensorBoard's writer. Raises UserError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("trainer.tensorboard is on but TensorBoard is not installed; pip install 'onelayer[tensorboard]'") from error
    return SummaryWriter


def _read_checkpoint(path: Path, origin: Mapping[str, str]) -> dict[str, Any] | None:
    """The checkpoint of a run, None where there is none. Raises UserError for one that is damaged or of another `origin`."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums but does not read them
            if archive.testzip() is not None:
                raise ValueError("wrong checksum")
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        found = {name: checkpoint[name] for name in origin}
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise UserError(
            f"{path}: damaged, it cannot be read; remove it, and the same command starts the run from its first step"
        ) from error
    if changed := [name for name in origin if found[name] != origin[name]]:
        raise UserError(f"{path}: the {' and the '.join(changed)} of this run has changed since; bring it back, or start a new run")
    return checkpoint
