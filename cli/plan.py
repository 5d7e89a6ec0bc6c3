"""What `--dry-run` prints: the resolved recipe as YAML and, as comments below it, what would be trained on which items."""

from __future__ import annotations

from ..agents.trained_sets import TrainedSet
from ..envs import load
from ..envs.items import Split
from ..studies.study import prepare_study
from ..trainers.config import Config, dump
from ..trainers.train import evaluation_suite, prepare, training_split


def print_training(config: Config) -> None:
    """The plan of `onelayer train`. Raises UserError for all that would stop the run before its first step."""
    found = prepare(config)
    _print(found.config, [*_trained(found.sets), "", *_splits(config)])


def print_study(config: Config) -> None:
    """The plan of `onelayer study`. Raises UserError for all that would stop it before its first run."""
    found = prepare_study(config)
    runs = [_runs(trained.spec, config) for trained in found.sets]
    _print(found.config, [*_trained(found.sets), "", f"runs, {config.trainer.steps} steps each:", *runs, "", *_splits(config)])


def _runs(name: str, config: Config) -> str:
    rates, seeds = config.study.rates(name), config.study.seeds
    first, *others = seeds
    if len(rates) == 1:
        return f"  {name}: lr {rates[0]:g} with seeds {', '.join(map(str, seeds))}"
    more = f"; the best on validation also with seeds {', '.join(map(str, others))}" if others else ""
    return f"  {name}: lr {', '.join(f'{lr:g}' for lr in rates)} with seed {first}{more}"


def _trained(sets: list[TrainedSet]) -> list[str]:
    rows = [f"  {found.spec}: {found.count:,} ({found.share:.1%}) in {len(found.parameters)} tensors" for found in sets]
    return [f"trained, of {sets[0].total:,} parameters:", *rows]


def _splits(config: Config) -> list[str]:
    env, name = evaluation_suite(config)
    return ["items:", _split("training", training_split(config)), _split("evaluation", load(env, name), config.eval.items)]


def _split(use: str, split: Split, most: int | None = None) -> str:
    return f"  {use}: {split.name}, {f'the first {most} of ' if most else ''}{split.size_text}, sha256 {split.digest}"


def _print(config: Config, lines: list[str]) -> None:
    print(dump(config))
    print("\n".join(f"# {line}".rstrip() for line in lines))
