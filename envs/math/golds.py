"""Gold answers are checked when data is loaded: one that the grader cannot read would make every response wrong.

Numbers and words are checked at once. Formulas are read by the workers, some ten milliseconds each, so a list
that was checked is remembered on disk by its digest, together with the versions of what read it and those that it could not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...common.errors import UserError
from ...common.files import write_atomically
from . import workers
from .caps import admissible
from .gold import Gold
from .grader import needs_algebra
from .latex import normalise
from .shapes import read

RULES = 3  # raise when latex.py or shapes.py read formulas differently


def unreadable_golds(golds: Sequence[str | Gold]) -> list[int]:
    """The positions of the golds that no answer could be compared with."""
    texts = [gold.text if isinstance(gold, Gold) else gold for gold in golds]
    formulas = {at: normalise(text) for at, text in enumerate(texts) if needs_algebra(text)}
    if not formulas:
        return []
    distinct = sorted(set(formulas.values()))
    checked = _cache() / _digest(distinct)
    try:
        unreadable = set(json.loads(checked.read_text(encoding="utf-8") or "[]"))
    except (OSError, ValueError):
        with ThreadPoolExecutor(workers.MAX_WORKERS) as pool:
            unreadable = {formula for formula, good in zip(distinct, pool.map(_readable, distinct), strict=True) if not good}
        with contextlib.suppress(UserError):  # where it cannot be written they are checked again next time
            write_atomically(checked, json.dumps(sorted(unreadable)))
    return [at for at, formula in formulas.items() if formula in unreadable]


def _readable(formula: str) -> bool:
    return admissible(formula) and workers.check(read(formula), None) == "correct"


def _digest(formulas: list[str]) -> str:
    from importlib.metadata import version

    return hashlib.sha256(json.dumps([RULES, version("math-verify"), version("sympy"), formulas]).encode()).hexdigest()


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "onelayer", "golds")
