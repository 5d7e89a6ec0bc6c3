"""The records of an evaluation, played again: what they must be, whether they are graded as the environment grades, and whether base,
patch and seed make the same tokens.

The recorded tokens are given to the real agent in place of a model's, and the episode that comes of it is compared with the record field by
field: prompt, text, action, observation, reward, verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from ...agents.agent import Agent, Player, derive_seed
from ...agents.engine import Completion, FinishReason, Sampling
from ...agents.episodes import play
from ...agents.openai_engine import plain as unmarked
from ...agents.policy import Base
from ...agents.verdicts import ERROR
from ...envs.errors import UserError
from ...envs.items import Split
from ...envs.pool import Pool
from ..evaluator import Wanted, summarise
from ..records import Decoding
from ..responses import ResponsesEngine
from ..samples import SAMPLES, Sample, columns_of, prompt_reader, read_samples
from ..text import plain
from .archive import Claim

TEXT_LIMIT = 2 << 30  # bytes of text and tokens that the records of one evaluation may have when they are read


class Reason(StrEnum):
    """Why a submission is refused."""

    HASH = "a hash differs"
    """A file is not the one that its hash names."""
    BROKEN = "a file is broken"
    """It can not be read, or is larger than it may be."""
    CONFIGURATION = "the configuration differs"
    """Manifest and configuration contradict each other, or the protocol is not that of the configuration."""
    BASE = "another base"
    """The base's weights are not those that the evaluation or a patch names."""
    PATCH = "the patch differs"
    """The patch is another one, or has other weights than the trained set that it names."""
    TRAINING = "the training differs"
    """What the evaluation tells of a patch's training, cost included, is not what the run's manifest tells."""
    ITEMS = "other items"
    """The items are not the first ones of the split that is named."""
    TWICE = "a sample is there twice"
    MISSING = "a sample is missing"
    """Fewer records than items times samples: lost and failed ones belong there, too."""
    ORDER = "another order"
    """The samples do not stand in the order of the split."""
    SEED = "a seed differs"
    """A sample's key or seeds do not follow from protocol, item and index."""
    COUNTS = "a figure differs"
    """A figure of the manifest is not that of the records."""
    GRADE = "graded otherwise"
    """A verdict, reward or answer is not what the environment says to the response."""
    REPLY = "the response is not its tokens"
    """Text, action, prompt or number of tokens do not follow from the recorded tokens."""
    TOKENS = "other tokens"
    """Base, patch and seed make other tokens than those recorded."""
    UNVERIFIABLE = "can not be verified"
    """Nothing here can make or grade it again."""


class Refused(UserError):
    """What is verified is not what it says."""

    def __init__(self, place: str, reason: Reason, detail: str):
        super().__init__(plain(f"{place}: {reason}: {detail}"))
        self.reason = reason


@dataclass
class Subject:
    """An evaluation that can be played again."""

    claim: Claim
    player: Player
    pool: Pool
    split: Split
    wanted: list[Wanted]
    base: Base | None
    """Null: what played has no weights here."""

    def refuse(self, reason: Reason, detail: str) -> Refused:
        return Refused(self.claim.directory.name, reason, detail)

    def read(self) -> list[Sample]:
        """The records, which are all that belong there, in order, and give the figures of the manifest. Raises Refused."""
        path, manifest = self.claim.directory / SAMPLES, self.claim.manifest
        try:
            if (size := text_size(path)) > TEXT_LIMIT:
                raise self.refuse(Reason.BROKEN, f"{SAMPLES} unfolds to {size} bytes, more than the {TEXT_LIMIT} that are read")
            samples = read_samples(path)
        except Refused:
            raise
        except UserError as error:
            raise self.refuse(Reason.BROKEN, str(error).replace(f"{path.parent}/", "")) from error
        self._check_identities([(sample.decoding, sample.item, sample.sample) for sample in samples])
        for sample, one in zip(samples, self.wanted, strict=True):
            found = sample.key, sample.seed, sample.env_seed, sample.type
            if found != (one.key, one.play.seed, one.play.env_seed, one.type):
                raise self.refuse(Reason.SEED, f"{_name(sample)} has key {sample.key}, and protocol, item and index give {one.key}")
            if sample.error is not None and (sample.verdict, sample.reward) != (ERROR, 0.0):
                raise self.refuse(Reason.GRADE, f"{_name(sample)} was lost, and is {sample.verdict}")
        types = {item.id: str(item.meta["type"]) for item in self.split.items if "type" in item.meta}
        for decoding in Decoding:
            made = summarise([sample for sample in samples if sample.decoding == decoding], types)
            told = manifest.scores(decoding)
            if differ := [name for name in type(made).model_fields if getattr(made, name) != getattr(told, name)]:
                raise self.refuse(Reason.COUNTS, f"{decoding}.{differ[0]} is not that of the records")
        return samples

    def _check_identities(self, found: list[tuple[str, str, int]]) -> None:
        expected = [(one.decoding.value, one.play.item, one.sample) for one in self.wanted]
        if foreign := sorted({item for _, item, _ in found} - {item for _, item, _ in expected}):
            raise self.refuse(Reason.ITEMS, f"{foreign[0]} is no item of {self.split.name}")
        if twice := [one for one, count in Counter(found).items() if count > 1]:
            raise self.refuse(Reason.TWICE, _identity(*twice[0]))
        if missing := sorted(set(expected) - set(found)):
            raise self.refuse(Reason.MISSING, f"{_identity(*missing[0])}; {len(missing)} in all")
        if more := sorted(set(found) - set(expected)):
            raise self.refuse(Reason.COUNTS, f"{_identity(*more[0])} is one more than the manifest says")
        if at := [one for one, other in zip(found, expected, strict=True) if one != other]:
            raise self.refuse(Reason.ORDER, f"{_identity(*at[0])} stands elsewhere")

    def grade(self, samples: Sequence[Sample]) -> None:
        """Give the recorded replies to agent and environment again. Raises Refused where anything comes out otherwise."""
        if self.base:
            self._check_ends(samples, self.base.end_ids)
        player = self.player
        if isinstance(player, Agent):  # the replies of a rule follow from item and seed
            player = copy(player)
            player.engine = ResponsesEngine(_replies(samples, self.base is not None))
        for sample, made in self._play(player, samples):
            self._compare(sample, made)

    def regenerate(self, samples: Sequence[Sample]) -> None:
        """Make samples again. Raises Refused where their tokens are others."""
        differ = [found for sample, made in self._play(self.player, samples) if (found := _first_difference(sample, made))]
        if differ:
            raise self.refuse(Reason.TOKENS, f"{len(differ)} of {len(samples)} samples made again; {min(differ)}")

    def _check_ends(self, samples: Sequence[Sample], end_ids: set[int]) -> None:
        """A reply ends with its first end token, or is as long as a reply may be."""
        longest = self.claim.manifest.max_tokens
        for sample in samples:
            for step in sample.steps:
                ids = step.token_ids or []
                ended, within = bool(ids) and ids[-1] in end_ids, any(token in end_ids for token in ids[:-1])
                whole = ended if not step.truncated else not ended and len(ids) == longest
                if within or not whole or len(ids) > longest:
                    raise self.refuse(Reason.REPLY, f"{_name(sample)}: a reply of {len(ids)} tokens does not end as replies do")

    def _compare(self, sample: Sample, made: Sample) -> None:
        differ = [name for name in Sample.model_fields if getattr(sample, name) != getattr(made, name)]
        if not differ:
            return
        graded = [name for name in ("verdict", "reward", "answer") if name in differ]
        steps = [name for one, other in zip(sample.steps, made.steps, strict=False) for name in _differing(one, other)]
        if graded and "response" not in steps and "action" not in steps:
            told = ", ".join(f"{name} {getattr(sample, name)!r}, not {getattr(made, name)!r}" for name in graded)
            raise self.refuse(Reason.GRADE, f"{_name(sample)}: {told[:200]}")
        where = f"{len(sample.steps)} steps, not {len(made.steps)}" if len(sample.steps) != len(made.steps) else ", ".join(steps or differ)
        raise self.refuse(Reason.REPLY, f"{_name(sample)}: {where}")

    def _play(self, player: Player, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
        """Recorded samples, each with what comes of playing it. Raises UserError where the environment fails here."""
        by_key = {one.key: one for one in self.wanted}
        read, has_tokens = prompt_reader(player), self.base is not None
        for decoding in Decoding:
            due = [sample for sample in samples if sample.decoding == decoding]
            temperature = self.claim.manifest.temperature if decoding is Decoding.SAMPLED else 0.0
            plays = [by_key[sample.key].play for sample in due]
            for episode in play(player, self.pool, plays, Sampling(player.config.max_tokens, temperature)) if due else ():
                sample = due[episode.index]
                if episode.error:
                    raise UserError(plain(f"{_name(sample)}: its environment failed here ({episode.error}); verify again"))
                same = {"key": sample.key, "decoding": sample.decoding, "type": sample.type, "sample": sample.sample}
                yield sample, Sample(**same, **columns_of(episode, read, has_tokens))


def _replies(samples: Sequence[Sample], has_tokens: bool) -> dict[tuple[Decoding, int], Completion]:
    """The recorded replies, by decoding and the seed that they were asked for with."""
    replies = {}
    for sample in samples:
        for number, step in enumerate(sample.steps):
            finish = FinishReason.LENGTH if step.truncated else FinishReason.STOP
            ids = step.token_ids or [] if has_tokens else [ord(character) for character in unmarked(step.response)]
            counted = None if has_tokens else 0 if number else sample.tokens
            replies[Decoding(sample.decoding), derive_seed(sample.seed, number)] = Completion(0, ids, [], finish, counted)
    return replies


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
    return _identity(sample.decoding, sample.item, sample.sample)


def _identity(decoding: str, item: str, sample: int) -> str:
    return f"{item} {decoding} {sample}"


def text_size(path: Path) -> int:
    """Bytes of text and tokens in a file of records, counted without holding them: a small file can unfold to any size.

    Raises UserError where it can not be read, or has other columns.
    """
    import duckdb

    steps = " + ".join(f"coalesce(strlen(s.{name}), 0)" for name in ("observation", "prompt", "response", "action"))
    texts = " + ".join(
        f"coalesce(strlen({name}), 0)" for name in ("key", "decoding", "item", "type", "verdict", "answer", "error", "ending")
    )
    query = (
        f"select sum({texts} + coalesce(list_sum(list_transform(steps, lambda s: 64 + {steps} + 4 * coalesce(len(s.token_ids), 0))), 0))"
    )
    try:
        with duckdb.connect(config={"memory_limit": "2GB", "threads": 1}) as connection:
            row = connection.execute(f"{query} from read_parquet(?)", [str(path)]).fetchone()
    except duckdb.Error as error:
        raise UserError(f"{path}: cannot be read as records ({' '.join(str(error).split())[:80]})") from error
    return int(row[0] or 0) if row else 0
