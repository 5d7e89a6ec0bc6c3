"""Run the recipes of the domains as studies under each of their algorithms, and print what base, full and the middle layer solve.

    python bench/recipes.py                                   # all nine below, about three quarters of an hour on two cores
    python bench/recipes.py alfworld/grpo alfworld/gigpo --seeds 0 1 2 --versus

Each study goes to OUTPUT/DOMAIN-ALGORITHM and continues where it was stopped. Intervals are 95%: over items with one seed, over items
and training seeds with several.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from onelayer.evals.records import Decoding, read_evaluation
from onelayer.evals.statistics import Difference, FloatArray, Rate, paired_difference
from onelayer.trainers.manifest import complete_manifest

RECIPES = [f"{domain}/{algorithm}" for domain in ("math", "code", "alfworld") for algorithm in ("grpo", "dr_grpo", "gigpo")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=RECIPES, help="DOMAIN/ALGORITHM each (default: three algorithms in three domains)")
    parser.add_argument("--output", type=Path, default=Path("runs/recipes"), help="where the studies go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="training seeds")
    parser.add_argument("--versus", action="store_true", help="compare the second recipe with the first, set by set")
    args = parser.parse_args()
    directories = []
    for recipe in args.recipes:
        directories.append(args.output / (recipe.replace("/", "-") + (f"-{len(args.seeds)}-seeds" if len(args.seeds) > 1 else "")))
        domain, _, algorithm = recipe.partition("/")
        command = ["study", domain, f"trainer.algorithm={algorithm}", f"study.seeds={args.seeds}", "--output", str(directories[-1])]
        subprocess.run([sys.executable, "-m", "onelayer", *command], check=True, stdout=subprocess.DEVNULL)
        print(table(recipe, directories[-1]), flush=True)
    if args.versus:
        print(versus(*directories))


def table(recipe: str, directory: Path) -> str:
    """A line an arm: pass rates, the difference to base, layer contribution, cost of the dearest run."""
    report = json.loads((directory / "report.json").read_text())
    lines = [f"{recipe}: {report['split']}, {report['items']} items"]
    for arm in report["arms"]:
        sampled, greedy = arm["sampled"], arm["greedy"]
        line = f"  {arm['name']:8s} T=1 {rate(Rate(**sampled['pass_rate']))}  greedy {rate(Rate(**greedy['pass_rate']))}"
        if gain := sampled["to_base"]:
            line += f"  over base {difference(Difference(**gain))}, greedy {difference(Difference(**greedy['to_base']))}"
        if share := sampled["contribution"]:
            line += f"  C {share['point'] if share['point'] is None else round(share['point'], 2)} {share['fieller']}"
        if arm["name"] != "base":
            runs = [complete_manifest(path.parent) for path in (directory / arm["name"].replace(":", "-")).glob("*/run.json")]
            line += f"  {max(run.seconds for run in runs):.0f} s  {max(run.cost.peak_memory for run in runs) / 2**20:.0f} MiB"
        lines.append(line)
    return "\n".join(lines)


def versus(first: Path, second: Path) -> str:
    """The paired difference of two studies' arms on the same items, with training seeds paired too."""
    lines = [f"{second.name} - {first.name}"]
    for arm in sorted({path.parent.parent.parent.name for path in first.glob("*/*/test/evaluation.json")}):
        for decoding in Decoding:
            gap = paired_difference(rates(second / arm, decoding), rates(first / arm, decoding))
            lines.append(f"  {arm:8s} {decoding.value:8s} {difference(gap)}")
    return "\n".join(lines)


def rates(arm: Path, decoding: Decoding) -> FloatArray:
    """Share of right samples, training seeds x items."""
    runs = sorted(arm.glob("*/test/evaluation.json"))
    return np.stack([read_evaluation(path.parent).outcomes(decoding).rate_I for path in runs])


def rate(found: Rate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def difference(found: Difference) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


if __name__ == "__main__":
    main()
