"""The episode loop: an agent plays items of an environment, and every sampled token is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue

from ..common.errors import UserError
from ..common.seeds import derive_seed
from ..envs.items import Split
from ..envs.pool import Pool
from ..envs.pool_env import ACTION_ERROR, InfrastructureError, PoolEnv, Turn
from .agent import Agent, Player
from .dialogue import Dialogue, played
from .engine import Completion, FinishReason, Request, Sampling
from .layer_inputs import LayerInputs
from .length import UNLIMITED
from .verdicts import CORRECT, ERROR, OVERLONG, WRONG

SOLVED = 1 - 1e-6  # a sum of rewards that counts as 1: environments may add it up of parts
MOST_METRICS, LONGEST_NAME = 32, 64  # figures of an episode that are kept, and characters of their names
PROBES = 8  # episodes that are begun to see whether prompts fit


@dataclass(frozen=True)
class Play:
    """One episode asked for. Episodes with the same `group` play the same item and are compared with each other."""

    item: str
    group: int
    seed: int
    """Fixes the sampled tokens."""
    env_seed: int = 0
    """Seed of the environment (32 bits), the same throughout a group: its episodes start from the same state."""


@dataclass(frozen=True)
class Step:
    """One turn: the prompt, the sampled reply and what came of it."""

    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    response: str
    """The reply as text."""
    action: str
    """What the environment played of it."""
    reward: float
    truncated: bool | None
    """The reply reached `max_tokens`; None: it was made elsewhere, and that is not known."""
    info: dict[str, object]
    anchor: str = ""
    """The raw observation that was answered: steps of a group with the same one are compared with each other (GiGPO)."""
    observation: str = ""
    """What the environment said, which this step answers."""
    counted: int | None = None
    """How many tokens the reply has, where the engine returns none."""
    inputs: LayerInputs | None = field(default=None, repr=False, compare=False)
    """What entered the decoder layer that was asked for, where the engine hands it over."""

    @property
    def tokens(self) -> int | None:
        """Tokens of the reply; None: it was made elsewhere, and their number is not known."""
        return self.counted if self.counted is not None or self.truncated is None else len(self.token_ids)

    @property
    def valid(self) -> bool:
        """Whether the environment took the action for one of its own."""
        return bool(self.info.get("valid", True))

    @property
    def corrected(self) -> bool:
        """Whether the action was spelled otherwise than the environment has it, and was played as what it stands for."""
        return isinstance(self.info.get("played"), str)


@dataclass
class Episode:
    """The steps of one play, in order."""

    index: int
    """Position of its play in the list that was given."""
    play: Play
    steps: list[Step] = field(default_factory=list)
    overlong: bool = False
    """It ended because its next prompt is longer than the agent's context."""
    error: str | None = None
    """Why the episode was lost, where the environment's or the engine's infrastructure failed: neither its reward nor its last step means
    anything."""
    ending: str = ""
    """What the environment said last."""

    @property
    def reward(self) -> float:
        """Sum over the steps."""
        return sum(step.reward for step in self.steps)

    @property
    def metrics(self) -> dict[str, float] | None:
        """What the environment's `info` holds as `metrics`, figures by name, summed over the steps as the reward is; None: nothing."""
        found: dict[str, float] = {}
        for step in self.steps:
            told = step.info.get("metrics")
            for name, value in told.items() if isinstance(told, dict) else ():
                if isinstance(value, int | float) and math.isfinite(value) and (name in found or len(found) < MOST_METRICS):
                    found[str(name)[:LONGEST_NAME]] = found.get(str(name)[:LONGEST_NAME], 0.0) + float(value)
        return found or None

    @property
    def verdict(self) -> str:
        """The last that the environment gave; where it gives none, `correct` for a reward of 1.

        `error` where the episode was lost, `overlong` where its next prompt was longer than the agent's context.
        """
        if self.error or self.overlong:
            return ERROR if self.error else OVERLONG
        given = self.steps[-1].info.get("verdict") if self.steps else None
        return str(given) if given is not None else CORRECT if self.reward >= SOLVED else WRONG

    @property
    def blamed(self) -> str | None:
        """What the environment raised on the last action, which is to blame for it: the verdict is `action_error`."""
        return str(self.steps[-1].info.get("error")) if self.verdict == ACTION_ERROR else None

    @property
    def tokens(self) -> int | None:
        """Sampled tokens of all steps; None where those of one are not known."""
        known = [step.tokens for step in self.steps if step.tokens is not None]
        return sum(known) if len(known) == len(self.steps) else None

    @property
    def truncated(self) -> bool | None:
        """Whether a reply reached `max_tokens`; None where that is not known."""
        return None if any(step.truncated is None for step in self.steps) else any(step.truncated for step in self.steps)


@dataclass
class _Seat:
    """An episode under way: both sides of it, the prompt to answer next and, while the environment works, the reply it works on."""

    episode: Episode
    env: PoolEnv
    dialogue: Dialogue
    prompt_ids: list[int] = field(default_factory=list)
    anchor: str = ""
    observation: str = ""
    reply: Completion | None = None
    said: tuple[str, str] = ("", "")
    """The reply as text, and the action in it."""

    def request(self, sampling: Sampling, inputs_of: int | None) -> Request:
        seed = derive_seed(self.episode.play.seed, len(self.episode.steps))
        return Request(self.prompt_ids, seed, sampling, self.dialogue.session, inputs_of)

    def take(self, future: Future[Turn]) -> bool:
        """Note what the environment has answered; returns whether the episode goes on."""
        turn = Turn("", 0.0, terminated=True, truncated=False, info={})
        try:
            turn = future.result()
        except InfrastructureError as error:
            self.episode.error = str(error)
        if reply := self.reply:
            cut = None if reply.finish is FinishReason.UNKNOWN else reply.finish is FinishReason.LENGTH
            heard = (self.anchor, self.observation, reply.counted, reply.inputs)
            response, action = self.said
            said = (response, played(action, turn.info))
            step = Step(self.prompt_ids, reply.token_ids, reply.logprobs, *said, turn.reward, cut, turn.info, *heard)
            self.episode.steps.append(step)
        self.episode.ending = self.observation = turn.observation
        if turn.over:
            return False
        prompt_ids = self.dialogue.hear(turn.observation, turn.info)
        self.episode.overlong = prompt_ids is None
        self.prompt_ids, self.anchor = prompt_ids or [], str(turn.info.get("anchor", turn.observation))
        return prompt_ids is not None


def drained(episodes: list[Episode]) -> Iterator[Episode]:
    """The episodes in their order, none of which is left in the list."""
    while episodes:
        yield episodes.pop(0)


def assert_prompts_fit(agent: Player, pool: Pool, split: Split) -> None:
    """Begin a few episodes, spread over the split, without a reply. Raises UserError where not one of their prompts fits."""
    if not isinstance(agent, Agent) or agent.context >= UNLIMITED:
        return
    items = [item.id for item in split.items[:: max(1, len(split.items) // PROBES)]][:PROBES]
    envs = [pool.env() for _ in items]
    try:
        turns = [env.reset(item, 0) for env, item in zip(envs, items, strict=True)]
        for item, future in zip(items, turns, strict=True):
            try:
                turn = future.result()
            except InfrastructureError:
                return  # what always fails is told where episodes are counted
            if agent.begin(item, 0).hear(turn.observation, turn.info) is not None:
                return
    finally:
        for env in envs:
            env.close()
    raise UserError(f"{split.name}: every prompt that was tried ({len(items)}) is longer than {agent.prompt_limit}")


def play(agent: Player, pool: Pool, plays: Sequence[Play], sampling: Sampling, inputs_of: int | None = None) -> Iterator[Episode]:
    """Play all episodes together; yields each as it ends.

    An environment steps as soon as its action is there, while the engine still decodes the actions of others. With an engine that takes
    requests meanwhile (`serve`), an episode goes on in the next batch of newcomers; with others, when all have had their turn. Which
    episodes go on together depends on their replies, and never on which environment was faster: so the same seeds give the same tokens.
    inputs_of: a decoder layer whose input the engine is asked for with each step.
    """
    seats = [_Seat(Episode(index, wanted), pool.env(), agent.begin(wanted.item, wanted.seed)) for index, wanted in enumerate(plays)]
    waiting: dict[Future[Turn], _Seat] = {}
    answered: SimpleQueue[Future[Turn]] = SimpleQueue()
    ready: list[_Seat] = []
    over: list[Episode] = []
    asked: list[_Seat] = []

    def expect(future: Future[Turn], seat: _Seat) -> None:
        waiting[future] = seat
        future.add_done_callback(answered.put)

    def leave(seat: _Seat) -> None:
        seat.env.close()
        if seat.dialogue.session is not None:
            agent.engine.end_session(seat.dialogue.session)

    def listen(wait: bool) -> None:
        """Take what environments have answered so far, or with `wait` all that they will: an episode is over, or ready to go on."""
        while waiting and (wait or not answered.empty()):
            seat = waiting.pop(future := answered.get())
            if seat.take(future):
                ready.append(seat)
            else:
                leave(seat)
                over.append(seat.episode)

    def more() -> list[Request]:
        """The next prompts of all episodes that have been answered, in the order of the plays."""
        listen(wait=True)
        turn = sorted(ready, key=lambda seat: seat.episode.index)
        ready.clear()
        asked.extend(turn)
        return [seat.request(sampling, inputs_of) for seat in turn]

    serve = getattr(agent.engine, "serve", None) if pool.turns != 1 else None

    try:
        for seat in seats:
            expect(seat.env.reset(seat.episode.play.item, seat.episode.play.env_seed), seat)
        listen(wait=True)
        while ready or over:
            asked.clear()
            replies = serve(more) if serve and ready else agent.engine.generate(more())
            for reply in replies:
                seat = asked[reply.index]
                if reply.error:
                    seat.episode.error = reply.error
                    leave(seat)
                    over.append(seat.episode)
                else:
                    seat.reply, seat.said = reply, seat.dialogue.say(reply)
                    expect(seat.env.step(seat.said[1]), seat)
                    listen(wait=False)
                yield from drained(over)
            listen(wait=True)
            yield from drained(over)
    finally:
        for seat in seats:
            leave(seat)
