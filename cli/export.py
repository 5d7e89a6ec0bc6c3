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
    from ..envs.errors import UserError

    if not (run / "run.json").is_file():
        raise UserError(f"{run}: no finished run here, it has no run.json; --run takes the directory of `onelayer train`")

    from ..agents import patch
    from ..agents.policy import load_base
    from .config import load

    config = load(str(run / "config.yaml"))
    patch.export(load_base(config.model), [patch.read(run / "patch.safetensors")], output)
    print(output)
