"""What the recipes of configs/paper take on each kind of device: the table of docs/scaling.md.

    python bench/estimates.py [--sets full layer:14] [--recipes qwen3-1.7b-numina ...]

Memory is that of a step on one device at most, as `onelayer estimate` shows it; of each kind of device so many are needed. A dash: more of
them would not help, without other settings.
"""

from __future__ import annotations

import argparse

from onelayer.cli.config import RECIPES, load
from onelayer.cli.plan import estimate_of
from onelayer.cli.sketch import of_outline
from onelayer.trainers.hardware import GIB, USABLE_GIB, devices_for

OF_THE_PAPER = ["qwen3-1.7b-numina", "qwen3-4b-numina", "qwen3-8b-numina", "qwen2.5-math-1.5b-math", "qwen2.5-1.5b-alfworld"]
OF_THE_PAPER += ["qwen2.5-3b-alfworld", "deepseek-7b-skywork"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["full", "layer:14"], help="trained sets")
    parser.add_argument("--recipes", nargs="+", default=OF_THE_PAPER, help=f"files of {(RECIPES / 'paper').name}")
    args = parser.parse_args()
    columns = ["recipe", "trained set", "parameters", "operations a step", "weights", "trained", "activations and head", "vLLM", "GiB"]
    print("| " + " | ".join([*columns, *USABLE_GIB]) + " |\n" + "| --- " * (len(columns) + len(USABLE_GIB)) + "|")
    for recipe in args.recipes:
        found = of_outline(load(f"paper/{recipe}"), args.sets, with_items=False)
        for trained_set in args.sets:
            one = estimate_of(found, trained_set)
            assert one.rollout and one.update
            most = max((one.rollout, one.update), key=lambda memory: memory.total)
            parts = [most.weights, most.trained, most.activations + most.head, most.copy_of_engine + most.keys_and_values, most.total]
            devices = [str(devices_for(one, gib) or "-") for gib in USABLE_GIB.values()]
            cells = [recipe, trained_set, f"{one.trained_parameters:,}", f"{one.flops:.1e}", *(f"{part / GIB:.1f}" for part in parts)]
            print("| " + " | ".join([*cells, *devices]) + " |", flush=True)


if __name__ == "__main__":
    main()
