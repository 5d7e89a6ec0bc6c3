"""Where text is printed: what a terminal would obey, or show in another order, is written out (common/text.py)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from ..common.text import shown


class Shown:
    """A stream that writes text as it is shown. rich writes to the stream itself; console.py has what it writes."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(shown(text) if isinstance(text, str) else text)  # click asks whether it takes bytes
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def escaping() -> contextlib.AbstractContextManager[Any]:
    """Within it what is printed is shown. Not on stderr, where progress is drawn over itself."""
    return contextlib.redirect_stdout(Shown(sys.stdout))
