"""Text that others wrote, made fit to be shown."""

from __future__ import annotations

import re

# Characters that are not seen, or make text look like other text: control (ANSI escapes begin with one), bidirectional overrides, tags.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: object) -> str:
    """Text on one line: what is obeyed and not shown - line breaks, control sequences, what turns the reading round - is written out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 check`, `2 checks`, `3 entries`. plural: of nouns that take another ending than s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def shown(text: object) -> str:
    """Text as it is, on as many lines, with the other characters that would not be seen written out: \\x1b for an escape."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
