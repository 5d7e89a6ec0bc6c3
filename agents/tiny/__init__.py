"""The tiny base: a Qwen3 of 1.4 million parameters that ships with the package, so that nothing has to be downloaded.

`python -m onelayer.agents.tiny.pretrain --output DIR` rebuilds it from nothing.
"""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).parent / "model"
