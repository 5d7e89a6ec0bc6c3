"""A gold answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gold:
    """A gold answer and what its benchmark says about it.

    `text` may list several answers that must all be given, in any order: `1,2`. A number within `precision` (absolute) or
    `relative` (a share of the gold's size) of the gold is right. `unit` is one that an answer may carry or leave out.
    """

    text: str
    precision: float | None = None
    relative: float | None = None
    unit: str | None = None
