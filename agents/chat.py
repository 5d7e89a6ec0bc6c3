"""Between text and token ids: a user message becomes a prompt, sampled tokens become a reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from ..common.errors import UserError

MARK = "\u2402reply\u2403"  # stands for a reply where a chat template is asked what comes after one


class Chat:
    """The tokenizer of a model and its chat template. Models without a chat template get the plain text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt with this user message, ready for the reply."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(text)
        messages = [{"role": "user", "content": text}]
        return cast("list[int]", self._apply_template(messages, return_dict=False))

    def encode_next(self, text: str, ended: bool) -> list[int]:
        """Token ids of what stands between a reply and the next one: its end, unless it was sampled (`ended`), and the user's message."""
        if self.tokenizer.chat_template is None:
            return self.tokenizer.encode(f"\n{text}\n", add_special_tokens=False)
        messages = [{"role": "user", "content": "0"}, {"role": "assistant", "content": MARK}, {"role": "user", "content": text}]
        rendered = cast("str", self._apply_template(messages, tokenize=False))
        glue = rendered.rpartition(MARK)[2]
        if ended and self.tokenizer.eos_token and glue.startswith(end := cast("str", self.tokenizer.eos_token)):
            glue = glue.removeprefix(end)
        return self.tokenizer.encode(glue, add_special_tokens=False)

    def _apply_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **options)
        except Exception as error:  # a template is a program of whoever made the model
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            raise UserError(f"model.path: the chat template of the model fails on a prompt ({reason}); take another template") from error

    def text(self, token_ids: Sequence[int]) -> str:
        """The reply as text, special tokens left out."""
        return cast("str", self.tokenizer.decode(list(token_ids), skip_special_tokens=True))
