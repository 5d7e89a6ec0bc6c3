"""How far the layer profile of a study agrees with that of another one of the same base: another domain, algorithm or training set."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..common.errors import UserError
from ..evals.statistics import FloatArray
from .compare import TRAINED_SET, TrainedRun
from .profiles import Coefficient, profile_agreement
from .read import read_study
from .store import STUDY
from .study_findings import LAYER, StudyAgreement


@dataclass(frozen=True)
class _Profile:
    base: str
    split: str
    digest: str
    rates: dict[int, dict[int, FloatArray]]
    """By layer and training seed the item rates (I,)."""

    def over(self, layers: list[int]) -> FloatArray:
        """(K, R, I) of these layers, over the training seeds that all of them have."""
        seeds = sorted(set[int].intersection(*(set(self.rates[layer]) for layer in layers)))
        return np.stack([np.stack([self.rates[layer][seed] for seed in seeds]) for layer in layers])


def check_has_profile(study: Path) -> None:
    """Raises UserError where `agreement` would have nothing to compare with: before hours of training."""
    _profile(study)


def agreement(study: Path, other: Path) -> StudyAgreement:
    """Raises UserError where `other` is no study of the same base with the results of six layers of `study` or more."""
    mine, theirs = _profile(study), _profile(other)
    if mine.base != theirs.base:
        raise UserError(f"{other}: a study of base {theirs.base[:12]}, and this one is of {mine.base[:12]}; name a study of the same base")
    layers = sorted(mine.rates.keys() & theirs.rates.keys())
    try:
        found = profile_agreement(mine.over(layers), theirs.over(layers), same_items=mine.digest == theirs.digest) if layers else None
    except ValueError as error:
        raise UserError(f"{other}: the agreement of the two profiles cannot be computed ({error})") from error
    if found is None:
        raise UserError(f"{other}: has no evaluated single layer in common with {study}; name a study with layers:each")
    return StudyAgreement(
        study=str(other),
        split=theirs.split,
        same_items=mine.digest == theirs.digest,
        layers=layers,
        spearman=found[Coefficient.SPEARMAN],
        pearson=found[Coefficient.PEARSON],
    )


def _profile(study: Path) -> _Profile:
    rates: defaultdict[int, dict[int, FloatArray]] = defaultdict(dict)
    if not (study / STUDY).is_file():
        raise UserError(f"{study}: no study, it has no {STUDY}; name the directory of one")
    seen = None
    for run in read_study(study):
        if isinstance(run, TrainedRun) and (named := LAYER.fullmatch(str(run.settings[TRAINED_SET]))):
            for measurement in run.measurements:
                seen = measurement.manifest
                rates[int(named[1])][run.seed] = measurement.recorded.sampled.rate_I
    if seen is None:
        raise UserError(f"{study}: no single layer of this study has been evaluated; name a study with layers:each")
    return _Profile(seen.base, seen.split, seen.digest, dict(rates))
