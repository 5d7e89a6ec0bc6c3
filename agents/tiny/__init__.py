"""The tiny bases: Qwen3 models of 1.4 million parameters that ship with the package, so that nothing has to be downloaded.

`tiny` knows all three domains; `tiny-alfworld` has gone on with ALFWorld alone, where `tiny` lacks the skill that RL could bring out.
`make tiny` rebuilds both from nothing.
"""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parent / "model"
PATHS = {"tiny": PATH, "tiny-alfworld": Path(__file__).parent / "alfworld_model"}
"""Directories by the names that `model.path` takes."""
