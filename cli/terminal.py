"""Where text is printed: what a terminal would obey, or show in another order, is written out (common/text.py)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from rich.console import Console
from rich.file_proxy import FileProxy

from ..common.text import shown

CLEAR_LINE = "\r\x1b[2K"


class Shown(FileProxy):
    """A stream that writes text as it is shown.

    rich writes its own control sequences to the stream behind it; console.py has the text between them. A stream of this class is left in
    its place while rich draws a progress bar, so what others say meanwhile comes here too, on the line of the bar, which is drawn again.
    """

    def __init__(self, stream: TextIO, clear: bool = False) -> None:
        """clear: empty the line on which a text begins."""
        super().__init__(Console(file=stream), stream)
        self._stream, self._before = stream, CLEAR_LINE if clear else ""
        self._begun = False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            return self._stream.write(text)  # click asks whether it takes bytes
        if text:
            self._stream.write(("" if self._begun else self._before) + shown(text))
            self._begun = not text.endswith("\n")
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def escaping() -> Iterator[None]:
    """Within it what is printed, on stderr too, is shown."""
    errors = Shown(sys.stderr, clear=sys.stderr.isatty())
    with contextlib.redirect_stdout(Shown(sys.stdout)), contextlib.redirect_stderr(errors):
        yield
