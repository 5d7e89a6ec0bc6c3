"""Text that others wrote, made fit to be shown."""

from __future__ import annotations


def plain(text: object) -> str:
    """Characters that are obeyed and not shown - control sequences, and those that turn the direction of reading - are written out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))
