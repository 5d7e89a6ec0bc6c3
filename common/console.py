"""rich's console and tables, for text that others wrote and for any width."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from typing import Any

from rich import console, table
from rich.segment import Segment

from .text import shown

WIDE = 10_000
"""Columns where there is no terminal: what a program reads is neither shortened nor broken into lines."""


class Console(console.Console):
    """Its own control sequences pass, and nobody else's."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        if not self.is_terminal and settings.get("width") is None and "COLUMNS" not in os.environ:
            self.width = WIDE

    def render(self, renderable: Any, options: console.ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else shown(text), style, control)


class Table(table.Table):
    """A table that never shortens a figure: columns for which a terminal is too narrow follow below, beside the first column again."""

    def __rich_console__(self, console: console.Console, options: console.ConsoleOptions) -> console.RenderResult:
        for number, columns in enumerate(self._blocks(console, options)):
            block = copy(self)
            block.columns = [replace(column, _index=index) for index, column in enumerate(columns)]
            block.title = None if number else self.title
            yield from table.Table.__rich_console__(block, console, options)

    def _blocks(self, console: console.Console, options: console.ConsoleOptions) -> Iterator[list[table.Column]]:
        """The columns, as many together as fit."""
        first, *others = self.columns
        line = 1 if self.box else 0
        left, *widths = (self._needed(column, console, options) + line for column in self.columns)
        left = min(left, options.max_width // 2) + line  # a long name is broken into lines
        block, used = [first], left
        for column, width in zip(others, widths, strict=True):
            if len(block) > 1 and used + width > options.max_width:
                yield block
                block, used = [first], left
            block, used = [*block, column], used + width
        yield block

    def _needed(self, column: table.Column, console: console.Console, options: console.ConsoleOptions) -> int:
        """Characters that a column takes at least."""
        found = self._measure_column(console, options.update(width=WIDE), column)
        return found.maximum if column.no_wrap else found.minimum
