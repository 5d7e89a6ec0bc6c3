"""`onelayer estimate`"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import RECIPE, AsJson, Overrides, Quiet, print_json, split_recipe

if TYPE_CHECKING:
    from ..trainers.estimate import Estimate
    from ..trainers.hardware import Calibration
    from .sketch import Sketch

LAYER = re.compile(r"layer:(\d+)(\.\w+)?")
LEAST_CACHE_GIB, LEAST_TOKENS = 1.0, 256
"""How far a remedy lowers `agent.kv_cache_gib` and `trainer.tokens_per_forward`."""


def estimate(
    recipe: Annotated[str | None, RECIPE] = None,
    overrides: Overrides = None,
    hardware: Annotated[str, typer.Option(metavar="NAME", help="h200, h100, a100-80 or 4090")] = "h100",
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="what bench/gpu.py has measured on such a device; without it there are no seconds")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Say what the runs of a recipe take on a device: peak memory by part, operations of a step, and how many devices would hold it.

    Weights are neither loaded nor fetched. Prompts are as long as agent.max_prompt, or as the first one where the recipe has no such limit.
    Of single layers the lowest is shown, which takes the most. A recipe that does not fit is refused with the key to change, and the exit
    code is 2.

    \b
    Examples:
      onelayer estimate paper/qwen3-1.7b-numina --hardware h200
      onelayer estimate paper/qwen3-8b-numina --hardware h100 study.trained_sets=[layer:16]
      onelayer estimate quickstart --hardware 4090 --json
    """
    from ..common import progress
    from ..common.errors import UserError
    from ..trainers.hardware import GIB, USABLE_GIB, devices_for, read_calibration
    from .config import load
    from .plan import estimate_of
    from .sketch import of_outline

    if hardware not in USABLE_GIB:
        raise UserError(f"--hardware {hardware}: there are {', '.join(USABLE_GIB)}")
    measured = read_calibration(calibration, hardware) if calibration else None
    usable = USABLE_GIB[hardware]
    recipe, keys = split_recipe(recipe, overrides)
    config = load(recipe, keys)
    found = of_outline(config, ["full", *config.study.trained_sets], with_items=config.agent.max_prompt is None)
    shown: list[dict[str, Any]] = []
    refused: list[str] = []
    names = _costliest(found.sets)
    with progress.progress("estimates", len(names)) as told:
        for name, stands_for in names.items():
            one = estimate_of(found, name)
            needed = devices_for(one, usable)
            seconds = measured.seconds(one, config.agent.engine) if measured else None
            shown.append({"stands_for": stands_for, "devices": needed, "seconds": seconds, "estimate": one})
            if one.peak is None:
                refused.append(f"{name}: its memory is not known, since the model's code cannot be followed without values")
            elif needed != 1:
                remedy = _remedy(found, name, usable, needed)
                refused.append(f"{name} takes {one.peak / GIB:.1f} GiB, and one {hardware} has {usable:g} GiB: {remedy}")
            told.advance()
    if as_json:
        whole = {"name": config.name, "model": config.model.path, "hardware": hardware, "usable_gib": usable, "missing": found.missing}
        print_json(whole | {"sets": shown, "refused": refused})
    else:
        _show(found, shown, hardware, usable, measured)
    if refused:
        raise UserError("; ".join(refused))


def _costliest(sets: Sequence[str]) -> dict[str, int]:
    """The sets to estimate, and how many sets each stands for: of single layers the lowest, above which most carries gradients."""
    layers = sorted((int(found[1]), name) for name in sets if (found := LAYER.fullmatch(name)) and not found[2])
    alike = {name for _, name in layers}
    return {name: len(layers) if name in alike else 1 for name in sets if name not in alike or name == layers[0][1]}


def _remedy(found: Sketch, name: str, usable: float, divided: int | None) -> str:
    """What to change so that the set fits, tried with the estimator itself: one key, else all of them, else another device.

    divided: devices that would hold it if its state were divided over them; null: none would.
    """
    from ..trainers.hardware import GIB, USABLE_GIB, devices_for
    from .plan import estimate_of

    def tried(change: dict[str, Any]) -> Estimate:
        return estimate_of(changed(found, change), name)

    def reached(one: Estimate) -> str:
        return f"{(one.peak or 0) / GIB:.1f}"

    least: dict[str, Any] = {}
    for values in _changes(found):
        if devices_for(tried(values[-1]), usable) == 1:
            change, one = next((change, one) for change in values if devices_for(one := tried(change), usable) == 1)
            return f"{_written(change)} brings it to {reached(one)}"
        least |= values[-1]
    one = tried(least)
    if devices_for(one, usable) == 1:
        return f"it takes {reached(one)} with {_written(least)}"
    larger = [other for other, gib in USABLE_GIB.items() if gib > usable and devices_for(one, gib) == 1]
    otherwise = f"take {larger[-1]}" if larger else "take a smaller model, or shorter replies (agent.max_tokens)"
    several = f", or {divided} devices that divide its weights and state, which onelayer does not do" if divided else ""
    return f"it would still take {reached(one)} with {_written(least)}; {otherwise}{several}"


def _changes(found: Sketch) -> Iterator[list[dict[str, Any]]]:
    """Changes of one key each that take less memory, in order, the least last."""
    cache, tokens = found.config.agent.kv_cache_gib, found.config.trainer.tokens_per_forward or LEAST_TOKENS
    caches = [cache / 2**half for half in range(1, 11) if cache / 2**half >= LEAST_CACHE_GIB]
    yield [{"trainer.tokens_per_forward": tokens // 2**half} for half in range(1, 11) if tokens // 2**half >= LEAST_TOKENS]
    yield [{"agent.kv_cache_gib": gib} for gib in caches]
    if not found.config.trainer.checkpoint_layers:
        yield [{"trainer.checkpoint_layers": True}]


def changed(found: Sketch, change: dict[str, Any]) -> Sketch:
    """The same recipe with other values of some keys, SECTION.KEY each."""
    from dataclasses import replace

    config = found.config
    for key, value in change.items():
        section, _, name = key.partition(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return replace(found, config=config)


def _written(change: dict[str, Any]) -> str:
    return " ".join(f"{key}={str(value).lower() if isinstance(value, bool) else f'{value:g}'}" for key, value in change.items())


def _show(found: Sketch, shown: list[dict[str, Any]], hardware: str, usable: float, measured: Calibration | None) -> None:
    from ..common.console import Console
    from .plan import memory_table

    runs: list[Estimate] = [one["estimate"] for one in shown]
    print(f"{found.config.name}: {found.config.model.path}, {runs[0].parameters:,} parameters; one {hardware} has {usable:g} GiB to use\n")
    print("\n".join(found.missing), end="\n\n")
    Console().print(memory_table(runs), "")
    for one in shown:
        run: Estimate = one["estimate"]
        count = one["stands_for"] - 1
        others = f", as the other {'single layer' if count == 1 else f'{count} single layers'} at most" if count else ""
        print(f"{run.trained_set}{others}: {run.trained_parameters:,} parameters, {run.flops:.2g} operations a step, {_fit(one, hardware)}")
        if one["seconds"]:
            rollout, update = one["seconds"]["rollout"], one["seconds"]["update"]
            print(f"  a step: rollout {rollout:.0f} s, update {update:.0f} s, at the rates of {measured and measured.device}")
    if measured is None:
        print("Time: not known; --calibration takes the rates that bench/gpu.py has measured")


def _fit(one: dict[str, Any], hardware: str) -> str:
    if one["devices"] == 1:
        return f"fits on one {hardware}"
    return f"would take {one['devices']} x {hardware} if divided over them" if one["devices"] else f"takes more than {hardware} has"
