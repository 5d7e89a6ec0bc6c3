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
    study, sets = config.study, ["full", *config.study.trained_sets]
    lines = [_trained(config, sets), "", "runs:"]
    for name in sets:
        fixed = study.layer_lr if name != "full" else None
        rates = f"at {fixed:g}" if fixed else f"at the best of {', '.join(f'{lr:g}' for lr in study.lr_grid)}"
        lines.append(f"  {name}, {rates}, seeds {', '.join(map(str, study.seeds))}, {config.trainer.steps} steps each")
    _print(config, [*lines, "", *_splits(config)])


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
