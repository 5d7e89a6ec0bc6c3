"""Gold answers are checked when data is loaded: one that the grader can not read would make every response wrong.

Numbers and words are checked at once. Formulas go through math-verify in the workers, some ten milliseconds each, so a list
that has passed is remembered on disk by its digest, together with the versions of what read it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import workers
from .answers import admissible, normalise

RULES = 1  # raise when answers.py reads formulas differently


def unreadable_golds(golds: Sequence[str]) -> list[int]:
    """The positions of the golds that no answer could be compared with."""
    from .grader import needs_algebra

    formulas = {at: normalise(gold) for at, gold in enumerate(golds) if needs_algebra(gold)}
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
    return admissible(formula) and workers.check(formula, None) == "correct"


def _digest(formulas: list[str]) -> str:
    from importlib.metadata import version

    return hashlib.sha256(json.dumps([RULES, version("math-verify"), version("sympy"), formulas]).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "onelayer", "golds")
