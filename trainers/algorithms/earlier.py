"""Recipes of releases in which the keys of all algorithms stood side by side in `trainer`."""

from __future__ import annotations

from typing import Any

GIGPO = ("gamma", "step_weight", "invalid_penalty", "similarity", "per_step_statistics")
SHARED = ("scale_advantages", "loss_weights")
MOVED = {f"trainer.{key}": f"trainer.algorithm.{key} (of gigpo)" for key in GIGPO} | {
    "trainer.scale_advantages": "trainer.algorithm=dr_grpo where it is false (of gigpo: trainer.algorithm.scale_advantages)",
    "trainer.loss_weights": "trainer.algorithm.loss_weights, and of dr_grpo always constant",
}
"""Keys of those releases, and what says the same now."""


def upgraded(recipe: Any) -> Any:
    """A recipe as a file of any release holds it, with today's keys. What is no recipe comes back as it is.

    Settings that were half GRPO and half Dr. GRPO have no name of their own: they are the function of one with the weights of the other.
    """
    trainer = recipe.get("trainer") if isinstance(recipe, dict) else None
    if not isinstance(trainer, dict) or not isinstance(name := trainer.get("algorithm", "grpo"), str):
        return recipe
    old = {key: trainer[key] for key in (*GIGPO, *SHARED) if key in trainer}
    kept = {key: value for key, value in trainer.items() if key not in old}
    return recipe | {"trainer": kept | {"algorithm": _algorithm(name, old)}} if old else recipe


def _algorithm(name: str, old: dict[str, Any]) -> dict[str, Any]:
    if name not in ("grpo", "dr_grpo"):
        return {"name": name, **old}
    scaled = old.get("scale_advantages", name == "grpo")
    weights = old.get("loss_weights", "sequence_mean" if name == "grpo" else "constant")
    if scaled and weights != "constant":
        return {"name": "grpo", "loss_weights": weights}
    if not scaled and weights == "constant":
        return {"name": "dr_grpo"}
    module = "grpo" if scaled else "dr_grpo"
    return {"name": f"onelayer.trainers.algorithms.{module}:{module}", "loss_weights": weights}
