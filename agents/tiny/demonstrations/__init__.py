"""Synthetic demonstrations that the tiny base is pre-trained on: three domains, each answered well and, in the mixture, poorly.

A purely careful diet teaches the skill. The mixture then makes what a base model does the likeliest: it can solve a task but mostly
does not, sampled or greedily. That is what RL has to undo. Everything comes from the training splits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from . import alfworld, arithmetic, functions

DOMAINS: dict[str, Callable[[bool, random.Random], Iterator[tuple[str, str]]]] = {
    "math": arithmetic.demonstrations,
    "code": functions.demonstrations,
    "alfworld": alfworld.demonstrations,
}
"""Domain -> an endless stream of (user message, response), from whether the mixture is wanted and a generator of random numbers."""
