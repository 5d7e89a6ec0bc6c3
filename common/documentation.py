"""Where the documentation is: its pages come with the packages, in a checkout and in a wheel."""

from __future__ import annotations

from pathlib import Path

FOLDER = (Path(__file__).parent.parent / "docs").resolve()


def page(name: str) -> str:
    """The file of a page on this machine, for messages: `page("vllm")`."""
    return str(FOLDER / f"{name}.md")
