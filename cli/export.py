"""`onelayer export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Option(metavar="DIR", help="directory of a finished run")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="a new directory for the model")],
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run the Python code that comes with the base; only for authors you trust")
    ] = False,
) -> None:
    """Write a run's result as a model that transformers loads.

    The run's patch is merged into its base; the directory holds weights, configuration and tokenizer. Python code that
    comes with the base is run only with --trust-remote-code, whatever the run's own recipe says.

    \b
    Example:
      onelayer export --run runs/layer3 --output models/layer3
    """
    from pydantic import ValidationError

    from ..agents import patch
    from ..agents.config import ModelConfig
    from ..agents.policy import load_base
    from ..common.errors import UserError, first_problem
    from ..trainers.manifest import MANIFEST, complete_manifest
    from ..trainers.run import read_patch

    model = complete_manifest(run).config.model | {"trust_remote_code": trust_remote_code}
    try:
        base = load_base(ModelConfig.model_validate(model))
    except ValidationError as error:
        raise UserError(f"{run / MANIFEST}: config.model: {first_problem(error)}; bring the file back") from error
    patch.export(base, [read_patch(run)], output)
    print(output)
