"""Between text and token ids: a user message becomes a prompt, sampled tokens become a reply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from ..common.errors import UserError
from .config import PLAIN, AgentConfig
from .ends import Ends
from .model_files import check_template

MARK = "\u2402reply\u2403"  # stands for a reply where a chat template is asked what comes after one


class Chat:
    """The tokenizer of a model and its chat template, as the recipe has it. Without a template a prompt is the plain text.

    Raises UserError for a system message or template options where there is no template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: AgentConfig, ends: Ends | None = None):
        self.tokenizer, self.config, self.ends = tokenizer, config, ends or Ends()
        self.templated = tokenizer.chat_template is not None if config.chat_template is None else config.chat_template != PLAIN
        self._options: dict[str, Any] = dict(config.template_options)
        if self.templated and config.chat_template is not None:
            self._options["chat_template"] = config.chat_template
        self._first = [{"role": "system", "content": config.system}] if config.system else []
        for key in ("system", "template_options"):
            if getattr(config, key) and not self.templated:
                raise UserError(f"agent.{key}: there is no chat template that it could go into; leave it out, or give agent.chat_template")

    def check(self) -> None:
        """Raises UserError where the template cannot be used with the system message and the options of the recipe."""
        if self.templated and (self._options or self._first):
            check_template(self.tokenizer, self.config)

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt with this user message, ready for the reply."""
        if not self.templated:
            return self.tokenizer.encode(text)
        messages = [*self._first, {"role": "user", "content": text}]
        return cast("list[int]", self._apply_template(messages, return_dict=False))

    def encode_next(self, text: str, ended: bool) -> list[int]:
        """Token ids of what stands between a reply and the next one: its end, unless one was sampled (`ended`), and the user's message."""
        if not self.templated:
            return self.tokenizer.encode(f"\n{text}\n", add_special_tokens=False)
        messages = [
            *self._first,
            {"role": "user", "content": "0"},
            {"role": "assistant", "content": MARK},
            {"role": "user", "content": text},
        ]
        rendered = cast("str", self._apply_template(messages, tokenize=False))
        glue = rendered.rpartition(MARK)[2]
        return self.tokenizer.encode(self._without_end(glue) if ended else glue, add_special_tokens=False)

    def _without_end(self, glue: str) -> str:
        """The text after a reply without the template's own end of it: the reply has one already, whichever was sampled."""
        ends = [*(cast("str", self.tokenizer.decode([token])) for token in self.ends.ids), *self.ends.texts]
        after = glue.lstrip()
        return next((after.removeprefix(end) for end in sorted(ends, key=len, reverse=True) if end and after.startswith(end)), glue)

    def _apply_template(self, messages: list[dict[str, str]], **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, **self._options, **options)
        except Exception as error:  # a template is a program of whoever made the model
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            raise UserError(f"model.path: the chat template of the model fails on a prompt ({reason}); take another template") from error

    def text(self, token_ids: Sequence[int]) -> str:
        """The reply as text, up to what ended it, special tokens left out."""
        ids = list(token_ids[:-1] if token_ids and token_ids[-1] in self.ends.ids else token_ids)
        return self.ends.cut(cast("str", self.tokenizer.decode(ids, skip_special_tokens=True)))
