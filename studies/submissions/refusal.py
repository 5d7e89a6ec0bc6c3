"""Why a submission is refused."""

from __future__ import annotations

from enum import StrEnum

from ...common.errors import UserError
from ...common.text import printable


class Reason(StrEnum):
    """Why a submission is refused."""

    HASH = "a hash differs"
    """A file is not the one that its hash names."""
    BROKEN = "a file is broken"
    """It cannot be read, or is larger than it may be."""
    CONFIGURATION = "the configuration differs"
    """Manifest and configuration contradict each other, or the protocol is not that of the configuration."""
    BASE = "another base"
    """The base's weights are not those that the evaluation or a patch names."""
    PATCH = "the patch differs"
    """The patch is another one, or has other weights than the trained set that it names."""
    TRAINING = "the training differs"
    """What the evaluation tells of a patch's training, cost included, is not what the run's manifest tells."""
    ITEMS = "other items"
    """The items are not the first ones of the split that is named."""
    TWICE = "a sample is there twice"
    LOST = "samples were lost"
    """So many that the rest is no measurement, or such as are not lost when they are played again."""
    MISSING = "a sample is missing"
    """Fewer records than items times samples: lost and failed ones belong there, too."""
    ORDER = "another order"
    """The samples do not stand in the order of the split."""
    SEED = "a seed differs"
    """A sample's key or seeds do not follow from protocol, item and index."""
    COUNTS = "a figure differs"
    """A figure of the manifest is not that of the records."""
    GRADE = "graded otherwise"
    """A verdict, reward or answer is not what the environment says to the response."""
    REPLY = "the response is not its tokens"
    """Text, action, prompt or number of tokens do not follow from the recorded tokens."""
    TOKENS = "other tokens"
    """Base, patch and seed make other tokens than those recorded."""
    UNUSED = "no evaluation uses it"
    """Part of an evaluation, or a run whose patch none of the evaluations is of."""
    UNVERIFIABLE = "cannot be verified"
    """Nothing here can make or grade it again."""


class Refused(UserError):
    """What is verified is not what it says."""

    def __init__(self, place: str, reason: Reason, detail: str):
        super().__init__(printable(f"{place}: {reason}: {detail}"))
        self.reason = reason
