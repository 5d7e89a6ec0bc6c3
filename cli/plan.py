"""What `--dry-run` prints: the resolved recipe as YAML and, as comments below it, what would be trained on which items."""

from __future__ import annotations

from ..agents.policy import load_base, select
from ..envs import load
from ..envs.items import Split
from ..trainers.config import Config, dump
from ..trainers.train import evaluation_suite, training_split


def print_training(config: Config) -> None:
    """The plan of `onelayer train`. Raises UserError for all that would stop the run before its first step."""
    lines = [_trained(config, [config.trainer.trained_set]), "", *_splits(config)]
    _print(config, lines)


def print_study(config: Config) -> None:
    """The plan of `onelayer study`. Raises UserError for all that would stop it before its first run."""
    sets = ["full", *config.study.trained_sets]
    runs = [_runs(name, config) for name in sets]
    _print(config, [_trained(config, sets), "", f"runs, {config.trainer.steps} steps each:", *runs, "", *_splits(config)])


def _runs(name: str, config: Config) -> str:
    study = config.study
    first, *others = study.seeds
    fixed = study.layer_lr if name != "full" else None
    rates = [fixed] if fixed else study.lr_grid
    if len(rates) == 1:
        return f"  {name}: lr {rates[0]:g} with seeds {', '.join(map(str, study.seeds))}"
    more = f"; the best on validation also with seeds {', '.join(map(str, others))}" if others else ""
    return f"  {name}: lr {', '.join(f'{lr:g}' for lr in rates)} with seed {first}{more}"


def _trained(config: Config, specs: list[str]) -> str:
    model = load_base(config.model).model
    sets = [select(model, spec) for spec in specs]
    rows = [f"  {found.spec}: {found.count:,} ({found.share:.1%}) in {len(found.parameters)} tensors" for found in sets]
    return "\n".join([f"trained, of {sets[0].total:,} parameters:", *rows])


def _splits(config: Config) -> list[str]:
    env, name = evaluation_suite(config)
    return ["items:", _split("training", training_split(config)), _split("evaluation", load(env, name), config.eval.items)]


def _split(use: str, split: Split, most: int | None = None) -> str:
    count = len(split.items)
    return f"  {use}: {split.name}, {f'the first {most} of ' if most else ''}{count} items, sha256 {split.digest}"


def _print(config: Config, lines: list[str]) -> None:
    print(dump(config))
    print("\n".join(f"# {line}".rstrip() for line in "\n".join(lines).splitlines()))
