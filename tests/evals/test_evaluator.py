"""The evaluator end to end, with an agent that is no model, and what its records promise."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from onelayer.agents.agent import Agent
from onelayer.agents.config import AgentConfig
from onelayer.agents.engine import Completion, FinishReason
from onelayer.envs.errors import UserError
from onelayer.envs.items import Item, Split
from onelayer.envs.pool import Pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate, sample_seed
from onelayer.evals.records import read_evaluation, read_samples, write_samples
from onelayer.evals.report import render_evaluation

SPLIT = Split("toy/test", tuple(Item(f"toy-{i}", f"question {i}", str(i % 3)) for i in range(12)))


class ToyTokenizer:
    chat_template = None

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, token_ids, skip_special_tokens):
        return "".join(map(chr, token_ids))


class ToyEngine:
    """Replies with a digit that the seed decides; at temperature 0 always with 0. Finishes in the reverse order."""

    returns_tokens = True

    def __init__(self, fails_after: int | None = None):
        self.fails_after = fails_after

    def generate(self, requests):
        for count, (index, request) in enumerate(reversed(list(enumerate(requests)))):
            if self.fails_after == count:
                raise KeyboardInterrupt
            digit = request.seed % 4 if request.sampling.temperature else 0
            yield Completion(index, [ord(str(digit))], [0.0], FinishReason.STOP)


class ToyEnv(gym.Env):
    def reset(self, *, seed=None, options=None):
        assert options
        self.item = SPLIT.by_id[options["item"]]
        return self.item.question, {}

    def step(self, action):
        answer = action if action in "012" else None
        right = answer == self.item.gold
        verdict = "correct" if right else "unparsed" if answer is None else "wrong"
        return "", float(right), True, False, {"verdict": verdict, "answer": answer}


def run(directory, *, engine=None, **config):
    agent = Agent(engine or ToyEngine(), ToyTokenizer(), AgentConfig())  # type: ignore[arg-type]
    return evaluate(agent, Pool(ToyEnv), SPLIT, EvalConfig(**config), directory, policy="base", base="f" * 64)


def test_records_and_figures(tmp_path):
    evaluation = run(tmp_path, n=6, seed=5)
    samples = read_samples(tmp_path / "sampled.jsonl")
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

    agent = Agent(ToyEngine(), ToyTokenizer(), AgentConfig())  # type: ignore[arg-type]
    evaluation = evaluate(agent, Pool(Silent), SPLIT, EvalConfig.model_validate({"n": 4}), tmp_path, policy="base", base="f" * 64)
    assert evaluation.sampled.pass_rate.mean > 0 and evaluation.sampled.majority is None


def test_what_environments_lose_is_wrong_and_shown(tmp_path):
    class Breaking(ToyEnv):
        def step(self, action):
            if self.item.id == "toy-3":
                raise OSError("disk full")
            return super().step(action)

        def reset(self, *, seed=None, options=None):
            if options == {"item": "toy-4"}:
                raise OSError("disk full")
            return super().reset(seed=seed, options=options)

    agent = Agent(ToyEngine(), ToyTokenizer(), AgentConfig())  # type: ignore[arg-type]
    evaluation = evaluate(agent, Pool(Breaking), SPLIT, EvalConfig.model_validate({"n": 4}), tmp_path, policy="base", base="f" * 64)
    assert (evaluation.sampled.errors, evaluation.greedy.errors, evaluation.errors) == (8, 2, 10)
    assert evaluation.sampled.verdicts["error"] == 8
    lost = [sample for sample in read_samples(tmp_path / "sampled.jsonl") if sample.error]
    assert [(sample.item, sample.verdict, sample.reward, sample.correct) for sample in lost[::4]] == [
        ("toy-3", "error", 0.0, False),
        ("toy-4", "error", 0.0, False),
    ]
    assert "OSError: disk full" in str(lost[0].error) and lost[0].response and lost[4].response == ""
    assert read_evaluation(tmp_path).sampled.rate_I[3:5].tolist() == [0, 0]
    shown = printed(evaluation)
    assert "Environments failed in 10 samples" in shown and "errors" in shown and "task type" not in shown


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
    agent = Agent(Same(), ToyTokenizer(), AgentConfig())  # type: ignore[arg-type]
    evaluation = evaluate(agent, Pool(Parts), typed, EvalConfig.model_validate({"n": 2}), tmp_path, policy="base", base="f" * 64)
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


def printed(evaluation) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(render_evaluation(evaluation))
    return out.getvalue()


def test_an_item_starts_from_the_same_state_in_every_sample(tmp_path):
    seeds: dict[str, set[int]] = {}

    class Seeded(ToyEnv):
        def reset(self, *, seed=None, options=None):
            seeds.setdefault((options or {})["item"], set()).add(seed or 0)
            return super().reset(seed=seed, options=options)

    agent = Agent(ToyEngine(), ToyTokenizer(), AgentConfig())  # type: ignore[arg-type]
    evaluate(agent, Pool(Seeded), SPLIT, EvalConfig.model_validate({"n": 3}), tmp_path, policy="base", base="f" * 64)
    assert all(len(found) == 1 for found in seeds.values()) and len(set.union(*seeds.values())) == 12


def test_same_seed_same_records_and_a_subset_keeps_its_seeds(tmp_path):
    run(tmp_path / "a", n=3)
    run(tmp_path / "b", n=3)
    assert (tmp_path / "a/sampled.jsonl").read_bytes() == (tmp_path / "b/sampled.jsonl").read_bytes()
    run(tmp_path / "c", n=2, items=5)
    whole = {(sample.item, sample.sample): sample for sample in read_samples(tmp_path / "a/sampled.jsonl")}
    assert all(whole[sample.item, sample.sample] == sample for sample in read_samples(tmp_path / "c/sampled.jsonl"))


def test_an_interrupted_evaluation_is_not_complete(tmp_path):
    run(tmp_path, n=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, n=2, engine=ToyEngine(fails_after=4))
    with pytest.raises(UserError, match="no complete evaluation"):
        read_evaluation(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_bad_input_names_its_place(tmp_path):
    with pytest.raises(UserError, match=r"eval\.items: 99 items wanted, but toy/test has 12"):
        run(tmp_path, items=99)
    run(tmp_path, n=2)
    path = tmp_path / "sampled.jsonl"
    lines = path.read_text().splitlines()

    def broken(number: int, line: str) -> str:
        path.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]) + "\n")
        with pytest.raises(UserError) as error:
            read_evaluation(tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert f"{path}:3: broken record" in broken(3, lines[2][:20])
    assert f"{path}:7: broken record (seed" in broken(7, json.dumps(json.loads(lines[6]) | {"seed": "no"}))
    assert "sample 0 twice" in broken(2, lines[0])
    path.write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(UserError, match=r"11 x 2 records, the manifest says 12 x 2"):
        read_evaluation(tmp_path)
    path.write_text("")
    with pytest.raises(UserError, match="holds no record"):
        read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(UserError, match=r"evaluation\.json"):
        read_evaluation(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(tmp_path / "file" / "below", n=2)


def test_records_survive_hostile_text(tmp_path, samples):
    records = [sample.model_copy(update={"response": "line\nbreak \u2028 \x00 \x1b[31m \r\n"}) for sample in samples(np.ones((2, 2)))]
    write_samples(tmp_path / "sampled.jsonl", records)
    assert read_samples(tmp_path / "sampled.jsonl") == records
