"""Keys and values of the rows that decode together."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from .prefix import Kept, Prompts

WIDER_BY = 64
"""Columns: a cache that has to be longer gets a multiple of these."""


class SlotCache(Cache):
    """Keys and values of all rows in place, one slot a row; a step writes each row's own column."""

    def __init__(self, slots: int, width: int):
        super().__init__(layers=[])
        self.slots, self.width = slots, width
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def widen(self, width: int) -> None:
        """Room for at least so many columns; what is held stays where it is."""
        if width <= self.width:
            return
        self.width = -(-width // WIDER_BY) * WIDER_BY
        for held in (self.keys, self.values):
            for layer, states in held.items():
                slots, heads, columns, size = states.shape
                held[layer] = states.new_zeros(slots, heads, self.width, size)
                held[layer][:, :, :columns] = states

    def fill(self, rows: torch.Tensor, prompts: Prompts, prompt_rows: torch.Tensor) -> None:
        """Copy prompts into slots, at the same columns."""
        for mine, theirs in ((self.keys, prompts.cache.keys), (self.values, prompts.cache.values)):
            for layer, states_PHTD in theirs.items():
                if layer not in mine:
                    _, heads, _, size = states_PHTD.shape
                    mine[layer] = states_PHTD.new_zeros(self.slots, heads, self.width, size)
                mine[layer][rows, :, : prompts.width] = states_PHTD[prompt_rows]

    def keep(self, row: int, start: int, end: int, ids: list[int]) -> Kept:
        """A copy of what is held of a row in columns `start` to `end` - 1: the keys and values of `ids`."""
        keys, values = ({layer: states[row, :, start:end].clone() for layer, states in held.items()} for held in (self.keys, self.values))
        return Kept(ids, keys, values)

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        for states in (self.keys, self.values):
            for layer in states:
                states[layer][target] = states[layer][source]

    def advance(self, end_B: torch.Tensor) -> int:
        """Write the next keys and values to column `end_B[row]` of each row; returns how many columns are in use."""
        first, last = int(end_B.min()), int(end_B.max())
        self._count, self._columns = len(end_B), last + 1
        # One slice where all rows write the same column: several times faster than an index a row.
        rows = slice(0, len(end_B)) if first == last else torch.arange(len(end_B), device=end_B.device)
        self._place = (rows, slice(None), last if first == last else end_B)
        return self._columns

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        held = []
        for states, new_BH1D in ((self.keys[layer_idx], key_states), (self.values[layer_idx], value_states)):
            states[self._place] = new_BH1D[:, :, 0]
            held.append(states[: self._count, :, : self._columns])
        return tuple(held)
