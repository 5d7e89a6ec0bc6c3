"""The evaluator end to end, with an agent that is no model, and what its records promise."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from toy_evaluation import BASE, SPLIT, ToyEngine, ToyEnv, printed, run, sampled, toy_agent

from onelayer.agents.engine import Completion, FinishReason
from onelayer.common.errors import UserError
from onelayer.envs.items import Item, Split
from onelayer.envs.pool import Pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import env_seed, evaluate, sample_seed
from onelayer.evals.records import Decoding, read_evaluation
from onelayer.evals.samples import SAMPLES, read_samples, write_samples


def test_records_and_figures(tmp_path):
    evaluation = run(tmp_path, n=6, seed=5)
    samples = sampled(tmp_path)
    assert [(sample.item, sample.sample) for sample in samples] == [(item.id, s) for item in SPLIT.items for s in range(6)]
    assert all(sample.seed == sample_seed(5, sample.item, sample.sample) < 2**63 for sample in samples)
    assert len({sample.seed for sample in samples}) == 72
    scores = evaluation.sampled
    assert scores.pass_rate.mean == pytest.approx(np.mean([sample.reward for sample in samples])) == scores.pass_at_k[1]
    assert sorted(scores.pass_at_k) == [1, 2, 4, 6] and sum(scores.verdicts.values()) == 72
    assert evaluation.greedy.pass_rate.mean == pytest.approx(4 / 12) and evaluation.greedy.samples == 1
    assert evaluation.digest == SPLIT.digest and evaluation.tokens == 72 + 12
    read = read_evaluation(tmp_path)
    assert read.manifest == evaluation and read.sampled.correct_IS.shape == (12, 6)


def test_no_answers_no_majority_vote(tmp_path):
    class Silent(ToyEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, {"verdict": info["verdict"]}

    evaluation = evaluate(toy_agent(), Pool(Silent), SPLIT, EvalConfig.model_validate({"n": 4}), tmp_path, policy=BASE)
    assert evaluation.sampled.pass_rate.mean > 0 and evaluation.sampled.majority is None


def test_the_environments_own_figures_are_kept_averaged_and_printed(tmp_path):
    class InParts(ToyEnv):
        def step(self, action):
            *rest, info = super().step(action)
            return *rest, info | {"gold": "the answer", "metrics": {"half": float(rest[1]) / 2, "nan": float("nan"), "text": "no figure"}}

    evaluation = evaluate(toy_agent(), Pool(InParts), SPLIT, EvalConfig.model_validate({"n": 4}), tmp_path, policy=BASE)
    samples = [sample for sample in read_samples(tmp_path / SAMPLES) if sample.decoding == "sampled"]
    assert all(sample.gold == "the answer" and sample.metrics == {"half": sample.reward / 2} for sample in samples)
    assert evaluation.sampled.metrics == {"half": pytest.approx(np.mean([sample.reward for sample in samples]) / 2)}
    assert f"temperature 1 {evaluation.sampled.metrics['half']:.3f}" in " ".join(printed(evaluation).split("Environment")[1].split())


class Breaking(ToyEnv):
    """Raises where `broken` says: when an item is begun, or when it is answered."""

    broken: ClassVar[dict[str, str]] = {}

    def step(self, action):
        if self.broken.get(self.item.id) == "step":
            raise OSError("disk full")
        return super().step(action)

    def reset(self, *, seed=None, options=None):
        if self.broken.get((options or {})["item"]) == "reset":
            raise OSError("disk full")
        return super().reset(seed=seed, options=options)


MANY = Split("toy/test", tuple(Item(f"toy-{i}", f"question {i}", str(i % 3)) for i in range(60)))


def test_a_few_samples_that_environments_lose_are_wrong_and_shown(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Breaking, "broken", {"toy-3": "step", "toy-4": "reset"})
    monkeypatch.setattr("toy_evaluation.SPLIT", MANY)
    evaluation = evaluate(toy_agent(), Pool(Breaking), MANY, EvalConfig.model_validate({"n": 4}), tmp_path, policy=BASE)
    assert (evaluation.sampled.errors, evaluation.greedy.errors, evaluation.errors) == (8, 2, 10)
    assert evaluation.sampled.verdicts["error"] == 8
    lost = [sample for sample in sampled(tmp_path) if sample.error]
    assert [(sample.item, sample.verdict, sample.reward, sample.correct) for sample in lost[::4]] == [
        ("toy-3", "error", 0.0, False),
        ("toy-4", "error", 0.0, False),
    ]
    assert "OSError: disk full" in str(lost[0].error) and lost[0].steps[0].response and lost[4].steps == []
    assert read_evaluation(tmp_path).sampled.rate_I[3:5].tolist() == [0, 0]
    shown = printed(evaluation)
    assert "Environments failed in 10 samples" in shown and "errors" in shown and "task type" not in shown
    assert "10 of 300 samples lost, first: OSError: disk full (test_evaluator.py:" in caplog.text


def test_more_than_five_percent_lost_is_no_measurement_and_they_are_played_again(tmp_path, monkeypatch):
    run(tmp_path / "whole", n=4)
    for broken, lost in ((dict.fromkeys(SPLIT.by_id, "reset"), 4), ({"toy-3": "step"}, 4)):
        monkeypatch.setattr(Breaking, "broken", broken)
        told = rf"{lost} of 60 samples were lost, more than 5%; first: OSError: disk full \(test_evaluator.py:\d+\), item toy-\d+, "
        with pytest.raises(UserError, match=f"{told}(reset|step 1); remove the cause, and the same command plays these samples again$"):
            evaluate(toy_agent(), Pool(Breaking), SPLIT, EvalConfig(n=4), tmp_path / "broken", policy=BASE)
        assert not (tmp_path / "broken" / "evaluation.json").exists()
    engine = ToyEngine()
    evaluation = run(tmp_path / "broken", n=4, engine=engine)
    assert evaluation.errors == 0 and 4 <= len(engine.asked) < 60  # what was measured is kept
    assert (tmp_path / "broken" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()


def test_a_grader_that_raises_on_every_reply_is_no_measurement(tmp_path, caplog):
    """The pool puts it down to the reply, since the environment can bear an empty one."""

    class Grader(ToyEnv):
        raises: ClassVar[str] = "0123"

        def step(self, action):
            if action and action in self.raises:
                raise KeyError("answer")
            return super().step(action)

    told = r"the environment raised on each of the first 20 replies; first: KeyError: 'answer' \(test_evaluator.py:\d+\)"
    with pytest.raises(UserError, match=told):
        evaluate(toy_agent(), Pool(Grader), SPLIT, EvalConfig(n=4), tmp_path, policy=BASE)
    assert not (tmp_path / "evaluation.json").exists()
    Grader.raises = "0"  # the one answer that a third of the items has
    evaluation = evaluate(toy_agent(), Pool(Grader), SPLIT, EvalConfig(n=4), tmp_path, policy=BASE)
    blamed = sum(evaluation.scores(decoding).verdicts["action_error"] for decoding in Decoding)
    assert blamed >= 12 and f"the environment raised on {blamed} of 60 replies, which count as wrong; first: KeyError" in caplog.text


def test_replies_that_were_cut_off_are_told_of(tmp_path):
    class Cut(ToyEngine):
        def generate(self, requests):
            for reply in super().generate(requests):
                yield replace(reply, finish=FinishReason.LENGTH if reply.index % 3 == 0 else FinishReason.STOP)

    shown = " ".join(printed(run(tmp_path, n=4, engine=Cut())).split())
    assert "33% of the replies were cut off at agent.max_tokens=40, so their answers are not known; raise it (sampled)." in shown


def test_prompts_that_do_not_fit_are_refused_before_the_first_episode(tmp_path):
    engine = ToyEngine()
    agent = toy_agent(engine)
    agent.context = 5
    with pytest.raises(UserError, match=r"^toy/test: every prompt that was tried \(8\) is longer than the 5 tokens that the model takes"):
        evaluate(agent, Pool(ToyEnv), SPLIT, EvalConfig(n=4), tmp_path / "none", policy=BASE)
    assert not engine.asked and not (tmp_path / "none").exists()
    agent.context = len("question 1")  # ten of the twelve
    shown = printed(evaluate(agent, Pool(ToyEnv), SPLIT, EvalConfig(n=4), tmp_path / "some", policy=BASE))
    assert "10 samples ended because the next prompt did not fit, and counted as wrong." in shown


def test_success_without_a_verdict_is_a_reward_of_one_and_types_have_their_own_figures(tmp_path):
    class Parts(ToyEnv):
        """Pays in ten parts; the rest of a wrong answer's reward is not enough."""

        def reset(self, **arguments):
            self.parts = 0
            return super().reset(**arguments)

        def step(self, action):
            self.parts += 1
            right = action == self.item.gold
            return "", 0.1 if right or self.parts < 9 else 0.0, self.parts == 10, False, {}

    class Same(ToyEngine):
        def generate(self, requests):
            for index, _ in enumerate(requests):
                yield Completion(index, [ord("0")], [0.0], FinishReason.STOP)

    types = ["heat", "cool", "heat", "clean"] * 2 + ["heat"] * 3 + ["single"]
    typed = Split("toy/test", tuple(replace(item, meta={"type": kind}) for item, kind in zip(SPLIT.items, types, strict=True)))
    evaluation = evaluate(toy_agent(Same()), Pool(Parts), typed, EvalConfig.model_validate({"n": 2}), tmp_path, policy=BASE)
    assert evaluation.sampled.verdicts == {"correct": 8, "wrong": 16}
    assert evaluation.sampled.pass_rate.mean == pytest.approx(1 / 3)
    assert evaluation.sampled.mean_reward == pytest.approx(1 / 3 + 2 / 3 * 0.8)
    by_type = evaluation.sampled.by_type
    assert {kind: score.items for kind, score in by_type.items()} == {"clean": 2, "cool": 2, "heat": 7, "single": 1}
    assert sum(score.items * score.pass_rate.mean for score in by_type.values()) == pytest.approx(4)
    assert all(0 <= score.pass_rate.low <= score.pass_rate.mean <= score.pass_rate.high <= 1 for score in by_type.values())
    assert by_type["single"].pass_rate.high > 0.5  # one item says little
    assert read_evaluation(tmp_path).manifest == evaluation
    shown = printed(evaluation)
    assert "By task type" in shown and "heat" in shown and "reward" in shown and "errors" not in shown


def test_an_item_starts_from_the_same_state_in_every_sample(tmp_path):
    seeds: dict[str, set[int]] = {}

    class Seeded(ToyEnv):
        def reset(self, *, seed=None, options=None):
            seeds.setdefault((options or {})["item"], set()).add(seed or 0)
            return super().reset(seed=seed, options=options)

    evaluate(toy_agent(), Pool(Seeded), SPLIT, EvalConfig.model_validate({"n": 3}), tmp_path, policy=BASE)
    assert all(len(found) == 1 for found in seeds.values()) and len(set.union(*seeds.values())) == 12


def test_same_seed_same_records_and_a_subset_keeps_its_seeds(tmp_path):
    run(tmp_path / "a", n=3)
    run(tmp_path / "b", n=3)
    assert (tmp_path / "a" / SAMPLES).read_bytes() == (tmp_path / "b" / SAMPLES).read_bytes()
    run(tmp_path / "c", n=2, items=5)
    whole = {(sample.item, sample.sample): sample for sample in sampled(tmp_path / "a")}
    assert all(whole[sample.item, sample.sample] == sample for sample in sampled(tmp_path / "c"))


def test_bad_input_names_its_place(tmp_path):
    with pytest.raises(UserError, match=r"eval\.items: 99 items wanted, but toy/test has 12"):
        run(tmp_path, items=99)
    run(tmp_path, n=2)
    path = tmp_path / SAMPLES
    records, intact = read_samples(path), path.read_bytes()

    def broken() -> str:
        with pytest.raises(UserError) as error:
            read_evaluation(tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    def seal() -> None:
        """The manifest names the records as they are now."""
        manifest = json.loads((tmp_path / "evaluation.json").read_text())
        manifest["samples_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "evaluation.json").write_text(json.dumps(manifest))

    write_samples(path, [*records, records[0]])
    assert f"{path}: not the records that the manifest beside it names" in broken()
    seal()
    assert f"{path}: sampled: item toy-0 has sample 0 twice" in broken()
    write_samples(path, [record for record in records if record.item != "toy-11"])
    seal()
    assert "11 x 2 sampled records, the manifest says 12 x 2" in broken()
    write_samples(path, records[:-1])
    seal()
    assert "11 x 1 greedy records, the manifest says 12 x 1" in broken()
    for damaged in (b"", intact[: len(intact) // 2], b"no parquet"):
        path.write_bytes(damaged)
        assert "not the records" in broken()
        seal()
        assert f"{path}: cannot be read" in broken()
    run(tmp_path, n=2)
    assert path.read_bytes() == intact  # made again
    manifest = json.loads((tmp_path / "evaluation.json").read_text())
    (tmp_path / "evaluation.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    assert "evaluation.json: schema version 2, this release reads 3" in broken()
    (tmp_path / "evaluation.json").write_text("{")
    assert "evaluation.json" in broken()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path / "file" / "below", n=2)


def test_the_whole_episode_is_kept_whatever_text_is_in_it(tmp_path):
    hostile = "</script>\u2028\x00\x1b[31m\r\n\ud800"

    class Hostile(ToyEnv):
        def reset(self, **arguments):
            self.turns = 0
            return super().reset(**arguments)

        def step(self, action):
            self.turns += 1
            return f"{hostile} {self.turns}", 0.5, self.turns == 2, False, {"valid": self.turns == 1, "answer": hostile}

    evaluate(toy_agent(prompt="<{observation}>"), Pool(Hostile), SPLIT, EvalConfig.model_validate({"n": 2}), tmp_path, policy=BASE)
    sample = read_samples(tmp_path / SAMPLES)[0]
    kept = hostile.replace("\ud800", "\\ud800")
    assert (sample.ending, sample.answer, sample.verdict, sample.env_seed) == (f"{kept} 2", kept, "correct", env_seed(0, "toy-0"))
    assert [step.observation for step in sample.steps] == ["question 0", f"{kept} 1"]
    assert [step.prompt for step in sample.steps] == ["<question 0>", f"<{kept} 1>"]
    assert [(step.reward, step.valid, step.truncated, step.advantage) for step in sample.steps] == [
        (0.5, True, False, None),
        (0.5, False, False, None),
    ]
    assert all(step.token_ids == [ord(step.response)] and step.action == step.response for step in sample.steps)
