"""What environments have failed at, and where that stops an evaluation: a sample that was lost is not a reply that was wrong."""

from __future__ import annotations

import logging
from pathlib import Path

from ..agents.episodes import Episode
from ..common.errors import UserError

LOST_SHARE = 0.05
"""More than this share of lost samples is no measurement any more."""
ALWAYS = 20
"""As many replies, each of which made the environment raise, and none that did not: it is the environment."""

_log = logging.getLogger(__name__)


class Failures:
    """Counts the samples of one evaluation that were lost, and those whose environment raised on the reply (`action_error`)."""

    def __init__(self, directory: Path, wanted: int, sound: int):
        """wanted: samples of the evaluation. sound: those of them that are there already."""
        self._directory, self._wanted, self._sound = directory, wanted, sound
        self._lost = self._blamed = 0
        self._first_lost = self._first_blamed = ""

    def watch(self, episode: Episode) -> None:
        """Count an episode that has ended. Raises UserError, with the first error, as soon as the evaluation can be no measurement."""
        if episode.error:
            self._lost, self._first_lost = self._lost + 1, self._first_lost or episode.error
        elif blamed := episode.blamed:
            self._blamed, self._first_blamed = self._blamed + 1, self._first_blamed or blamed
        else:
            self._sound += 1
        remedy = "remove the cause, and the same command plays these samples again"
        if self._lost > LOST_SHARE * self._wanted:
            share = f"{self._lost} of {self._wanted} samples were lost, more than {LOST_SHARE:.0%}"
            raise UserError(f"{self._directory}: {share}; first: {self._first_lost}; {remedy}")
        if not self._sound and self._blamed >= min(ALWAYS, self._wanted):
            always = f"the environment raised on each of the first {self._blamed} replies"
            raise UserError(f"{self._directory}: {always}; first: {self._first_blamed}; {remedy}")

    def tell(self) -> None:
        """Warn of what failed without stopping the evaluation."""
        if self._lost:
            _log.warning("%s: %d of %d samples lost, first: %s", self._directory, self._lost, self._wanted, self._first_lost)
        if self._blamed > LOST_SHARE * self._wanted:
            share = f"{self._blamed} of {self._wanted}"
            _log.warning(
                "%s: the environment raised on %s replies, which count as wrong; first: %s", self._directory, share, self._first_blamed
            )
