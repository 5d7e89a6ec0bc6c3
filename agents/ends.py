"""What ends a reply: tokens, and texts that several tokens may make up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch

from ..common.errors import UserError
from .policy import Base

MARGIN = 8
"""Tokens decoded before those that an end can lie in: what a tokenizer makes of its first tokens may depend on where they stand."""


class Ends:
    """ids: tokens that end a reply, each a reply's last; texts: those that end it where they stand in the text of its tokens."""

    def __init__(self, ids: Iterable[int] = (), texts: Sequence[str] = (), tokenizer: Any = None):
        self.ids, self.texts, self._tokenizer = frozenset(ids), tuple(texts), tokenizer
        self._tail = max((len(text.encode()) for text in texts), default=0) + MARGIN  # a token stands for a byte or more

    def ended(self, token_ids: Sequence[int]) -> bool:
        """Whether the last of these tokens ends the reply."""
        return bool(token_ids) and (token_ids[-1] in self.ids or self.completed(token_ids[-self._tail :]))

    def passed(self, token_ids: Sequence[int]) -> bool:
        """Whether any of these tokens ends the reply."""
        return any(token in self.ids for token in token_ids) or self.completed(token_ids)

    def completed(self, token_ids: Sequence[int]) -> bool:
        """Whether one of the texts stands in what these tokens say."""
        if not self.texts:
            return False
        said = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return any(text in said for text in self.texts)

    def tail(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The last tokens, in which a text lies that has just been completed."""
        return token_ids[-self._tail :]

    def cut(self, said: str) -> str:
        """What was said before the first of the texts."""
        return said[: min((at for text in self.texts if (at := said.find(text)) >= 0), default=len(said))]


def ends_of(base: Base, stop: Sequence[str | int]) -> Ends:
    """The base's own end tokens and what `agent.stop` adds. A text that the tokenizer keeps apart as one token is that token.

    Raises UserError for a token that the model does not have, and for a special token among other text.
    """
    added = cast("dict[str, int]", base.tokenizer.added_tokens_encoder)
    known = len(cast("torch.Tensor", base.model.get_input_embeddings().weight))
    ids, texts = set(base.end_ids), []
    for one in stop:
        if isinstance(one, int):
            if one >= known:
                raise UserError(f"agent.stop: there is no token {one}, the model knows {known}; name one of its tokens, or a text")
            ids.add(one)
        elif one in added:
            ids.add(added[one])
        elif inside := next((token for token in base.tokenizer.all_special_tokens if token in one), None):
            raise UserError(
                f"agent.stop: {one!r} holds the special token {inside!r} and more, and replies show no special tokens; name {inside!r}"
            )
        else:
            texts.append(one)
    return Ends(ids, texts, base.tokenizer)
