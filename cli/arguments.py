"""Arguments that several verbs take."""

from __future__ import annotations

from typing import Annotated

import typer

RECIPE = typer.Argument(
    metavar="RECIPE", help="a YAML file, or the name of a recipe that ships, for example quickstart; without one: the defaults"
)
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="keys that differ, for example trainer.lr=1e-5")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print every key of the recipe and what would be done; do nothing")]


def split_recipe(recipe: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """Recipe and overrides: a first argument KEY=VALUE is no recipe."""
    if recipe is not None and "=" in recipe:
        return None, [recipe, *(overrides or [])]
    return recipe, overrides or []


NOTE = "Every key of a recipe can be given on the command line, the last one wins: trainer.lr=1e-5 study.trained_sets=[layer:1,layer:3]"
