"""Signals that ask a run to stop: it ends with the step that it is in, at a checkpoint."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ..common.errors import Interrupted
from .ranks import Ranks


class StopSignals:
    """SIGINT and SIGTERM of a run."""

    def __init__(self, directory: Path, ranks: Ranks):
        self._directory, self._ranks = directory, ranks
        self._signal: int | None = None

    @property
    def asked(self) -> bool:
        """Whether the run was asked to stop."""
        return self._signal is not None

    def agree(self) -> None:
        """Let all ranks be asked where one was: they get their signals at different moments."""
        self._signal = max((number for number in self._ranks.gather(self._signal) if number is not None), default=None)

    def raise_if_asked(self) -> None:
        """Raises Interrupted where the run was asked to stop."""
        if self._signal is not None:
            raise self._interrupted(self._signal)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Let signals wait for the end of the step; one that came after the last step stops whoever goes on from here."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        with suppress(ValueError):  # off the main thread signals are the caller's business
            for number in handlers:
                signal.signal(number, self._stop)
        try:
            yield
        except KeyboardInterrupt:
            raise self._interrupted(signal.SIGINT) from None
        finally:
            with suppress(ValueError):
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        self.raise_if_asked()

    def _interrupted(self, number: int) -> Interrupted:
        return Interrupted(number, f"the run is in {self._directory}", self._ranks.resume_command(self._directory))

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:  # asked twice: at once
            raise KeyboardInterrupt
        self._signal = number
        if self._ranks.first:
            with suppress(RuntimeError):  # the signal came while another line was written
                print("finishing this step; a second Ctrl-C stops at once, and loses the steps since the last checkpoint", file=sys.stderr)
