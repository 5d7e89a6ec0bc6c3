"""The evaluator: one policy on fixed items with fixed seeds, sampled and greedy.

Every sample has a key, a hash of all that it depends on. What a journal or an earlier evaluation in the same directory holds under the
same key is not played again, so that an evaluation goes on where it was interrupted, and more samples can be added to it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from ..agents.agent import Agent, Player
from ..agents.config import engine_row
from ..agents.episodes import Play, assert_prompts_fit, play
from ..agents.flops import tokens_forwarded
from ..agents.verdicts import CORRECT
from ..common.cost import Cost, Meter, git_commit, hardware, versions
from ..common.errors import UserError
from ..common.files import owned, write_atomically
from ..common.progress import progress
from ..common.seeds import derive_seed
from ..envs.config import model_of
from ..envs.items import Item, Split
from ..envs.pool import Pool
from .config import EvalConfig
from .decoding import sampling_of
from .failures import Failures
from .journal import JOURNAL, Entries, RequestCounts, Spent, add_up, open_journal, read_journal
from .protocol import fingerprint, section
from .records import MANIFEST, Decoding, Evaluation, Outcomes, PolicyInfo, Scores, Source, TypeScore, read_manifest
from .replies import mean_metrics, mean_of, reply_statistics
from .samples import LARGEST_TABLE, SAMPLES, Sample, columns_of, prompt_reader, read_samples, write_samples
from .statistics import Rate, pass_at_k, pass_rate, wilson

PROBE = "What is 1 + 1?\n\n<b> {} \u00e9 \u4f60\u597d"
"""A message whose tokens tell one tokenizer and chat template from another."""

_log = logging.getLogger(__name__)


def sample_seed(seed: int, item: str, sample: int) -> int:
    """Seed of one sample (63 bits): it depends on the evaluation's seed, the item and the index alone, so every policy gets the same."""
    return derive_seed("sample", seed, item, sample)


def env_seed(seed: int, item: str) -> int:
    """Seed of the environment (32 bits): all samples of an item, of every policy, start from the same state."""
    return derive_seed("environment", seed, item) % 2**32


@dataclass(frozen=True)
class Wanted:
    """A sample that the evaluation is to have."""

    key: str
    decoding: Decoding
    play: Play
    sample: int
    type: str | None


def evaluate(
    agent: Player,
    pool: Pool,
    split: Split,
    config: EvalConfig,
    directory: Path,
    *,
    policy: PolicyInfo,
    recipe: Mapping[str, JsonValue] | None = None,
    samples: int | None = None,
) -> Evaluation:
    """Play every item `samples` times at the configured temperature and once greedily; write the records and the manifest.

    pool: environments of `split`. recipe: the resolved configuration, sections model, env, agent, pool and eval. samples: samples of each
    item (null: config.n). Samples that are there are not played again; the manifest is written last. Raises UserError for fewer than two
    items, prompts of which none fits, too many failures, and a directory that cannot be written or whose evaluation would lose samples.
    """
    played = first_items(split, config.items)
    if (rows := len(played.items) * ((samples or config.n) + 1)) > LARGEST_TABLE:
        raise UserError(f"eval.n: {len(played.items)} items make {rows} samples, more than the {LARGEST_TABLE} of one evaluation; lower it")
    protocol = protocol_of(agent, split.name, policy, recipe or {})
    wanted = {one.key: one for one in plan(played, config, samples or config.n, protocol)}
    if not (directory / MANIFEST).exists():
        assert_prompts_fit(agent, pool, played)
    with owned(directory), Meter() as meter:
        there = _there(directory, wanted)
        if there.manifest and not there.journal.samples and len(there.samples) == len(wanted):
            (directory / JOURNAL).unlink(missing_ok=True)
            return there.manifest
        there.samples = {key: sample for key, sample in there.samples.items() if not sample.failed}  # what failed is played again
        counts, failures = RequestCounts(agent.engine), Failures(directory, len(wanted), len(there.samples))
        with open_journal(directory / JOURNAL, there.journal) as journal:

            def tell() -> None:
                """Note what this process has spent."""
                journal.tell(Spent(spent=meter.cost(), requests=counts.now(), process=process, **about))

            about: dict[str, Any] = {"policy": policy.name, "split": split.name, "wanted": len(wanted)}
            if there.manifest and not there.journal.spent:  # what the complete evaluation has cost must outlive its manifest
                there.journal.spent[0] = Spent(spent=there.manifest.cost, requests=there.manifest.requests or {}, process=0, **about)
                journal.tell(there.journal.spent[0])
            process = 1 + max(there.journal.spent, default=-1)
            tell()
            try:
                for sample in _play(agent, pool, wanted, there.samples, config, meter, policy, failures):
                    there.samples[sample.key] = sample
                    journal.add(sample)
                    if journal.due:
                        tell()
            except BaseException:
                with suppress(UserError):  # the first reason is told
                    tell()
                if not there.samples:  # nothing is lost with it
                    (directory / JOURNAL).unlink()
                raise
        if lost := len(wanted) - len(there.samples):
            raise RuntimeError(f"{lost} of {len(wanted)} episodes never ended")
        evaluation = write_evaluation(
            directory,
            [there.samples[key] for key in wanted],
            policy=policy,
            split=played,
            config=config,
            max_tokens=agent.config.reply_length,
            prompt=agent.prompt,
            protocol=protocol,
            tokenizer=tokenizer_of(agent),
            recipe=recipe or {},
            cost=there.journal.cost + meter.cost(),
            requests=add_up([there.journal.requests, counts.now()]) if counts.counted else None,
        )
        (directory / JOURNAL).unlink()
    failures.tell()
    if policy.source is Source.ENDPOINT and not _differ([there.samples[key] for key in wanted]):
        _log.warning("%s: the endpoint's sampled texts are its greedy ones, word by word; does it take the temperature?", directory)
    return evaluation


def write_evaluation(
    directory: Path,
    samples: Sequence[Sample],
    *,
    policy: PolicyInfo,
    split: Split,
    config: EvalConfig,
    max_tokens: int,
    prompt: str,
    protocol: str,
    recipe: Mapping[str, JsonValue],
    cost: Cost,
    tokenizer: str = "",
    requests: Mapping[str, int] | None = None,
) -> Evaluation:
    """Write a complete evaluation: first its samples, in the order given, then the manifest. split: the items played."""
    types = {item.id: str(item.meta["type"]) for item in split.items if "type" in item.meta}
    scores = {decoding: summarise([one for one in samples if one.decoding == decoding], types) for decoding in Decoding}
    (directory / MANIFEST).unlink(missing_ok=True)  # there is never a manifest beside the samples of another evaluation
    data = write_samples(directory / SAMPLES, samples)
    evaluation = Evaluation(
        policy=policy.name,
        source=policy.source,
        model=policy.model,
        base=policy.base,
        layers=policy.layers,
        patches=policy.patches,
        trained=policy.trained,
        elsewhere=policy.elsewhere,
        domain=domain(recipe),
        split=split.name,
        digest=split.digest,
        items=len(split.items),
        skipped={one.id: one.reason for one in split.skipped},
        temperature=config.temperature,
        max_tokens=max_tokens,
        prompt=prompt,
        seed=config.seed,
        protocol=protocol,
        tokenizer=tokenizer,
        repeats=policy.repeats,
        config=dict(recipe),
        samples_sha256=hashlib.sha256(data).hexdigest(),
        requests=None if requests is None else dict(requests),
        cost=cost,
        hardware=hardware(),
        versions=versions(),
        git_commit=git_commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        sampled=scores[Decoding.SAMPLED],
        greedy=scores[Decoding.GREEDY],
    )
    write_atomically(directory / MANIFEST, evaluation.model_dump_json(indent=2) + "\n")
    return evaluation


def plan(split: Split, config: EvalConfig, samples: int, protocol: str) -> Iterator[Wanted]:
    """Every sample of an evaluation in the order in which it is written."""
    for decoding in Decoding:
        sampled = decoding is Decoding.SAMPLED
        drawn = sampling_of(config, decoding, 0)
        how = [drawn.temperature, drawn.top_p, drawn.top_k] if drawn.restricted else drawn.temperature
        for group, item in enumerate(split.items):
            content, start = digest_of(item), env_seed(config.seed, item.id)
            kind = str(item.meta["type"]) if "type" in item.meta else None
            for sample in range(samples if sampled else 1):
                seed = sample_seed(config.seed, item.id, sample)
                key = fingerprint(protocol, how, content, start, sample, seed)[:32]
                yield Wanted(key, decoding, Play(item.id, group, seed, start), sample, kind)


def protocol_of(agent: Player, split: str, policy: PolicyInfo, recipe: Mapping[str, JsonValue]) -> str:
    """SHA-256 over all that an episode depends on besides its item, its seed and the temperature."""
    settings = {name: value for name, value in section(recipe, "env").items() if name != "size"}  # which items, not what is in them
    model = {"dtype": section(recipe, "model").get("dtype")}
    who = [policy.source, policy.identity, policy.base, *policy.patches]
    engine = getattr(agent.engine, "stands_for", agent.engine)  # whose replies are given back
    how: list[object] = [agent.prompt, agent.config.reply_length, type(engine).__name__]
    if isinstance(agent, Agent):
        how += [agent.config.engine] if engine_row(agent.config.engine) is None else []  # classes of the same name may be different
        how += [{"stop": agent.config.stop}] if agent.config.stop else []
        how += [agent.history, agent.context, agent.chat.encode(PROBE)]
    return fingerprint(who, how, split, settings, model)


def tokenizer_of(agent: Player) -> str:
    """SHA-256 over how a model reads prompts: the tokens of a fixed message, and the most tokens of a prompt. Empty for who reads none."""
    return fingerprint(agent.context, agent.chat.encode(PROBE)) if isinstance(agent, Agent) else ""


def digest_of(item: Item) -> str:
    """SHA-256 of one item, its content included."""
    return Split("", (item,)).digest


def domain(recipe: Mapping[str, JsonValue]) -> str:
    """math, code, alfworld or other, by the environment."""
    return model_of({"id": section(recipe, "env").get("id")}).DOMAIN


def first_items(split: Split, count: int | None, key: str = "eval.items") -> Split:
    """The first `count` items (null: all). Raises UserError, naming `key`, where there are fewer, or too few for a standard error."""
    there = len(split.items)
    if there < 2:
        raise UserError(f"eval.suite: {split.name} has {there} item(s); an evaluation with a standard error needs at least 2")
    if count and there < count:
        raise UserError(f"{key}: {count} items wanted, but {split.name} has {there}; lower it")
    return split.first(count)


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
        corrected=mean_of([step.corrected for one in samples for step in one.steps]),
        errors=sum(sample.error is not None for sample in samples),
        by_type=_by_type(outcomes, types or {}),
        metrics=mean_metrics(sample.metrics for sample in samples),
        verdicts=dict(sorted(Counter(sample.verdict for sample in samples).items())),
        **reply_statistics(samples),
    )


def _play(
    agent: Player,
    pool: Pool,
    wanted: Mapping[str, Wanted],
    there: Mapping[str, Sample],
    config: EvalConfig,
    meter: Meter,
    policy: PolicyInfo,
    failures: Failures,
) -> Iterator[Sample]:
    """The samples that are not there yet, as they end."""
    read, has_tokens = prompt_reader(agent), agent.engine.returns_tokens
    missing = {decoding: [one for one in wanted.values() if one.decoding is decoding and one.key not in there] for decoding in Decoding}
    for decoding, due in missing.items():
        if not due:
            continue
        done = [there[key] for key, one in wanted.items() if one.decoding is decoding and key in there]
        right, sampling = sum(one.verdict == CORRECT for one in done), sampling_of(config, decoding, agent.config.reply_length)
        with progress(f"{policy.name}, {decoding}", len(done) + len(due), len(done), every=10) as shown:
            for episode in play(agent, pool, [one.play for one in due], sampling):
                one = due[episode.index]
                meter.tokens += episode.tokens or 0
                meter.flops += 2.0 * policy.parameters * tokens_forwarded([episode])
                yield Sample(
                    key=one.key,
                    decoding=decoding.value,
                    type=one.type,
                    sample=one.sample,
                    **columns_of(episode, read, has_tokens),
                )
                right += episode.verdict == CORRECT
                shown.note(f"pass@1 so far {right / (shown.done + 1):.3f}")
                shown.advance()
                failures.watch(episode)


@dataclass
class _There:
    """What a directory holds of an evaluation already."""

    manifest: Evaluation | None
    """Of a complete one."""
    samples: dict[str, Sample]
    """Those that are wanted, by key."""
    journal: Entries


def _there(directory: Path, wanted: Mapping[str, Wanted]) -> _There:
    """Raises UserError where a complete evaluation has samples that are not wanted: it is never reduced."""
    manifest = read_manifest(directory) if (directory / MANIFEST).exists() else None
    compacted = {}
    if (directory / SAMPLES).exists():
        try:
            sha256 = manifest.samples_sha256 if manifest else ""
            compacted = {sample.key: sample for sample in read_samples(directory / SAMPLES, sha256)}
        except UserError as error:
            _log.warning("%s", error)
            manifest = None
    if manifest and (dropped := compacted.keys() - wanted.keys()):
        raise UserError(
            f"{directory}: holds a complete evaluation ({manifest.policy} on {manifest.split}, {manifest.items} items, "
            f"{manifest.sampled.samples} samples of each) and {len(dropped)} of its {len(compacted)} records have no place in this one; "
            "name another --output, or ask for the same policy and protocol with as many items and samples"
        )
    journal = read_journal(directory / JOURNAL)
    if journal.unreadable:
        _log.warning("%s: %d lines cannot be read; their samples are made again", directory / JOURNAL, journal.unreadable)
    if manifest and journal.samples.keys() <= compacted.keys():  # left behind when the evaluation was completed
        (directory / JOURNAL).unlink(missing_ok=True)
        journal = Entries()
    found = compacted | journal.samples
    if stale := len(found) - len(kept := {key: sample for key, sample in found.items() if key in wanted}):
        _log.warning("%s: %d samples of another policy or protocol are left out", directory, stale)
    return _There(manifest, kept, journal)


def _differ(samples: Sequence[Sample]) -> bool:
    """Whether any sampled text differs from the greedy one of its item."""
    texts: dict[str, set[str]] = {}
    for sample in samples:
        texts.setdefault(sample.item, set()).add("\n".join(step.response for step in sample.steps))
    return any(len(found) > 1 for found in texts.values())


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
