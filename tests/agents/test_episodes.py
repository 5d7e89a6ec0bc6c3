"""The episode loop over a pool: whatever environments do, the others' episodes are the same, and nothing waits for what it need not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from failing_environments import Unruly
from families import random_base

from onelayer.agents.agent import Agent
from onelayer.agents.config import AgentConfig
from onelayer.agents.engine import Completion, FinishReason, Request, Sampling, TransformersEngine
from onelayer.agents.episodes import Episode, Play, play
from onelayer.envs import UserError
from onelayer.envs.pool import Pool


class Letters:
    """A tokenizer of characters."""

    chat_template = None

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
        return "".join(map(chr, token_ids))


class Scripted:
    """Answers with a letter that the seed decides, or with the word that the item names after a colon; last request first."""

    returns_tokens = True

    def __init__(self, seconds: float = 0):
        self.seconds, self.batches = seconds, []

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion]:
        self.batches.append(["".join(map(chr, request.prompt_ids)) for request in requests])
        for index, request in reversed(list(enumerate(requests))):
            time.sleep(self.seconds)
            prompt = "".join(map(chr, request.prompt_ids))
            item = prompt.partition(",")[0]
            word = item.partition(":")[2] or "abc"[request.seed % 3]
            yield Completion(index, [ord(letter) for letter in word], [0.0] * len(word), FinishReason.STOP)


def scripted_agent(engine: Scripted | TransformersEngine) -> Agent:
    return Agent(engine, Letters(), AgentConfig())  # type: ignore[arg-type]


def played(pool: Pool, items: list[str], engine: Scripted | TransformersEngine | None = None) -> list[Episode]:
    agent = scripted_agent(engine or Scripted())
    plays = [Play(item, group, 7 * number, 40 + group) for group, item in enumerate(items) for number in range(3)]
    return sorted(play(agent, pool, plays, Sampling(4)), key=lambda episode: episode.index)


def told(episode: Episode) -> tuple[Any, ...]:
    steps = [(step.prompt_ids, step.token_ids, step.response, step.reward) for step in episode.steps]
    return episode.play, steps, episode.error, episode.reward


@pytest.mark.parametrize("workers", [0, 2])
def test_failures_touch_nobody_else(workers: int) -> None:
    healthy = [told(episode) for episode in played(Pool(Unruly), ["a", "b", "c"])]
    with Pool(Unruly, workers) as pool:
        found = played(pool, ["a", "reset raise", "b", "later raise", "c", ":raise", ":quit"])
    groups = [found[at : at + 3] for at in range(0, len(found), 3)]
    # Item, seed and position in the group are the same as in the healthy run; the number of the group is not.
    for group, expected in zip((groups[0], groups[2], groups[4]), (healthy[:3], healthy[3:6], healthy[6:]), strict=True):
        assert [told(one)[1][0][1:] for one in group] == [one[1][0][1:] for one in expected]
        assert all(one.error is None and one.reward == 1 and len(one.steps) == 3 for one in group)
        assert len({tuple(one.steps[0].prompt_ids) for one in group}) == 1  # a group starts from the same state
    assert all("item reset raise, reset" in str(one.error) and one.steps == [] for one in groups[1])
    assert all("item later raise, step 2" in str(one.error) and len(one.steps) == 2 and one.reward == 0 for one in groups[3])
    for one in groups[5] + groups[6]:
        assert one.error is None and one.reward == 0 and one.steps[-1].info["verdict"] == "action_error"


def test_rounds_are_the_same_with_any_number_of_workers() -> None:
    engines, found = [Scripted(), Scripted()], []
    for engine, workers in zip(engines, (0, 2), strict=True):
        with Pool(Unruly, workers) as pool:
            found.append([told(episode) for episode in played(pool, list("abcdef"), engine)])
    assert found[0] == found[1] and engines[0].batches == engines[1].batches and len(engines[0].batches) == 3


def test_environments_step_while_the_engine_decodes() -> None:
    """The first answers are there before the last request is decoded: an episode of one step is then handed out already."""
    started = threading.Event()

    class OneStep(Unruly):
        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            started.set()
            observation, _, _, _, info = super().step(action)
            return observation, 1.0, True, False, info

    episodes = play(scripted_agent(Scripted(seconds=0.01)), Pool(OneStep), [Play("a", 0, 0)] * 5, Sampling(4))
    assert next(episodes).index == 4 and started.is_set()
    assert [episode.index for episode in episodes] == [3, 2, 1, 0]


def test_a_mistake_of_the_user_ends_the_play_and_gives_up_the_rest() -> None:
    class Strict(Unruly):
        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            if action == "b":
                raise UserError("no sandbox here; get one")
            return super().step(action)

    pool = Pool(Strict)
    with pytest.raises(UserError, match="no sandbox here"):
        played(pool, list("abcdef"))
    assert all(not worker.episodes for worker in pool._workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_episode_goes_on_while_others_wait_for_their_reply(workers: int) -> None:
    """With the engine in process; what decodes together does not depend on which environment was faster."""
    base, told_of = random_base("qwen3"), []
    for slow in (0.0, 0.03):

        class Slow(Unruly):
            pause = slow

            def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
                time.sleep(self.pause * (hash(action) % 3))
                return super().step(action)

        engine = TransformersEngine(base.model, {7}, max_batch=6)
        with Pool(Slow if workers == 0 else Unruly, workers) as pool:
            episodes = played(pool, list("abcdef"), engine)
        told_of.append([(told(episode), [step.logprobs for step in episode.steps]) for episode in episodes])
    assert told_of[0] == told_of[1]
