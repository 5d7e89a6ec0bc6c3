"""What a patch holds of a weight NAME of the model: the whole of it, single entries, or a product of low rank that is added to it.

whole      NAME
entries    NAME, their values, and NAME.places, where they stand in the flattened weight, in rising order
product    NAME.lora_left [..., M, R] and NAME.lora_right [..., R, N]: their product is added to the weight [..., M, N]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

PLACES, LEFT, RIGHT = ".places", ".lora_left", ".lora_right"


def weight_of(tensor: str) -> str:
    """The name of the weight that a tensor of a patch changes."""
    return next((tensor.removesuffix(end) for end in (PLACES, LEFT, RIGHT) if tensor.endswith(end)), tensor)


def by_weight(tensors: Iterable[str]) -> dict[str, list[str]]:
    """Names of a patch's tensors by the weight that they change."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(weight_of(name), []).append(name)
    return found


def changed(weight: torch.Tensor, held: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """A weight with the change that a patch holds of it, by the endings of the tensors' names; None where it does not fit the weight."""
    held = {end: tensor.to(weight.device) for end, tensor in held.items()}
    if held.keys() == {""} and held[""].shape == weight.shape:
        return held[""]
    if held.keys() == {"", PLACES} and _are_places(held[PLACES], held[""], weight):
        found = weight.clone()
        found.view(-1)[held[PLACES]] = held[""].to(weight.dtype)
        return found
    if held.keys() == {LEFT, RIGHT} and _multiply_to(held[LEFT].shape, held[RIGHT].shape, weight.shape):
        return added(weight, held[LEFT], held[RIGHT])
    return None


def added(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The weight with the product added to it in float32, in the weight's own format."""
    return (weight.float() + left @ right).to(weight.dtype)


def _are_places(places: torch.Tensor, values: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether these are values for different places in the weight."""
    if places.ndim != 1 or places.shape != values.shape or not len(places):
        return False
    rising = bool((places[1:] > places[:-1]).all())
    return rising and int(places[0]) >= 0 and int(places[-1]) < weight.numel()


def _multiply_to(left: torch.Size, right: torch.Size, weight: torch.Size) -> bool:
    ranked = len(left) == len(right) == len(weight) >= 2 and left[-1] == right[-2] >= 1
    return ranked and left[:-1] == weight[:-1] and right[-1] == weight[-1] and right[:-2] == weight[:-2]
