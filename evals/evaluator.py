"""The evaluator: one policy on fixed items with fixed seeds, sampled and greedy."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..agents.agent import Agent, derive_seed
from ..agents.engine import Sampling
from ..agents.episodes import Envs, Episode, Play, play
from ..envs.errors import UserError
from ..envs.items import Split
from .config import EvalConfig
from .records import MANIFEST, Decoding, Evaluation, Outcomes, Sample, Scores, begin, write_samples, write_text
from .statistics import pass_at_k, pass_rate


def sample_seed(seed: int, item: str, sample: int) -> int:
    """Seed of one sample (63 bits): it depends on the evaluation's seed, the item and the index alone, so every policy gets the same."""
    return derive_seed("sample", seed, item, sample)


def evaluate(
    agent: Agent,
    envs: Envs,
    split: Split,
    config: EvalConfig,
    directory: Path,
    *,
    policy: str,
    base: str,
    patches: Sequence[str] = (),
    samples: int | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Play every item `samples` times at the configured temperature and once greedily; write the records and the manifest.

    envs: environments of `split`. policy, base, patches: name of what the agent plays, fingerprint of its base and SHA-256 of its patches.
    samples: samples of each item (null: config.n). The manifest is written last; an interrupted evaluation has none. Raises UserError where
    the split has fewer than two items or the directory cannot be written.
    """
    started = time.monotonic()
    items = split.items[: config.items]
    if len(items) < 2:
        raise UserError(f"eval.suite: {split.name} has {len(items)} item(s); an evaluation with a standard error needs at least 2")
    if config.items and len(items) < config.items:
        raise UserError(f"eval.items: {config.items} items wanted, but {split.name} has {len(items)}; lower it or leave it out")
    ids = [item.id for item in items]
    begin(directory)
    scores: dict[Decoding, Scores] = {}
    tokens = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for decoding in Decoding:
            sampled = decoding is Decoding.SAMPLED
            count = (samples or config.n) if sampled else 1
            sampling = Sampling(agent.config.max_tokens, config.temperature if sampled else 0.0)
            plays = [Play(item, group, sample_seed(config.seed, item, s)) for group, item in enumerate(ids) for s in range(count)]
            records: list[Sample | None] = [None] * len(plays)
            bar = progress.add_task(f"evaluating {policy}, {decoding.value}", total=len(plays))
            for episode in play(agent, envs, plays, sampling):
                records[episode.index] = to_record(episode, sample=episode.index % count)
                progress.advance(bar)
            complete = [record for record in records if record is not None]
            if len(complete) != len(plays):
                raise RuntimeError(f"{len(plays) - len(complete)} of {len(plays)} episodes never ended")
            write_samples(directory / decoding.file, complete)
            scores[decoding] = summarise(complete)
            tokens += sum(record.tokens for record in complete)
    evaluation = Evaluation(
        policy=policy,
        base=base,
        patches=list(patches),
        split=split.name,
        digest=Split(split.name, items).digest,
        items=len(items),
        temperature=config.temperature,
        max_tokens=agent.config.max_tokens,
        prompt=agent.config.prompt,
        seed=config.seed,
        tokens=tokens,
        seconds=time.monotonic() - started,
        sampled=scores[Decoding.SAMPLED],
        greedy=scores[Decoding.GREEDY],
    )
    write_text(directory / MANIFEST, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


def to_record(episode: Episode, sample: int) -> Sample:
    """What is kept of an episode; verdict and answer are those in the `info` of its last step (an environment may name no answer)."""
    info = episode.steps[-1].info
    answer = info.get("answer")
    return Sample(
        item=episode.play.item,
        sample=sample,
        seed=episode.play.seed,
        verdict=str(info["verdict"]),
        reward=episode.reward,
        answer=None if answer is None else str(answer),
        tokens=episode.tokens,
        truncated=any(step.truncated for step in episode.steps),
        response="\n".join(step.response for step in episode.steps),
    )


def summarise(samples: Sequence[Sample]) -> Scores:
    """Every figure of one decoding, from its records."""
    outcomes = Outcomes.of(samples)
    count = outcomes.correct_IS.shape[1]
    powers = {2**power for power in range(count.bit_length())} | {count}
    return Scores(
        samples=count,
        pass_rate=pass_rate(outcomes.rate_I),
        pass_at_k={k: pass_at_k(outcomes.correct_IS, k) for k in sorted(powers)},
        majority=outcomes.vote(count),
        mean_tokens=float(np.mean([sample.tokens for sample in samples])),
        truncated=float(np.mean([sample.truncated for sample in samples])),
        verdicts=dict(sorted(Counter(sample.verdict for sample in samples).items())),
    )
