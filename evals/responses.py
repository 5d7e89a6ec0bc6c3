"""Responses that were made elsewhere, as a policy: a JSON-lines file is graded as if a model had just written it.

A line: `{"item": ID, "response": TEXT}`, or `"responses": [TEXT, ...]` with one for each turn of an episode. Of several lines for an item
the first is sample 0. `"decoding": "greedy"` marks the greedy one; `"tokens"` says how many tokens the line's responses had, and
`"truncated"` whether one was cut off at the most that it may have; where a line does not say it, it counts as not measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..agents.agent import Agent
from ..agents.engine import Completion, FinishReason, Request
from ..agents.length import TOKENLESS, UNLIMITED
from ..agents.openai_engine import TextTokenizer, without_marks
from ..common.errors import UserError, first_problem
from ..common.reading import parse_json, read_bytes
from ..common.seeds import derive_seed
from ..envs.items import Split
from .evaluator import sample_seed
from .records import Decoding, PolicyInfo, Source

LARGEST_FILE = 2 << 30  # bytes
FINISH = {True: FinishReason.LENGTH, False: FinishReason.STOP, None: FinishReason.UNKNOWN}
"""By whether a reply was cut off, where that is known."""


class ResponseLine(BaseModel):
    """One line of the file; other keys are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    item: str = Field(description="id of the item in the split")
    responses: list[str] = Field(min_length=1, description="one for each turn")
    decoding: Decoding = Decoding.SAMPLED
    tokens: int | None = Field(default=None, ge=0, lt=2**31, description="of all responses; null: not known")
    truncated: bool | None = Field(default=None, description="whether a response was cut off at its most tokens; null: not known")

    @model_validator(mode="before")
    @classmethod
    def _one_turn(cls, data: Any) -> Any:
        if isinstance(data, dict) and "response" in data and "responses" not in data:
            return {**data, "responses": [data["response"]]}
        return data


@dataclass(frozen=True)
class Responses:
    """What the file holds, by decoding and item."""

    path: Path
    sha256: str
    lines: dict[Decoding, dict[str, list[ResponseLine]]]

    @property
    def samples(self) -> int:
        """Sampled responses of each item; where all are greedy, one stands for them."""
        return max((len(lines) for lines in self.lines[Decoding.SAMPLED].values()), default=1)

    @property
    def repeats(self) -> Decoding | None:
        """The decoding of which the file has nothing."""
        return next((decoding for decoding in Decoding if not self.lines[decoding]), None)

    def policy(self) -> PolicyInfo:
        return PolicyInfo(
            name=self.path.stem,
            source=Source.RESPONSES,
            model=self.path.name,
            base="none",
            repeats=self.repeats,
            identity=self.sha256,
        )

    def agent(self, split: Split, seed: int) -> Agent:
        """Who gives these responses. split: the items to be played. Raises UserError where one has too few, or there are others."""
        self._check(split)
        answers: dict[tuple[Decoding, int], Completion] = {}
        for decoding in Decoding:
            found = self.lines[decoding] or self.lines[Decoding.SAMPLED if decoding is Decoding.GREEDY else Decoding.GREEDY]
            for item in split.items:
                for sample, line in enumerate(found[item.id]):
                    for turn, text in enumerate(line.responses):
                        ids = [ord(character) for character in without_marks(text)]
                        counted = 0 if turn and line.tokens is not None else line.tokens
                        reply = Completion(0, ids, [], FINISH[line.truncated], counted)
                        answers[decoding, derive_seed(sample_seed(seed, item.id, sample), turn)] = reply
        return Agent(ResponsesEngine(answers), cast("Any", TextTokenizer()), TOKENLESS, "{observation}", 0)

    def _check(self, split: Split) -> None:
        for decoding, by_item in self.lines.items():
            if unknown := next((item for item in by_item if item not in split.by_id), None):
                near = get_close_matches(unknown, split.by_id, n=1, cutoff=0.0)[0]
                raise UserError(
                    f"{self.path}: no item {unknown!r} among the {len(split.items)} of {split.name}; the nearest id is {near!r}"
                )
            wanted = self.samples if decoding is Decoding.SAMPLED else 1
            for item in split.items if by_item else ():
                if (there := len(by_item.get(item.id, []))) != wanted:
                    raise UserError(
                        f"{self.path}: item {item.id!r} of {split.name} has {there} {decoding} responses, and {wanted} belong there; "
                        "add what is missing, or take fewer items with --items"
                    )


class ResponsesEngine:
    """Gives back what was written for a seed; nothing where an episode has more turns than its line."""

    returns_tokens = False
    context = UNLIMITED

    def __init__(self, answers: Mapping[tuple[Decoding, int], Completion]):
        self._answers = answers

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for index, request in enumerate(requests):
            decoding = Decoding.SAMPLED if request.sampling.temperature else Decoding.GREEDY
            found = self._answers.get((decoding, request.seed), Completion(0, [], [], FinishReason.UNKNOWN, 0))
            yield Completion(index, found.token_ids, [], found.finish, found.counted)

    def end_session(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        pass


def read_responses(path: Path) -> Responses:
    """Raises UserError with file and line where a line is none."""
    lines: dict[Decoding, dict[str, list[ResponseLine]]] = {decoding: {} for decoding in Decoding}
    try:
        data = read_bytes(path, LARGEST_FILE)
        for number, text in enumerate(data.decode().split("\n"), 1):
            if not text.strip():
                continue
            try:
                line = ResponseLine.model_validate(parse_json(text))
            except ValidationError as error:
                raise UserError(f"{path}:{number}: no response ({first_problem(error)}); write {{item: ID, response: TEXT}}") from error
            except ValueError as error:
                raise UserError(f"{path}:{number}: not JSON ({error}); write a JSON object on each line") from error
            lines[line.decoding].setdefault(line.item, []).append(line)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a file of responses ({error}); name a JSON-lines file") from error
    if not any(lines.values()):
        raise UserError(f"{path}: holds no response; write {{item: ID, response: TEXT}} on each line")
    return Responses(path, hashlib.sha256(data).hexdigest(), lines)
