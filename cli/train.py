"""`onelayer train`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .arguments import RECIPE, AsJson, DryRun, Full, Measure, Overrides, Quiet, print_json, split_recipe


def train(
    recipe: Annotated[str | None, RECIPE] = None,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="a new directory for the run  [default: runs/NAME]")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="continue the run in DIR, under its own recipe; trainer.steps=N extends it")
    ] = None,
    dry_run: DryRun = False,
    full: Full = False,
    measure: Measure = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train one set of parameters: a layer, several, or all.

    The run's directory gets config.yaml, metrics.jsonl (a line a step), checkpoints and, at the end, patch.safetensors.
    Ctrl-C and SIGTERM write a checkpoint first. A run that is complete is left as it is, unless
    --resume gives it more steps. Several devices train one run where torchrun starts the command: docs/several-devices.md.
    The exit code is 1 where no group of episodes ever had an advantage, so that nothing was learned.

    \b
    Examples:
      onelayer train quickstart trainer.trained_set=layer:3 trainer.lr=3e-4 --output runs/layer3
      onelayer train --resume runs/layer3
      onelayer train --resume runs/layer3 trainer.steps=120
      onelayer train quickstart trainer.trained_set=mid:2 --dry-run
      torchrun --nproc-per-node 2 -m onelayer train quickstart --output runs/both
    """
    from ..common.errors import UserError
    from ..trainers.launch import joined
    from .config import load

    recipe, overrides = split_recipe(recipe, overrides)
    with joined() as ranks:
        if recipe is not None and resume is not None:
            raise UserError("train takes either RECIPE or --resume DIR, which continues a run under its own recipe")
        if recipe is None and resume is None and not overrides:
            raise UserError("nothing to train; name a RECIPE, keys that differ from the defaults (env.id=...), or --resume DIR")
        if resume is not None and output is not None:
            raise UserError("--resume DIR continues in DIR; leave out --output")
        if resume is not None and not (resume / "config.yaml").is_file():
            raise UserError(f"{resume}: no run to resume here, it has no config.yaml")
        config = load(str(resume / "config.yaml") if resume else recipe, overrides)
        if resume is None and not config.eval.every and (config.eval.top_p < 1 or config.eval.top_k):
            raise UserError(
                "eval.top_p, eval.top_k: training draws from all tokens, and `train` evaluates nothing without eval.every; leave them to "
                "`study` and `eval`"
            )
        if dry_run:
            if ranks.size > 1:
                raise UserError("--dry-run plans a run in one process; leave out torchrun")
            from .plan import plan_training, show

            plan = plan_training(config, measure)
            print_json(plan) if as_json else show(plan, full)
            return
        from ..trainers.manifest import complete_manifest, read_manifest
        from ..trainers.run import NO_SIGNAL
        from ..trainers.train import train as run

        before = read_manifest(resume) if resume else None
        patch = run(config, resume or output or Path("runs") / config.name, resume=resume is not None, ranks=ranks)
    if not ranks.first:
        return
    manifest = complete_manifest(patch.parent)
    if before and before.finished == manifest.finished:
        print(f"onelayer: {resume}: complete since {manifest.finished}, nothing is left to do", file=sys.stderr)
    if as_json:
        print_json({"directory": patch.parent, "patch": patch, "run": manifest})
    else:
        print(patch)
    if manifest.no_signal:
        print(f"onelayer: {patch.parent}: {NO_SIGNAL}", file=sys.stderr)
        raise typer.Exit(1)
