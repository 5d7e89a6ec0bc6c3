"""Evaluations at lower limits of tokens, made of the replies that an evaluation has on record: nothing is sampled again.

Tokens are drawn one after another, and a sample's seed fixes each of them whatever comes after it. So the first L tokens of a reply are
what a limit of L would have sampled. The environment grades the cut replies, and the result is a complete evaluation at that limit, in
`limits/L` beside the records. Only episodes of one turn can be cut: a reply that is cut changes all turns after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from ..agents.agent import Agent, at_limit
from ..agents.engine import Completion, Engine, FinishReason, Request
from ..common.errors import UserError
from ..common.seeds import derive_seed
from ..envs.config import EnvConfig
from ..envs.items import Split
from ..envs.pool import Pool
from .config import EvalConfig
from .evaluator import evaluate
from .protocol import section
from .records import LIMITS, MANIFEST, Decoding, Evaluation, PolicyInfo, Source, read_manifest
from .samples import SAMPLES, Sample, read_samples


class CutReplies:
    """An engine that gives back the replies on record, cut at a limit.

    Raises UserError where it is asked for a reply that is not on record.
    """

    returns_tokens = True

    def __init__(self, stands_for: Engine, samples: Sequence[Sample], limit: int):
        """stands_for: the engine that made the replies."""
        self.stands_for, self.context = stands_for, stands_for.context
        self._replies = {(sample.decoding, derive_seed(sample.seed, 0)): _cut(sample, limit) for sample in samples if _begun(sample)}

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for index, request in enumerate(requests):
            decoding = Decoding.SAMPLED if request.sampling.temperature else Decoding.GREEDY
            if (found := self._replies.get((decoding.value, request.seed))) is None:
                raise UserError(
                    "a reply at the lower limit is not on record: the episode goes on after a reply that was cut, or its prompt did not "
                    "fit beside a longer reply; evaluate at this limit instead (agent.max_tokens)"
                )
            yield Completion(index, found.token_ids, [], found.finish, error=found.error)

    def end_session(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        pass


def _begun(sample: Sample) -> bool:
    """Whether a reply was asked for."""
    return bool(sample.steps) or sample.error is not None


def _cut(sample: Sample, limit: int) -> Completion:
    if sample.error is not None:
        return Completion(0, [], [], FinishReason.UNKNOWN, error=sample.error)
    (step,) = sample.steps
    ids = step.token_ids or []
    return Completion(0, ids[:limit], [], FinishReason.LENGTH if len(ids) > limit or step.truncated else FinishReason.STOP)


def cut(directory: Path, limits: Sequence[int], agent: Agent, env: EnvConfig, pool: Pool, split: Split) -> list[Evaluation]:
    """The evaluation in `directory` at each of the limits; what is there already is not made again.

    agent: who replied, at the limit that was evaluated. env, pool, split: what was played. Raises UserError where replies cannot be cut.
    """
    manifest = read_manifest(directory)
    if missing := [limit for limit in limits if not is_cut(directory, limit, manifest)]:
        check(directory, manifest, missing)
        samples = list(read_samples(directory / SAMPLES, manifest.samples_sha256))
        for unlike, reason in (
            (any(step.token_ids is None for sample in samples for step in sample.steps), "its records hold no tokens"),
            (any(len(sample.steps) > 1 for sample in samples), "its episodes have several turns"),
        ):
            if unlike:
                raise UserError(f"{directory}: cannot be cut, {reason}; evaluate at each limit instead (agent.max_tokens)")
        for limit in missing:
            player = at_limit(agent, limit, env, CutReplies(agent.engine, samples, limit))
            _evaluate(directory / LIMITS / str(limit), manifest, player, pool, split)
    return [read_manifest(directory / LIMITS / str(limit)) for limit in limits]


def is_cut(directory: Path, limit: int, manifest: Evaluation) -> bool:
    """Whether all replies of the evaluation in `directory`, of which this is the manifest, have been cut at a limit and graded."""
    if not (directory / LIMITS / str(limit) / MANIFEST).exists():
        return False
    there = read_manifest(directory / LIMITS / str(limit))
    return (there.digest, there.patches, there.sampled.samples) == (manifest.digest, manifest.patches, manifest.sampled.samples)


def limits_of(directory: Path) -> list[int]:
    """The limits at which an evaluation has been cut, the lowest first."""
    found = (path.parent.name for path in (directory / LIMITS).glob(f"*/{MANIFEST}"))
    return sorted(int(name) for name in found if name.isdecimal())


def check(directory: Path, manifest: Evaluation, limits: Sequence[int]) -> None:
    """Raises UserError where an evaluation, by its manifest, cannot be cut at these limits."""
    if (highest := max(limits)) >= manifest.max_tokens:
        raise UserError(
            f"{directory}: sampled with up to {manifest.max_tokens} tokens, so its replies cannot be cut at {highest}; name lower limits"
        )
    if manifest.source is not Source.MODEL:
        raise UserError(f"{directory}: cannot be cut, its records hold no tokens (source {manifest.source}); leave it out")


def _evaluate(directory: Path, manifest: Evaluation, agent: Agent, pool: Pool, split: Split) -> None:
    recipe = {**manifest.config, "agent": {**section(manifest.config, "agent"), "max_tokens": agent.config.reply_length}}
    evaluate(
        agent,
        pool,
        split,
        EvalConfig.model_validate(manifest.config["eval"]),
        directory,
        policy=PolicyInfo(
            name=manifest.policy,
            model=manifest.model,
            base=manifest.base,
            patches=manifest.patches,
            trained=manifest.trained,
            elsewhere=manifest.elsewhere,
            layers=manifest.layers,
        ),
        recipe=recipe,
        samples=manifest.sampled.samples,
    )
