"""The episode loop: an agent plays items of an environment, and every sampled token is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import gymnasium as gym

from .agent import Agent, derive_seed
from .engine import FinishReason, Request, Sampling


@dataclass(frozen=True)
class Play:
    """One episode asked for. Episodes with the same `group` play the same item and are compared with each other."""

    item: str
    group: int
    seed: int


@dataclass(frozen=True)
class Step:
    """One turn: the prompt, the sampled reply and what came of it."""

    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    response: str
    reward: float
    truncated: bool
    """The reply reached `max_tokens`."""
    info: dict[str, object]


@dataclass
class Episode:
    """The steps of one play, in order."""

    index: int
    """Position of its play in the list that was given."""
    play: Play
    steps: list[Step] = field(default_factory=list)

    @property
    def reward(self) -> float:
        """Sum over the steps."""
        return sum(step.reward for step in self.steps)

    @property
    def tokens(self) -> int:
        """Sampled tokens of all steps."""
        return sum(len(step.token_ids) for step in self.steps)


class Envs:
    """Environments for concurrent episodes, made when first needed and used again."""

    def __init__(self, make: Callable[[], gym.Env]):
        self._make, self._idle = make, []

    def take(self) -> gym.Env:
        return self._idle.pop() if self._idle else self._make()

    def give_back(self, env: gym.Env) -> None:
        self._idle.append(env)


def play(agent: Agent, envs: Envs, plays: Sequence[Play], sampling: Sampling) -> Iterator[Episode]:
    """Play all episodes together, turn by turn; yields each as it ends."""
    active: list[tuple[Episode, gym.Env, list[int]]] = []
    for index, wanted in enumerate(plays):
        env = envs.take()
        observation, _ = env.reset(seed=wanted.seed % 2**32, options={"item": wanted.item})
        active.append((Episode(index, wanted), env, agent.prompt_ids(observation)))
    while active:
        going_on = []
        requests = [Request(prompt, derive_seed(episode.play.seed, len(episode.steps)), sampling) for episode, _, prompt in active]
        for completion in agent.engine.generate(requests):
            episode, env, prompt = active[completion.index]
            response = agent.action(completion.token_ids)
            observation, reward, terminated, truncated, info = env.step(response)
            truncated_reply = completion.finish is FinishReason.LENGTH
            episode.steps.append(Step(prompt, completion.token_ids, completion.logprobs, response, float(reward), truncated_reply, info))
            if terminated or truncated:
                envs.give_back(env)
                yield episode
            else:
                going_on.append((episode, env, agent.prompt_ids(observation)))
        active = sorted(going_on, key=lambda entry: entry[0].index)
