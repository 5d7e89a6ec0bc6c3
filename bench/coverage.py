"""How often 95% intervals hold the truth, in simulated studies whose truth is known.

OMP_NUM_THREADS=1 python bench/coverage.py            # ten minutes on one core

A study is base, full and one layer on the same items. Policy p with training seed r solves item i with chance
logistic(difficulty_i + gain_p + taste_pi + luck_pr + twist_pri): difficulties have a standard deviation of 1.8, a policy's taste in
items (kept by all its seeds) 0.7, and training seeds, where they vary, move a policy as a whole (luck) and on single items (twist,
0.5). Each item is sampled 4 times, or once (greedy). The estimands:

- one seed: these very weights on new items. Luck belongs to the truth, and each study has its own.
- several seeds: training again and new items. Luck and twist are averaged over.

C(k) counts as covered where it is "unbounded", since then nothing is excluded; the share of these is printed beside it, and so is the
coverage of the rest. "wrong" counts disagreements on "unbounded" with Fieller's condition D^2 <= t^2 V_DD, computed here from textbook
sums.

Then the secondary bootstrap of C(k); how often weights of two equally good trainings are told apart; C(k) on few items; the share of the
middle third of 28 layers; the agreement of two profiles over 28 layers, next to a bootstrap that ranks again in every draw;
and how much too high the best of 28 layers is reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from onelayer.evals.statistics import FloatArray, item_weights, mean_pass_rate, pass_rate
from onelayer.studies.contribution import SHOWN_FROM, contribution, contribution_over_tasks
from onelayer.studies.profiles import Coefficient, best_layer, correlation, middle_third, profile_agreement

DIFFICULTY, TASTE, TWIST = 1.8, 0.7, 0.5
WANTED = (0.92, 0.98)


@dataclass(frozen=True)
class Kind:
    """What a simulated study is like; gains and luck in logits."""

    items: int
    seeds: int
    luck: float = 0.0
    samples: int = 4
    gain_full: float = 0.8
    gain_layer: float = 0.62


@dataclass(frozen=True)
class Studies:
    """M studies and their truth."""

    base_MI: FloatArray
    full_MRI: FloatArray
    layer_MRI: FloatArray
    base: float
    full_M: FloatArray
    layer_M: FloatArray


@dataclass(frozen=True)
class Coverage:
    """Shares of the studies whose interval holds the truth."""

    pass_at_1: float
    gain: float
    to_full: float
    c: float
    c_bounded: float
    bootstrap: float
    unbounded: float
    wrong: int
    luck_points: float
    """Standard deviation over training seeds of the full policy's true pass rate, in points."""

    def misses(self) -> list[str]:
        found = {"pass@1": self.pass_at_1, "gain": self.gain, "to full": self.to_full, "C": self.c}
        return [f"{name} {value:.3f}" for name, value in found.items() if not WANTED[0] <= value <= WANTED[1]]


def mean_chance(logit: FloatArray | float, sd: float) -> FloatArray:
    """E logistic(logit + sd z) over a standard normal z, by Gauss and Hermite's rule."""
    point, weight = np.polynomial.hermite_e.hermegauss(101)
    return expit(np.asarray(logit)[..., None] + sd * point) @ (weight / weight.sum())


def draw(kind: Kind, studies: int, rng: np.random.Generator) -> Studies:
    """Simulate studies; rates are shares of right samples."""
    difficulty_MI = rng.normal(0, DIFFICULTY, (studies, kind.items))
    twist = TWIST if kind.luck else 0.0
    rates, truths = [], []
    for gain in (kind.gain_full, kind.gain_layer):
        luck_MR = kind.luck * rng.normal(size=(studies, kind.seeds))
        taste_MI = rng.normal(0, TASTE, (studies, kind.items))
        twist_MRI = twist * rng.normal(size=(studies, kind.seeds, kind.items))
        chance_MRI = expit(gain + luck_MR[..., None] + (difficulty_MI + taste_MI)[:, None] + twist_MRI)
        rates.append(rng.binomial(kind.samples, chance_MRI) / kind.samples)
        over_items = float(np.sqrt(DIFFICULTY**2 + TASTE**2 + twist**2))
        if kind.seeds == 1:
            truths.append(mean_chance(gain + luck_MR[:, 0], over_items))
        else:
            truths.append(np.full(studies, mean_chance(gain, float(np.hypot(over_items, kind.luck)))))
    base_MI = rng.binomial(kind.samples, expit(difficulty_MI)) / kind.samples
    return Studies(base_MI, rates[0], rates[1], float(mean_chance(0.0, DIFFICULTY)), truths[0], truths[1])


def variance_and_freedom(gap_RI: FloatArray) -> tuple[float, float]:
    """As `mean_covariance` promises for one quantity, from the sums of a textbook's two-way table."""
    seeds, items = gap_RI.shape
    by_item = items * np.var(gap_RI.mean(axis=0)) / (items - 1) / items
    if seeds == 1:
        return by_item, items - 1
    by_seed = seeds * np.var(gap_RI.mean(axis=1)) / (seeds - 1) / seeds
    squares = np.sum(gap_RI**2) - items * np.sum(gap_RI.mean(axis=1) ** 2) - seeds * np.sum(gap_RI.mean(axis=0) ** 2)
    squares += gap_RI.size * gap_RI.mean() ** 2
    cells = (seeds - 1) * (items - 1)
    residual = squares / cells / gap_RI.size
    variance = max(by_seed + by_item - residual, by_seed, by_item)
    beyond = max(by_seed - residual, 0)
    spread = (beyond + 0.8 * (by_seed - beyond)) ** 2 / (seeds - 1) + 2 * beyond**2 / (seeds - 1) ** 2
    spread += by_item**2 / (items - 1) + residual**2 / cells
    return variance, max(variance**2 / spread, min(seeds, items) - 1)


def unbounded(base_I: FloatArray, full_RI: FloatArray, layer_RI: FloatArray) -> bool:
    """Fieller's condition, D^2 <= t^2 V_DD, with t at the fewer degrees of freedom of D and of N - (N / D) D."""
    d_RI, n_RI = full_RI - base_I, layer_RI - base_I
    if d_RI.mean() == 0:
        return True
    variance, freedom = variance_and_freedom(d_RI)
    fewest = min(freedom, variance_and_freedom(n_RI - n_RI.mean() / d_RI.mean() * d_RI)[1])
    return bool(d_RI.mean() ** 2 <= stats.t.ppf(0.975, fewest) ** 2 * variance)


def coverage(kind: Kind, studies: int, seed: int = 0, draws: int = 10) -> Coverage:
    """Simulate studies of one kind and count what their intervals hold."""
    seen = draw(kind, studies, np.random.default_rng(seed))
    held = {name: np.zeros(studies, dtype=bool) for name in ("pass@1", "gain", "to_full", "c", "bootstrap", "unbounded")}
    wrong = 0
    for m in range(studies):
        base_I, full_RI, layer_RI = seen.base_MI[m], seen.full_MRI[m], seen.layer_MRI[m]
        full, layer = seen.full_M[m], seen.layer_M[m]
        c = (layer - seen.base) / (full - seen.base)
        rate, found = pass_rate(full_RI), contribution(base_I, full_RI, layer_RI, draws=draws)
        held["pass@1"][m] = rate.low <= full <= rate.high
        held["gain"][m] = found.gain_full.low <= full - seen.base <= found.gain_full.high
        held["to_full"][m] = found.to_full.low <= layer - full <= found.to_full.high
        held["unbounded"][m] = found.fieller == "unbounded"
        held["c"][m] = found.fieller == "unbounded" or found.fieller[0] <= c <= found.fieller[1]
        held["bootstrap"][m] = found.bootstrap is not None and found.bootstrap[0] <= c <= found.bootstrap[1]
        wrong += held["unbounded"][m] != unbounded(base_I, full_RI, layer_RI)
    bounded = 1.0 - held["unbounded"]

    def share(name: str, among: FloatArray | None = None) -> float:
        return float(np.average(held[name], weights=among)) if among is None or among.any() else float("nan")

    spread = mean_chance(kind.gain_full + kind.luck * np.array([-1.0, 1.0]), float(np.hypot(DIFFICULTY, TASTE)))
    return Coverage(
        pass_at_1=share("pass@1"),
        gain=share("gain"),
        to_full=share("to_full"),
        c=share("c"),
        c_bounded=share("c", bounded),
        bootstrap=share("bootstrap", bounded),
        unbounded=share("unbounded"),
        wrong=wrong,
        luck_points=50 * float(np.diff(spread)[0]),
    )


def averages(sizes: tuple[int, ...], seeds: int, luck: float, samples: int, studies: int) -> str:
    """A row of coverages where several tasks of these sizes count equally; a training seed has the same luck on all of them."""
    rng, gains, held = np.random.default_rng(0), (0.8, 0.62), np.zeros((5, studies))
    twist = TWIST if luck else 0.0
    sd = float(np.sqrt(DIFFICULTY**2 + TASTE**2 + twist**2))
    for m in range(studies):
        luck_2R = luck * rng.normal(size=(2, seeds))
        base_TI, both_T = [], []
        for items in sizes:
            difficulty_I, taste_2I = rng.normal(0, DIFFICULTY, items), rng.normal(0, TASTE, (2, items))
            logit_2RI = np.array(gains)[:, None, None] + luck_2R[:, :, None] + (difficulty_I + taste_2I)[:, None]
            base_TI.append(rng.binomial(samples, expit(difficulty_I)) / samples)
            both_T.append(rng.binomial(samples, expit(logit_2RI + twist * rng.normal(size=logit_2RI.shape))) / samples)
        full_TRI, layer_TRI = zip(*both_T, strict=True)
        base = float(mean_chance(0.0, DIFFICULTY))
        logit_2, spread = (gains + luck_2R[:, 0], sd) if seeds == 1 else (gains, float(np.hypot(sd, luck)))
        full, layer = (float(mean_chance(logit, spread)) for logit in logit_2)
        rate, found = mean_pass_rate(full_TRI), contribution_over_tasks(base_TI, full_TRI, layer_TRI, draws=1)
        held[:4, m] = (
            rate.low <= full <= rate.high,
            found.gain_full.low <= full - base <= found.gain_full.high,
            found.to_full.low <= layer - full <= found.to_full.high,
            found.fieller == "unbounded" or found.fieller[0] <= (layer - base) / (full - base) <= found.fieller[1],
        )
        held[4, m] = found.fieller == "unbounded"
    return f"{'+'.join(map(str, sizes)):>17} {seeds:5} {samples:7} {luck:4} | " + " ".join(f"{share:6.3f}" for share in held.mean(axis=1))


def agreement(items: int, seeds: int, spread: float, rho: float, studies: int, draws: int = 300) -> str:
    """Two profiles over 28 layers on the same items; layers' gains have standard deviation `spread` in logits and correlate by `rho`."""
    rng, layers = np.random.default_rng(0), 28
    held, middle = np.zeros((2, studies)), np.zeros((3, studies))
    for m in range(studies):
        gain_2K = np.linalg.cholesky([[1, rho], [rho, 1]]) @ rng.normal(size=(2, layers)) * spread
        logit = 0.5 + gain_2K[:, :, None, None] + rng.normal(0, DIFFICULTY, items) + rng.normal(0, TASTE, (2, layers, 1, items))
        logit = logit + (0.1 * rng.normal(size=(2, layers, seeds, 1)) if seeds > 1 else 0)
        a_KRI, b_KRI = rng.binomial(4, expit(logit)) / 4
        (true,) = correlation(gain_2K[:1], gain_2K[1:], Coefficient.SPEARMAN)
        found = profile_agreement(a_KRI, b_KRI, same_items=True, draws=draws, seed=m)[Coefficient.SPEARMAN]
        drawn_BI = item_weights(rng, items, draws)
        rho_B = correlation(drawn_BI @ a_KRI.mean(axis=1).T, drawn_BI @ b_KRI.mean(axis=1).T, Coefficient.SPEARMAN)
        low, high = np.quantile(rho_B, [0.025, 0.975])
        held[:, m] = found.low <= true <= found.high, low <= true <= high
        middle[:, m] = true, found.measured, found.corrected
    row = "".join(f"{value:9.2f}" for value in middle.mean(axis=1))
    return f"{items:5} {seeds:5} {100 * spread / 6:6.1f} | {row} | {held[0].mean():14.2f} {held[1].mean():9.2f}"


def winners_curse(items: int, seeds: int, luck: float, studies: int) -> str:
    """28 layers whose true gains are all equal: what the best is reported above the truth, in points of the pass rate."""
    rng, layers = np.random.default_rng(0), 28
    above = np.zeros((2, studies))
    true = float(mean_chance(0.62, float(np.sqrt(DIFFICULTY**2 + TASTE**2 + luck**2))) - mean_chance(0.0, DIFFICULTY))
    for m in range(studies):
        difficulty_I = rng.normal(0, DIFFICULTY, items)
        taste, moved = rng.normal(0, TASTE, (layers + 1, 1, items)), luck * rng.normal(size=(layers + 1, seeds, 1))
        full_RI, *layer_KRI = rng.binomial(4, expit(0.62 + difficulty_I + taste + moved)) / 4
        base_I = rng.binomial(4, expit(difficulty_I)) / 4
        highest = float(np.max(np.mean(layer_KRI, axis=(1, 2))) - base_I.mean())
        held_out = best_layer(base_I, full_RI, np.stack(layer_KRI), seed=m).contribution.gain.difference
        above[:, m] = 100 * (highest - true), 100 * (held_out - true)
    found = [
        f"{name} {x.mean():+.2f} ({x.std() / studies**0.5:.2f})" for name, x in zip(("nothing held out", "held out"), above, strict=True)
    ]
    return f"{items:5} {seeds:5}  " + ", ".join(found)


def false_alarms(items: int, luck: float, studies: int) -> str:
    """Full and a layer that train equally well, with one training seed each: how often their weights differ at p < .05."""
    seen = draw(Kind(items, 1, luck, gain_full=0.62), studies, np.random.default_rng(2))
    found = [contribution(seen.base_MI[m], seen.full_MRI[m], seen.layer_MRI[m], draws=10).to_full.p < 0.05 for m in range(studies)]
    return f"{items:5} {luck:4} | {np.mean(found):5.3f}"


def few_items(items: int, samples: int, studies: int) -> str:
    """C(k) where full gains 12 points: how often |D| / SE(D) is 4 or more, and then the coverage and width of Fieller's set."""
    seen, base = draw(Kind(items, 1, 0.0, samples), studies, np.random.default_rng(1)), float(mean_chance(0.0, DIFFICULTY))
    held, widths = [], []
    for m in range(studies):
        found = contribution(seen.base_MI[m], seen.full_MRI[m], seen.layer_MRI[m], draws=10)
        if (found.strength or 0) >= SHOWN_FROM and found.fieller != "unbounded":
            low, high = found.fieller
            held.append(low <= (seen.layer_M[m] - base) / (seen.full_M[m] - base) <= high)
            widths.append(high - low)
    return f"{items:5} {samples:7} | {len(held) / studies:6.3f} {np.mean(held):8.3f} {np.median(widths):6.2f}"


def middle_shares(items: int, seeds: int, luck: float, studies: int) -> str:
    """28 layers whose gains are highest in the middle, whose third makes up 51% of their sum; 4 samples of each item."""
    rng, layers = np.random.default_rng(0), 28
    gain_K = 0.3 + 0.5 * np.exp(-(((np.arange(layers) + 0.5) / layers - 0.5) ** 2) / 0.05)
    twist, held = TWIST if luck else 0.0, np.zeros((2, studies))
    sd = float(np.sqrt(DIFFICULTY**2 + TASTE**2 + twist**2))
    for m in range(studies):
        difficulty_I, moved = rng.normal(0, DIFFICULTY, items), luck * rng.normal(size=(layers, seeds, 1))
        other_KRI = twist * rng.normal(size=(layers, seeds, items)) + rng.normal(0, TASTE, (layers, 1, items))
        rate_KRI = rng.binomial(4, expit(gain_K[:, None, None] + moved + difficulty_I + other_KRI)) / 4
        logit_K, spread = (gain_K + moved[:, 0, 0], sd) if seeds == 1 else (gain_K, float(np.hypot(sd, luck)))
        true_K = mean_chance(logit_K, spread) - mean_chance(0.0, DIFFICULTY)
        found = middle_third(rng.binomial(4, expit(difficulty_I)) / 4, rate_KRI, range(layers), layers, draws=400)
        true = true_K[list(found.layers)].sum() / true_K.sum()
        for at, ends in enumerate((found.fieller, found.bootstrap)):
            held[at, m] = ends is None or ends[0] <= true <= ends[1]
    return f"{items:5} {seeds:5} {luck:4} | {held[0].mean():7.3f} {held[1].mean():9.3f}"


def print_coverage(kinds: list[Kind], studies: int) -> None:
    """The main table, and a line that counts its misses."""
    print("items seeds samples luck | pass@1  gain to full  C(k) | unbounded wrong  C(k) of the bounded")
    missed = wrong = 0
    for number, kind in enumerate(kinds):
        found = coverage(kind, studies, seed=number)
        row = f"{kind.items:5} {kind.seeds:5} {kind.samples:7} {found.luck_points:4.1f} | {found.pass_at_1:6.3f} {found.gain:5.3f} "
        row += f"{found.to_full:7.3f} {found.c:5.3f} | {found.unbounded:9.3f} {found.wrong:5} {found.c_bounded:20.3f}"
        print(row + "".join(f"  * {miss}" for miss in found.misses()), flush=True)
        missed, wrong = missed + len(found.misses()), wrong + found.wrong
    print(f"{4 * len(kinds) - missed} of {4 * len(kinds)} within {WANTED[0]:.0%} to {WANTED[1]:.0%}; {wrong} wrong on unbounded\n")


def main() -> None:
    started = time.process_time()
    sizes = [(items, seeds) for items in (164, 500) for seeds in (1, 3, 5)]
    print(f"Coverage, 4,000 studies a row; luck: points between seeds; *: not within {WANTED[0]:.0%} to {WANTED[1]:.0%}")
    print("full gains 12 points, C is 0.78")
    print_coverage([Kind(*size, luck, samples) for samples in (4, 1) for size in sizes for luck in (0.0, 0.1, 0.4)], 4000)
    print("1,000 studies a row, full gains 2 points")
    print_coverage([Kind(*size, luck, 4, 0.15, 0.12) for size in sizes for luck in (0.0, 0.1)], 1000)
    print("Averages over tasks, 1,000 studies a row\n            items seeds samples luck | pass@1   gain to full   C(k) unbounded")
    for sizes, samples in (((500, 1319, 674, 40), 4), ((164, 378), 1)):
        for seeds in (1, 3, 5):
            for luck in (0.0, 0.1, 0.4):
                print(averages(sizes, seeds, luck, samples, 1000), flush=True)
    print("\nBootstrap of C(k) where it is bounded, 400 studies a row\nitems seeds luck | Fieller bootstrap")
    for kind in [Kind(164, seeds, luck) for seeds in (1, 3, 5) for luck in (0.0, 0.1, 0.4)]:
        found = coverage(kind, 400, draws=400)
        print(f"{kind.items:5} {kind.seeds:5} {found.luck_points:4.1f} | {found.c_bounded:7.3f} {found.bootstrap:9.3f}", flush=True)
    print("\nTwo equally good trainings with one seed each, 2,000 studies a row\nitems luck | p < .05")
    for items in (164, 500):
        for luck in (0.0, 0.1, 0.4):
            print(false_alarms(items, luck, 2000), flush=True)
    print("\nC(k) on few items, 1,500 studies a row\nitems samples |  shown coverage  width")
    for items in (30, 40, 64, 164):
        print(few_items(items, 4, 1500), flush=True)
    print("\nShare of the middle third of 28 layers, 400 studies a row\nitems seeds luck | Fieller bootstrap")
    for items in (164, 500):
        for seeds, luck in ((1, 0.0), (1, 0.1), (3, 0.0), (3, 0.1), (5, 0.1)):
            print(middle_shares(items, seeds, luck, 400), flush=True)
    print("\nSpearman's rho of two profiles, 60 studies a row; spread: of the layers' true pass rates, points")
    print("items seeds spread |      true measured corrected | this interval bootstrap")
    for items, seeds in ((164, 1), (500, 3)):
        for spread in (0.15, 0.5):
            for rho in (0.6, 0.9):
                print(agreement(items, seeds, spread, rho, 60), flush=True)
    print("\nThe best of 28 equal layers, reported above the truth by (standard error), points, 200 studies a row\nitems seeds  chosen on")
    for items, seeds, luck in ((164, 1, 0.0), (500, 1, 0.0), (164, 3, 0.1), (500, 3, 0.1)):
        print(winners_curse(items, seeds, luck, 200), flush=True)
    print(f"\n{time.process_time() - started:.0f} s of CPU time")


if __name__ == "__main__":
    main()
