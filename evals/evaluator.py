"""The evaluator: one policy on fixed items with fixed seeds, sampled and greedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..agents.agent import Player, derive_seed
from ..agents.engine import Sampling
from ..agents.episodes import Episode, Play, play
from ..envs.errors import UserError
from ..envs.files import owned, write_atomically
from ..envs.items import Split
from ..envs.pool import Pool
from .config import EvalConfig
from .cost import Meter, git_commit, hardware, tokens_forwarded, versions
from .records import MANIFEST, Decoding, Evaluation, Outcomes, Sample, Scores, TypeScore, write_samples
from .statistics import Rate, pass_at_k, pass_rate, wilson


def sample_seed(seed: int, item: str, sample: int) -> int:
    """Seed of one sample (63 bits): it depends on the evaluation's seed, the item and the index alone, so every policy gets the same."""
    return derive_seed("sample", seed, item, sample)


def env_seed(seed: int, item: str) -> int:
    """Seed of the environment (32 bits): all samples of an item, of every policy, start from the same state."""
    return derive_seed("environment", seed, item) % 2**32


def evaluate(
    agent: Player,
    pool: Pool,
    split: Split,
    config: EvalConfig,
    directory: Path,
    *,
    policy: str,
    base: str,
    patches: Sequence[str] = (),
    samples: int | None = None,
    parameters: int = 0,
    console: Console | None = None,
) -> Evaluation:
    """Play every item `samples` times at the configured temperature and once greedily; write the records and the manifest.

    pool: environments of `split`. policy, base, patches: name of what the agent plays, fingerprint of its base and SHA-256 of its patches.
    samples: samples of each item (null: config.n). parameters: those that a token is multiplied with, for the FLOPs. The manifest is
    written last; an interrupted evaluation has none. Raises UserError where
    the split has fewer than two items or the directory cannot be written.
    """
    played = first_items(split, config.items)
    ids = [item.id for item in played.items]
    types = {item.id: str(item.meta["type"]) for item in played.items if "type" in item.meta}
    scores: dict[Decoding, Scores] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Meter() as meter, owned(directory), Progress(*columns, console=console, transient=True) as progress:
        (directory / MANIFEST).unlink(missing_ok=True)
        for decoding in Decoding:
            sampled = decoding is Decoding.SAMPLED
            count = (samples or config.n) if sampled else 1
            sampling = Sampling(agent.config.max_tokens, config.temperature if sampled else 0.0)
            plays = [
                Play(item, group, sample_seed(config.seed, item, s), env_seed(config.seed, item))
                for group, item in enumerate(ids)
                for s in range(count)
            ]
            episodes = progress.track(play(agent, pool, plays, sampling), len(plays), description=f"evaluating {policy}, {decoding.value}")
            ended = sorted(episodes, key=lambda episode: episode.index)
            meter.tokens += sum(episode.tokens for episode in ended)
            meter.flops += 2.0 * parameters * tokens_forwarded(ended)
            records = [to_record(episode, episode.index % count) for episode in ended]
            if len(records) != len(plays):
                raise RuntimeError(f"{len(plays) - len(records)} of {len(plays)} episodes never ended")
            write_samples(directory / decoding.file, records)
            scores[decoding] = summarise(records, types)
        evaluation = Evaluation(
            policy=policy,
            base=base,
            patches=list(patches),
            split=split.name,
            digest=played.digest,
            items=len(ids),
            temperature=config.temperature,
            max_tokens=agent.config.max_tokens,
            prompt=agent.prompt,
            seed=config.seed,
            cost=meter.cost(),
            hardware=hardware(),
            versions=versions(),
            git_commit=git_commit(),
            sampled=scores[Decoding.SAMPLED],
            greedy=scores[Decoding.GREEDY],
        )
        write_atomically(directory / MANIFEST, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


def first_items(split: Split, count: int | None, key: str = "eval.items") -> Split:
    """The first `count` items (null: all). Raises UserError, naming `key`, where there are fewer, or too few for a standard error."""
    there = len(split.items)
    if there < 2:
        raise UserError(f"eval.suite: {split.name} has {there} item(s); an evaluation with a standard error needs at least 2")
    if count and there < count:
        raise UserError(f"{key}: {count} items wanted, but {split.name} has {there}; lower it")
    return Split(split.name, split.items[:count])


def to_record(episode: Episode, sample: int) -> Sample:
    """What is kept of an episode; the answer is that in the `info` of its last step (an environment may name none)."""
    info = episode.steps[-1].info if episode.steps else {}
    answer = info.get("answer")
    return Sample(
        item=episode.play.item,
        sample=sample,
        seed=episode.play.seed,
        verdict=episode.verdict,
        reward=0.0 if episode.error else episode.reward,
        answer=None if answer is None else str(answer),
        tokens=episode.tokens,
        truncated=any(step.truncated for step in episode.steps),
        steps=len(episode.steps),
        response="\n".join(step.response for step in episode.steps),
        error=episode.error,
    )


def summarise(samples: Sequence[Sample], types: Mapping[str, str] | None = None) -> Scores:
    """Every figure of one decoding, from its records. types: task type by item, of the items that have one."""
    outcomes = Outcomes.of(samples)
    count = outcomes.correct_IS.shape[1]
    powers = {2**power for power in range(count.bit_length())} | {count}
    return Scores(
        samples=count,
        pass_rate=pass_rate(outcomes.rate_I),
        pass_at_k={k: pass_at_k(outcomes.correct_IS, k) for k in sorted(powers)},
        majority=outcomes.vote(count),
        mean_reward=float(np.mean([sample.reward for sample in samples])),
        mean_tokens=float(np.mean([sample.tokens for sample in samples])),
        truncated=float(np.mean([sample.truncated for sample in samples])),
        errors=sum(sample.error is not None for sample in samples),
        by_type=_by_type(outcomes, types or {}),
        verdicts=dict(sorted(Counter(sample.verdict for sample in samples).items())),
    )


def _by_type(outcomes: Outcomes, types: Mapping[str, str]) -> dict[str, TypeScore]:
    """A type of one item has no spread over items: its interval is Wilson's, of the one item as the one trial."""
    scores = {}
    for kind in sorted(set(types.values())):
        rates = outcomes.rate_I[[types.get(item) == kind for item in outcomes.items]]
        if len(rates) > 1:
            rate = pass_rate(rates)
        elif len(rates) == 1:
            rate = Rate(float(rates[0]), 0.0, *wilson(float(rates[0]), 1))
        else:
            continue
        scores[kind] = TypeScore(items=len(rates), pass_rate=rate)
    return scores
