"""Evaluations of an agent that is no model, on twelve items."""

from __future__ import annotations

import io

import gymnasium as gym
from rich.console import Console

from onelayer.agents.agent import Agent
from onelayer.agents.config import AgentConfig
from onelayer.agents.engine import Completion, FinishReason
from onelayer.envs.items import Item, Split
from onelayer.envs.pool import Pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate
from onelayer.evals.records import PolicyInfo
from onelayer.evals.samples import SAMPLES, read_samples
from onelayer.pages.report import render_evaluation

BASE = PolicyInfo(name="base", base="f" * 64)
SPLIT = Split("toy/test", tuple(Item(f"toy-{i}", f"question {i}", str(i % 3)) for i in range(12)))


class ToyTokenizer:
    chat_template = None

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, token_ids, skip_special_tokens):
        return "".join(map(chr, token_ids))


class ToyEngine:
    """Replies with a digit that the seed decides; at temperature 0 always with 0. Finishes in the reverse order.

    It is interrupted after `fails_after` replies, and notes the seeds and temperatures of those that it gave.
    """

    returns_tokens = True

    def __init__(self, fails_after: int | None = None):
        self.fails_after = fails_after
        self.asked: list[tuple[int, float]] = []

    def generate(self, requests):
        for index, request in reversed(list(enumerate(requests))):
            if len(self.asked) == self.fails_after:
                raise KeyboardInterrupt
            self.asked.append((request.seed, request.sampling.temperature))
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


def toy_agent(engine=None, prompt: str = "{observation}", **settings) -> Agent:
    return Agent(engine or ToyEngine(), ToyTokenizer(), AgentConfig(**{"max_tokens": 40} | settings), prompt)  # type: ignore[arg-type]


def run(directory, *, engine=None, **config):
    return evaluate(toy_agent(engine), Pool(ToyEnv), SPLIT, EvalConfig(**config), directory, policy=BASE)


def sampled(directory):
    return [sample for sample in read_samples(directory / SAMPLES) if sample.decoding == "sampled"]


def printed(evaluation) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(render_evaluation(evaluation))
    return out.getvalue()
