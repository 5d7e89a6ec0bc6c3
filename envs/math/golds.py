"""Gold answers are checked when data is loaded: one that the grader can not read would make every response wrong.

Numbers and words are checked at once. Formulas are read by the workers, some ten milliseconds each, so a list
that has passed is remembered on disk by its digest, together with the versions of what read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import workers
from .caps import admissible
from .latex import normalise
from .shapes import read

RULES = 2  # raise when latex.py or shapes.py read formulas differently


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


def unreadable_golds(golds: Sequence[str | Gold]) -> list[int]:
    """The positions of the golds that no answer could be compared with."""
    from .grader import needs_algebra

    texts = [gold.text if isinstance(gold, Gold) else gold for gold in golds]
    formulas = {at: normalise(text) for at, text in enumerate(texts) if needs_algebra(text)}
    if not formulas:
        return []
    passed = _cache() / _digest(sorted(set(formulas.values())))
    if passed.exists():
        return []
    with ThreadPoolExecutor(workers.MAX_WORKERS) as pool:
        unreadable = [at for at, good in zip(formulas, pool.map(_readable, formulas.values()), strict=True) if not good]
    if not unreadable:
        try:
            passed.parent.mkdir(parents=True, exist_ok=True)
            passed.touch()
        except OSError:
            pass  # checked again next time
    return unreadable


def _readable(formula: str) -> bool:
    return admissible(formula) and workers.check(read(formula), None) == "correct"


def _digest(formulas: list[str]) -> str:
    from importlib.metadata import version

    return hashlib.sha256(json.dumps([RULES, version("math-verify"), version("sympy"), formulas]).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "onelayer", "golds")
