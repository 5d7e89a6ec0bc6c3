"""What the items say of profiles: the best layer, chosen on other items than it is reported on, and how far two profiles agree."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ...common.text import printable
from ...evals.records import Decoding, read_manifest
from ...evals.samples import SAMPLES
from ...evals.statistics import Difference, FloatArray
from ...studies.leaderboard.measured import read_rates
from ...studies.leaderboard.records import Entry
from ...studies.profiles import BestLayer, Coefficient, best_layer, on_common_items, profile_agreement
from ..page import Cell, Table
from .episode_table import Version
from .profile_page import Profile

SHOWN = (Coefficient.SPEARMAN, Coefficient.PEARSON)
FEWEST_LAYERS = 6
"""Of two profiles whose agreement is computed."""
MOST_PAIRS = 15
"""Of profiles under one heat map; those of the chosen profile come first."""
Pair = tuple[Profile, Profile]


def best_layer_text(root: Path, profile: Profile, decoding: Decoding) -> str:
    """The best layer in a sentence; with several training seeds it is chosen on half of them, too.

    Raises UserError where samples cannot be read (any more), or figures are missing; ValueError where items are too few.
    """
    entries = {layer: figure.entry for layer, figure in sorted(profile.by_layer.items()) if _is_compared(figure.entry, decoding)}
    if profile.base is None or profile.full is None or len(entries) < 2:
        raise UserError("it takes the base, and one full-parameter run of this training")
    (_, base_KRI), *_ = _rates(root, [profile.base], decoding, {})[1].values()
    seeds, by_task = _rates(root, [profile.full, *entries.values()], decoding, {})
    (_, rate_KRI), *_ = by_task.values()
    found = best_layer(base_KRI[0, 0], rate_KRI[0], rate_KRI[1:])
    return _best_layer_text(found, list(entries)[found.layer], seeds)


def _is_compared(entry: Entry, decoding: Decoding) -> bool:
    standing = entry.standing(decoding)
    return standing is not None and standing.contribution is not None


def _best_layer_text(found: BestLayer, layer: int, seeds: Sequence[int]) -> str:
    half, share = len(seeds) // 2, found.contribution
    interval = "unbounded" if share.fieller == "unbounded" else f"[{share.fieller[0]:.2f}, {share.fieller[1]:.2f}]"
    point = "no figure, " if share.point is None else f"{share.point:.2f} "
    chosen, rest = (_and_seeds(part) if half else "" for part in (seeds[:half], seeds[half:]))
    return (
        f"layer {layer}, chosen on one half of the items{chosen}. On the other half{rest}, which had no part in the choice: "
        f"C(k) {point}{interval}, minus base {_signed(share.gain)}, minus full {_signed(share.to_full)} (95% over {share.interval_over})."
    )


def _and_seeds(seeds: Sequence[int]) -> str:
    return f" and training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _signed(found: Difference) -> str:
    return f"{found.difference:+.3f} \u00b1 {found.high - found.difference:.3f}"


def pairs(members: Sequence[Profile], chosen: Profile) -> list[Pair]:
    """Profiles over enough of the same layers; the pairs of the chosen one first."""
    found = [(a, b) for a, b in combinations(members, 2) if len(a.by_layer.keys() & b.by_layer.keys()) >= FEWEST_LAYERS]
    return sorted(found, key=lambda pair: chosen.id not in (pair[0].id, pair[1].id))


def agreement(root: Path, pair: Pair, decoding: Decoding) -> list[Cell]:
    """A row of the table: two coefficients as measured and corrected for noise, or why there are none."""
    a, b = pair
    layers = sorted(a.by_layer.keys() & b.by_layer.keys())
    names = [Cell(a.name, f"and {b.name}"), Cell(str(len(layers)))]
    try:
        tasks = (_rates(root, [one.by_layer[layer].entry for layer in layers], decoding, one.weights)[1] for one in pair)
        found = profile_agreement(*on_common_items(*tasks), same_items=True)
    except (UserError, OSError, ValueError) as error:
        return [
            *names,
            Cell("\u2013"),
            Cell("\u2013", textwrap.fill(printable(str(error).replace(f"{root}/", "")), 30)),
            Cell(""),
            Cell(""),
        ]
    shown = [found[coefficient] for coefficient in SHOWN]
    return names + [
        cell for one in shown for cell in (Cell(f"{one.measured:.2f}"), Cell(f"{one.corrected:.2f}", f"[{one.low:.2f}, {one.high:.2f}]"))
    ]


def agreement_table(rows: Sequence[list[Cell]], wanted: int, level: float) -> Table:
    """Agreements that are computed; wanted: how many there are to be."""
    header = [Cell("profiles"), Cell("layers")]
    for coefficient in SHOWN:
        header += [Cell(coefficient.capitalize(), "measured"), Cell(coefficient.capitalize(), f"true profiles, {level:.0%}")]
    notes = [
        "Correlation of the layers' pass rates (that of C(k) is the same), of their ranks by Spearman, from -1 to 1. Noise makes the "
        "measured one smaller; beside it stands that of the true profiles as they may be, given what was measured and its noise: the "
        "layers are ranked again in every draw of them."
    ]
    if wanted > MOST_PAIRS:
        notes.append(f"Of {wanted} pairs {MOST_PAIRS} are shown, those of the chosen profile first: choose another to see its own.")
    if len(rows) < min(wanted, MOST_PAIRS):
        notes.append(f"{min(wanted, MOST_PAIRS) - len(rows)} more are being computed.")
    return Table("Agreement of profiles", header, list(rows), notes)


def _rates(
    root: Path, entries: Sequence[Entry], decoding: Decoding, weights: Mapping[str, float]
) -> tuple[list[int], dict[tuple[str, str], tuple[float, FloatArray]]]:
    """The training seeds that all entries have, and by split and hash of its items the weight and the rates (K, R, I).

    weights: of an average by split; empty: of one suite. Raises UserError where samples cannot be read (any more), or there is no such
    seed; ValueError where they are not of the same items.
    """
    found = [{one[:2]: one for one in (_measured(_version(root / name / SAMPLES)) for name in entry.directories)} for entry in entries]
    weights = weights or {split: 1.0 for split, _ in found[0]}
    there = (frozenset(seed for split, seed in by_seed if split == wanted) for by_seed in found for wanted in weights)
    if not (seeds := sorted(frozenset.intersection(*there))):
        raise UserError("the layers have no training seed in common")
    tasks = {}
    for split, weight in weights.items():
        _, _, items, _ = found[0][split, seeds[0]]
        tasks[split, items] = weight, np.stack([np.stack([by_seed[split, seed][3][decoding] for seed in seeds]) for by_seed in found])
    return seeds, tasks


def _version(path: Path) -> Version:
    if (version := Version.of(path)) is None:
        raise UserError(f"{path}: is gone")
    return version


@lru_cache(maxsize=1024)
def _measured(samples: Version) -> tuple[str, int, str, Mapping[Decoding, FloatArray]]:
    """Of an evaluation: split, training seed (0: none is known), hash of the items, and their rates."""
    directory = samples.path.parent
    manifest = read_manifest(directory)
    trained = manifest.trained[0] if len(manifest.trained) == 1 else None
    return printable(manifest.split), trained.seed if trained else 0, *read_rates(directory, manifest)
