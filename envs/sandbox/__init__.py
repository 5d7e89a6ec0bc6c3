"""A sandbox for code that models write: calls, programs and tests run in processes that can do nothing but compute (docs/sandbox.md)."""

from __future__ import annotations

from .checks import calls, judged, script
from .inside.codec import Array
from .pool import UNSAFE, describe, isolation, stop
from .results import Isolation, Limits, Outcome, Reply

__all__ = ["UNSAFE", "Array", "Isolation", "Limits", "Outcome", "Reply", "calls", "describe", "isolation", "judged", "script", "stop"]
