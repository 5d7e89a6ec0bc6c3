"""`onelayer export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Option(metavar="DIR", help="directory of a finished run")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="a new directory for the model")],
) -> None:
    """Write a run's result as a model that transformers loads.

    The run's patch is merged into its base; the directory holds weights, configuration and tokenizer.

    \b
    Example:
      onelayer export --run runs/layer3 --output models/layer3
    """
    from ..agents import patch
    from ..agents.config import ModelConfig
    from ..agents.policy import load_base
    from ..trainers.manifest import complete_manifest
    from ..trainers.run import read_patch

    base = load_base(ModelConfig.model_validate(complete_manifest(run).config.model))
    patch.export(base, [read_patch(run)], output)
    print(output)
