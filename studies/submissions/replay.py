"""The records of an evaluation, played again: whether they are graded as the environment grades, and whether base, patch and seed make
the same tokens.

The recorded tokens are given to the real agent in place of a model's, and the episode that comes of it is compared with the record field by
field: prompt, text, action, observation, reward, verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

from ...agents.agent import Agent, Player
from ...agents.dialogue import Dialogue
from ...agents.ends import Ends
from ...agents.engine import Completion
from ...agents.episodes import Play, play
from ...agents.openai_engine import without_marks
from ...agents.policy import Base
from ...common.errors import UserError
from ...common.seeds import derive_seed
from ...common.text import printable
from ...envs.pool import Pool
from ...evals.decoding import sampling_of
from ...evals.records import Decoding
from ...evals.responses import FINISH, ResponsesEngine
from ...evals.samples import Sample, columns_of, prompt_reader
from .recorded import Records
from .refusal import Reason


@dataclass
class ReplayableEvaluation:
    """An evaluation that can be played again."""

    records: Records
    player: Player
    pool: Pool
    base: Base | None
    """Null: what played has no weights here."""

    @property
    def plays_alone(self) -> bool:
        """Whether what played makes its replies here, from weights or by a rule; else only those on record are at hand."""
        return self.base is not None or not isinstance(self.player, Agent)

    def grade(self) -> None:
        """Give the recorded replies to agent and environment again. Raises Refused where anything comes out otherwise."""
        for batch in self.records.batches():
            self._grade([sample for sample in batch if sample.error is None])

    def _grade(self, samples: Sequence[Sample]) -> None:
        player = self.player
        if self.base and isinstance(player, Agent):
            self._check_ends(samples, player.chat.ends)
        if isinstance(player, Agent):  # the replies of a rule follow from item and seed
            player = copy(player)
            player.engine = ResponsesEngine(_replies(samples, self.base is not None))
        for sample, made in self._play(player, samples, self._goes_on):
            _check_played(made)
            self._compare(sample, made)

    def _goes_on(self, sample: Sample) -> None:
        raise self.records.refuse(Reason.REPLY, f"{_name(sample)}: the episode goes on after its {len(sample.steps)} recorded steps")

    def regenerate(self, samples: Sequence[Sample]) -> None:
        """Make samples again. Raises Refused where their tokens are others."""
        differ = []
        for sample, made in self._play(self.player, samples, lambda sample: None):
            _check_played(made)
            differ += [found] if (found := _first_difference(sample, made)) else []
        if differ:
            raise self.records.refuse(Reason.TOKENS, f"{len(differ)} of {len(samples)} samples made again; {min(differ)}")

    def play_lost(self, samples: Sequence[Sample]) -> None:
        """Play samples again that were lost to a failing environment. Raises Refused where they are not lost here."""
        there = [f"{_name(sample)} is {made.verdict}" for sample, made in self._play(self.player, samples) if made.error is None]
        if there:
            found = f"{len(there)} of the {len(samples)} that were lost are not when they are played again; {min(there)}; evaluate again"
            raise self.records.refuse(Reason.LOST, found)

    def _check_ends(self, samples: Sequence[Sample], ends: Ends) -> None:
        """A reply ends with its first end, or is as long as a reply may be."""
        longest = self.records.claim.manifest.max_tokens
        for sample in samples:
            for step in sample.steps:
                ids = step.token_ids or []
                ended, within = ends.passed(ids), ends.passed(ids[:-1])
                whole = ended if not step.truncated else not ended and len(ids) == longest
                if within or not whole or len(ids) > longest:
                    raise self.records.refuse(Reason.REPLY, f"{_name(sample)}: a reply of {len(ids)} tokens does not end as replies do")

    def _compare(self, sample: Sample, made: Sample) -> None:
        later = [name for name, field in Sample.model_fields.items() if getattr(sample, name) is None and not field.is_required()]
        differ = [name for name in Sample.model_fields if name not in later and getattr(sample, name) != getattr(made, name)]
        if not differ:
            return
        graded = [name for name in ("verdict", "reward", "answer") if name in differ]
        steps = [name for one, other in zip(sample.steps, made.steps, strict=False) for name in _differing(one, other)]
        if graded and "response" not in steps and "action" not in steps:
            told = ", ".join(f"{name} {getattr(sample, name)!r}, not {getattr(made, name)!r}" for name in graded)
            raise self.records.refuse(Reason.GRADE, f"{_name(sample)}: {told[:200]}")
        where = f"{len(sample.steps)} steps, not {len(made.steps)}" if len(sample.steps) != len(made.steps) else ", ".join(steps or differ)
        raise self.records.refuse(Reason.REPLY, f"{_name(sample)}: {where}")

    def _play(
        self, player: Player, samples: Sequence[Sample], beyond: Callable[[Sample], None] | None = None
    ) -> Iterator[tuple[Sample, Sample]]:
        """Recorded samples, each with what comes of playing it. beyond: is called where an episode goes on after its record, with which it
        ends; null: it may go on."""
        read, has_tokens = prompt_reader(player), self.base is not None
        for decoding in Decoding:
            due = [sample for sample in samples if sample.decoding == decoding]
            plays = [Play(sample.item, number, sample.seed, sample.env_seed) for number, sample in enumerate(due)]
            follower = _Follower(player, {sample.seed: sample for sample in due}, beyond) if beyond else player
            sampling = sampling_of(self.records.config, decoding, player.config.reply_length)
            for episode in play(cast("Player", follower), self.pool, plays, sampling) if due else ():
                sample = due[episode.index]
                same = {"key": sample.key, "decoding": sample.decoding, "type": sample.type, "sample": sample.sample}
                yield sample, Sample(**same, **columns_of(episode, read, has_tokens))


class _Follower:
    """A player whose episodes end where their records do: how many turns an episode may take is in a configuration that others wrote."""

    def __init__(self, player: Player, records: Mapping[int, Sample], beyond: Callable[[Sample], None]):
        self.engine, self._player, self._records, self._beyond = player.engine, player, records, beyond

    def begin(self, item: str, seed: int) -> Dialogue:
        return _Followed(self._player.begin(item, seed), self._records[seed], self._beyond)


class _Followed:
    """The dialogue of such an episode."""

    def __init__(self, dialogue: Dialogue, record: Sample, beyond: Callable[[Sample], None]):
        self.session, self.say = dialogue.session, dialogue.say
        self._dialogue, self._record, self._beyond, self._turns = dialogue, record, beyond, 0

    def hear(self, observation: str, info: Mapping[str, Any]) -> list[int] | None:
        if (prompt := self._dialogue.hear(observation, info)) is None:
            return None
        if self._turns == len(self._record.steps):
            self._beyond(self._record)
            return None
        self._turns += 1
        return prompt


def _replies(samples: Sequence[Sample], has_tokens: bool) -> dict[tuple[Decoding, int], Completion]:
    """The recorded replies, by decoding and the seed that they were asked for with."""
    replies = {}
    for sample in samples:
        for number, step in enumerate(sample.steps):
            ids = step.token_ids or [] if has_tokens else [ord(character) for character in without_marks(step.response)]
            counted = None if has_tokens or sample.tokens is None else 0 if number else sample.tokens
            replies[Decoding(sample.decoding), derive_seed(sample.seed, number)] = Completion(0, ids, [], FINISH[step.truncated], counted)
    return replies


def _check_played(made: Sample) -> None:
    """Raises UserError where the environment failed here."""
    if made.error is not None:
        raise UserError(printable(f"{_name(made)}: its environment failed here ({made.error}); verify again"))


def _first_difference(sample: Sample, made: Sample) -> str | None:
    """Where the tokens of two episodes part; None: nowhere."""
    recorded, again = ([step.token_ids or [] for step in one.steps] for one in (sample, made))
    if recorded == again:
        return None
    number = next((at for at, (a, b) in enumerate(zip(recorded, again, strict=False)) if a != b), min(len(recorded), len(again)))
    a, b = (steps[number] if number < len(steps) else [] for steps in (recorded, again))
    token = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return f"{_name(sample)}, step {number}: from token {token} on"


def _differing(one: BaseModel, other: BaseModel) -> list[str]:
    return [name for name in type(one).model_fields if getattr(one, name) != getattr(other, name)]


def _name(sample: Sample) -> str:
    return f"{sample.item} {sample.decoding} {sample.sample}"
