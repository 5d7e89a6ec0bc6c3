"""The space of free text, for observations and actions."""

from __future__ import annotations

import string
from typing import Any

from gymnasium import spaces


class FreeText(spaces.Text):
    """Any string at all: spaces.Text on its own refuses empty strings, white space and everything beyond ASCII."""

    def __init__(self, max_length: int = 1_000_000) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str)

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A short random string: a million random characters help nobody."""
        return super().sample(mask=mask if mask is not None else (int(self.np_random.integers(0, 200)), None))
