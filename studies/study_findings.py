"""What a study's figures come to: the best layer, the share of the middle third, the sets of solved items, a statement that the figures
support, and statements that they do not support.

All of it is at the sampling temperature but the sets of solved items, which are those of the greedy replies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..evals.statistics import Difference, FloatArray, Rate
from .contribution import FEWEST_ITEMS, SHOWN_FROM, Contribution
from .pairing import SeedRates
from .profiles import Agreement, MiddleThird, best_layer, jaccard, middle_third

LAYER = re.compile(r"layer:(\d+)")
FEWEST_TO_CHOOSE = 4
"""Items of which one half chooses the best layer and the other reports it."""


class BestSet(BaseModel):
    """The single layer that is best on one half of the items (and of the training seeds, where there are several), measured on the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trained_set: str
    of: int = Field(description="single layers that it was chosen from")
    chosen_by: list[int] = Field(description="training seeds that chose")
    reported_by: list[int] = Field(description="training seeds that it is reported of; with one seed the same")
    contribution: Contribution = Field(description="on the other half of the items")


class SolvedSet(BaseModel):
    """Greedy replies of the first training seed against those of the base."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gained: list[str] = Field(description="items that it solves and base does not")
    lost: list[str] = Field(description="items that base solves and it does not")
    shared: int | None = Field(default=None, description="of the items gained those that full gains, too; null for full")
    overlap: Rate | None = Field(
        default=None, description="Jaccard index of the items gained with those of full; null for full, and where neither gains any"
    )


class StudyAgreement(BaseModel):
    """The profiles of two studies: pass@1 of their single layers at the sampling temperature."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: str = Field(description="directory of the other study")
    split: str = Field(description="split that it was measured on")
    same_items: bool = Field(description="whether both were measured on the same items")
    layers: list[int] = Field(description="layers that both have")
    spearman: Agreement
    pearson: Agreement


class Findings(BaseModel):
    """What the figures of a study come to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    detectable: dict[str, float] = Field(description="by trained set the smallest true difference to full that 80% of such studies find")
    best: BestSet | None = Field(default=None, description="null for fewer than two single layers")
    middle: MiddleThird | None = Field(default=None, description="null where there is none")
    no_middle: str = Field(default="", description="why there is no share of the middle third")
    solved: dict[str, SolvedSet] = Field(default={}, description="by trained set")
    full_again: Rate | None = Field(
        default=None, description="Jaccard index of the items gained by full with the first and the second training seed; null for one seed"
    )
    quote: str = Field(description="a statement that these figures support")
    unsaid: list[str] = Field(description="statements that they do not support, with the reason")


def findings(
    rates: Mapping[str, SeedRates],
    greedy: Mapping[str, SeedRates],
    contributions: Mapping[str, Contribution],
    gain_full: Difference,
    *,
    items: Sequence[str],
    depth: int | None,
    told: str,
) -> Findings:
    """Of a study with these rates (sampled, and greedy) by arm, base and full first, and C(k) by the other sets.

    items: their ids, in the order of the rates. depth: decoder layers of the model, where known. told: the study in words.
    """
    layers = sorted((int(named[1]), name) for name in contributions if (named := LAYER.fullmatch(name)))
    base_I, full_RI = rates["base"].rates()[0][0], rates["full"].rates()[0]
    layer_KRI = np.stack([rates[name].rates()[0] for _, name in layers]) if layers else np.empty((0, *full_RI.shape))
    seeds = sorted(rates["full"].by_seed)
    best = _best(base_I, full_RI, layer_KRI, [name for _, name in layers], seeds)
    middle, no_middle = _middle(base_I, layer_KRI, [layer for layer, _ in layers], depth)
    solved = {name: _solved(greedy[name], greedy["full"], greedy["base"], items, name) for name in ("full", *contributions)}
    quoted = (best.trained_set, best.contribution) if best else next(iter(contributions.items()), None)
    return Findings(
        detectable={name: share.to_full.detectable for name, share in contributions.items()},
        best=best,
        middle=middle,
        no_middle=no_middle,
        solved=solved,
        full_again=_full_again(greedy["full"], greedy["base"]),
        quote=_quote(rates, gain_full, quoted, best, told),
        unsaid=_unsaid(contributions, len(seeds), len(items), len(layers)),
    )


def _best(base_I: FloatArray, full_RI: FloatArray, layer_KRI: FloatArray, names: Sequence[str], seeds: Sequence[int]) -> BestSet | None:
    if len(names) < 2 or len(base_I) < FEWEST_TO_CHOOSE:
        return None
    found, half = best_layer(base_I, full_RI, layer_KRI), len(seeds) // 2
    return BestSet(
        trained_set=names[found.layer],
        of=len(names),
        chosen_by=list(seeds[:half] or seeds),
        reported_by=list(seeds[half:]),
        contribution=found.contribution,
    )


def _middle(base_I: FloatArray, layer_KRI: FloatArray, layers: Sequence[int], depth: int | None) -> tuple[MiddleThird | None, str]:
    if len(layers) < 3:
        return None, "it takes three single layers or more"
    if depth is None:
        return None, "the evaluation of the base does not tell how many layers the model has"
    try:
        return middle_third(base_I, layer_KRI, layers, depth), ""
    except ValueError as error:
        return None, str(error)


def _gained(one: SeedRates, base: SeedRates, at: int = 0) -> FloatArray:
    """1 for each item that greedy decoding solves and base does not, (I,). at: which of the training seeds."""
    return ((one.rates()[0][at] == 1) & (base.rates()[0][0] < 1)).astype(np.float64)


def _solved(one: SeedRates, full: SeedRates, base: SeedRates, items: Sequence[str], name: str) -> SolvedSet:
    gained_I, of_full_I = _gained(one, base), _gained(full, base)
    lost_I = (one.rates()[0][0] < 1) & (base.rates()[0][0] == 1)
    gained, lost = ([items[at] for at in np.flatnonzero(there_I).tolist()] for there_I in (gained_I, lost_I))
    if name == "full":
        return SolvedSet(gained=gained, lost=lost)
    return SolvedSet(gained=gained, lost=lost, shared=int((gained_I * of_full_I).sum()), overlap=_overlap(gained_I, of_full_I))


def _overlap(a_I: FloatArray, b_I: FloatArray) -> Rate | None:
    return jaccard([a_I, b_I]) if a_I.any() or b_I.any() else None


def _full_again(full: SeedRates, base: SeedRates) -> Rate | None:
    """What chance alone makes of an overlap: two trainings of one and the same set."""
    return _overlap(_gained(full, base, 0), _gained(full, base, 1)) if len(full.by_seed) > 1 else None


def _signed(found: Difference) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _quote(
    rates: Mapping[str, SeedRates], gain: Difference, quoted: tuple[str, Contribution] | None, best: BestSet | None, told: str
) -> str:
    before, after = rates["base"].pass_rate.mean, rates["full"].pass_rate.mean
    seeds = len(rates["full"].by_seed)
    text = f"{told}, training all parameters moves pass@1 from {before:.3f} to {after:.3f}: {_signed(gain)}."
    if quoted:
        name, share = quoted
        chosen = (
            f" {name} was chosen from {best.of} layers on one half of the items; these are the figures of the other half." if best else ""
        )
        if share.point is not None and share.fieller != "unbounded":
            reached = f"reaches C(k) = {share.point:.2f} [{share.fieller[0]:.2f}, {share.fieller[1]:.2f}] of that gain"
        else:
            reached = f"moves pass@1 by {_signed(share.gain)}, and these figures give no C(k)"
        text += f" Training {name} alone {reached}. Its difference to full is {_signed(share.to_full)}.{chosen}"
    over = "items, for these weights (one training seed)" if seeds == 1 else f"items and {seeds} training seeds"
    return f"{text} All intervals are 95% over {over}."


def _unsaid(contributions: Mapping[str, Contribution], seeds: int, items: int, layers: int) -> list[str]:
    found = []
    if seeds == 1:
        found.append(
            "One set trains better than another. One training seed describes these weights only. In simulated studies, two equally good "
            "trainings whose seeds differ by 1.5 points were reported as different (p < .05) in 12% of the studies with 164 items, and in "
            "27% of those with 500."
        )
    if same := [name for name, share in contributions.items() if share.to_full.low <= 0 <= share.to_full.high]:
        found.append(
            f"Training {' or '.join(same)} is as good as training all parameters, because the difference is not significant. The minimum "
            "detectable difference says how large a difference such a study misses."
        )
    if items < FEWEST_ITEMS:
        found.append(f"Any C(k). {items} items are too few for the ratio. Its interval is wider than 1 even where full gains 12 points.")
    elif without := [name for name, share in contributions.items() if share.point is None]:
        strength = next(iter(contributions.values())).strength_text or "0"
        found.append(f"Any C(k) of {', '.join(without)}. The gain of full is too uncertain: |D| / SE(D) = {strength} < {SHOWN_FROM:g}.")
    if layers > 1:
        found.append(f"The highest C(k) of the table is that of the best layer. As the highest of {layers} noisy estimates it is too high.")
    return found
