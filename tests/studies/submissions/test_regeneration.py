"""Samples are made again, and those that were forged with consistent records are found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from forged_submissions import EACH, ITEMS, LAYER, check, lost, seal

from onelayer.agents import patch as patches
from onelayer.agents.agent import make_agent
from onelayer.agents.config import AgentConfig
from onelayer.agents.engine import Completion, FinishReason
from onelayer.agents.policy import Base
from onelayer.common.seeds import derive_seed
from onelayer.envs import load
from onelayer.envs.config import MathConfig, PoolConfig
from onelayer.envs.math.env import MathEnv
from onelayer.envs.pool import open_pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate, first_items, sample_seed
from onelayer.evals.model_policy import model_policy
from onelayer.evals.records import Decoding, read_manifest
from onelayer.evals.responses import ResponsesEngine
from onelayer.evals.samples import SAMPLES, read_samples
from onelayer.studies.leaderboard.marks import Mark
from onelayer.studies.submissions.archive import gather
from onelayer.studies.submissions.recorded import OUTCOME, RecordedSample
from onelayer.studies.submissions.refusal import Reason, Refused
from onelayer.studies.submissions.verification import Tools, _draw


class TransformersEngine(ResponsesEngine):
    """Says what it was told to, under the name of an engine that samples."""

    returns_tokens = True


def forge(opened: Path, base: Base) -> None:
    """Every reply is the right answer, in tokens, played through the real evaluator: records, figures and all hashes fit together."""
    directory = opened / LAYER
    manifest = read_manifest(directory)
    split = first_items(load(MathConfig(), "test"), ITEMS)
    replies = {}
    for item in split.items:
        ids = [*base.tokenizer.encode(f"\\boxed{{{item.gold}}}", add_special_tokens=False), base.tokenizer.eos_token_id]
        for decoding in Decoding:
            for sample in range(EACH):
                replies[decoding, derive_seed(sample_seed(0, item.id, sample), 0)] = Completion(0, ids, [], FinishReason.STOP)
    agent = make_agent(base, AgentConfig(), MathConfig())
    agent.engine = TransformersEngine(replies)
    claim = next(claim for claim in gather([opened]) if claim.directory == directory)
    policy = model_policy(base, "tiny", [patches.read(path) for path in claim.patches], manifest.trained)
    shutil.rmtree(directory)
    with open_pool(MathConfig(), "test", PoolConfig()) as pool:
        config = EvalConfig.model_validate(manifest.config["eval"])
        evaluate(agent, pool, split, config, directory, policy=policy, recipe=manifest.config, samples=EACH)
    seal(opened)


def test_a_consistent_forgery_passes_every_check_but_making_samples_again(opened: Path, base: Base, tools: Tools) -> None:
    assert check(opened, tools, regenerate=ITEMS) == [Mark.REGENERATED] * 2
    forge(opened, base)
    assert read_manifest(opened / LAYER).sampled.pass_rate.mean == 1
    assert check(opened, tools) == [Mark.CHECKED] * 2
    with pytest.raises(Refused, match=f"1[0-6] of {2 * ITEMS} samples") as caught:
        check(opened, tools, regenerate=ITEMS)
    assert caught.value.reason is Reason.TOKENS


def test_lost_samples_are_played_again(opened: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right reply told as lost is found; what is lost here, too, keeps the evaluation from being marked as regenerated."""
    victim = next(row for row in read_samples(opened / "evaluation-0" / SAMPLES) if row.correct)
    monkeypatch.setattr("onelayer.studies.submissions.recorded.LOST_LIMIT", 0.2)
    lost(lambda row: row.key == victim.key, "evaluation-0")(opened)
    seal(opened)
    assert check(opened, tools) == [Mark.CHECKED] * 2
    with pytest.raises(Refused, match=f"1 of the 1 that were lost .*{victim.item} {victim.decoding} {victim.sample} is correct") as caught:
        check(opened, tools, regenerate=1)
    assert caught.value.reason is Reason.LOST

    step = MathEnv.step

    def failing(env: MathEnv, action: str) -> Any:
        if env._item and env._item.id == victim.item:
            raise OSError("disk full")
        return step(env, action)

    lost(lambda row: row.item == victim.item, "evaluation-0")(opened)
    lost(lambda row: row.item == victim.item, LAYER)(opened)
    seal(opened)
    monkeypatch.setattr(MathEnv, "step", failing)
    assert check(opened, tools, regenerate=1) == [Mark.CHECKED] * 2


def test_as_many_greedy_samples_are_made_again_as_sampled_ones(opened: Path, base: Base, tools: Tools) -> None:
    """The greedy replies alone are forged: of few that are drawn, half are of them."""
    samples = read_samples(opened / LAYER / SAMPLES)
    found = [RecordedSample(*(getattr(row, name) for name in OUTCOME)) for row in samples]
    drawn = [samples[number].decoding for number in _draw(found, 3, seed=0)]
    assert (drawn.count("sampled"), drawn.count("greedy")) == (3, 3)
