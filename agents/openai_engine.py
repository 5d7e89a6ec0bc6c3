"""Models behind an API that takes messages and returns text: the chat completions that OpenAI began and most servers speak.

Only text comes back, so such an engine can be evaluated and not trained. What an agent calls tokens are characters here: a prompt is the
text of its messages with marks between them, and the tokens that the server sampled are counted by the server.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import torch

from ..common.errors import UserError
from ..common.reading import parse_json
from .config import AgentConfig, EndpointConfig
from .engine import Completion, FinishReason, Request
from .length import UNLIMITED

ROLES = {
    "\ue000": "user",
    "\ue001": "assistant",
    "\ue002": "system",
}  # private characters of Unicode: no text that means anything holds them
MARKS = {role: mark for mark, role in ROLES.items()}
COUNTED: tuple[str, ...] = ("sent", "retried", "rate_limited", "timed_out", "broken", "refused")
LONGEST_WAIT = 60.0
TOLD_EVERY = 10.0
"""Seconds between two messages that requests are tried again."""
ANSWER_LIMIT = 32 << 20  # bytes of one answer


class TextTokenizer:
    """Characters as tokens, and marks as a chat template: what an agent does with messages works on text alone."""

    chat_template, eos_token = "text", None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        text = "".join(map(chr, token_ids))
        for mark, role in ROLES.items():
            text = text.replace(mark, "" if skip_special_tokens else f"<|{role}|>\n")
        return text

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True, tokenize: bool = True, **_: object
    ) -> str | list[int]:
        text = "".join(MARKS[message["role"]] + without_marks(message["content"]) for message in messages)
        text += MARKS["assistant"] if add_generation_prompt else ""
        return self.encode(text) if tokenize else text


def without_marks(text: str) -> str:
    """Text without marks: what an environment or a model says never passes for a message of its own."""
    return text.translate(dict.fromkeys(map(ord, ROLES), "\ufffd"))


def to_messages(prompt_ids: Sequence[int]) -> list[dict[str, str]]:
    """The messages of a prompt; the mark at its end, where the reply goes, is none."""
    messages: list[dict[str, str]] = []
    for character in map(chr, prompt_ids):
        if character in ROLES:
            messages.append({"role": ROLES[character], "content": ""})
        else:
            messages[-1]["content"] += character
    return messages[:-1]


_log = logging.getLogger(__name__)


@dataclass
class Trouble(Exception):
    """A request that brought no answer."""

    kind: str
    """rate_limited, timed_out, broken or refused."""
    reason: str
    wait: float | None = None
    """Seconds that the server asks for."""


class OpenAIEngine:
    """Sends requests, a few at once, until each is answered.

    A rate limit, a timeout, a failing server and an answer that makes no sense are tried again, later each time, as the server asks with
    Retry-After. `counts` has what became of the requests: sent, and of these rate_limited, timed_out, broken and refused; retried.
    """

    returns_tokens = False
    context = UNLIMITED
    """Not known: a prompt that the server finds too long is refused by it."""

    def __init__(self, config: EndpointConfig, model: str, agent: AgentConfig | None = None):
        """agent: what it says of stops and of the chat template, which the server applies, goes with every request.

        Raises UserError where the variable that is to hold the key is not set, and for what an endpoint cannot do.
        """
        self._further = _further(agent or AgentConfig())
        self.config, self.model, self.counts = config, model, Counter(dict.fromkeys(COUNTED, 0))
        self._key = os.environ.get(config.key_variable, "") if config.key_variable else ""
        if config.key_variable and not self._key:
            raise UserError(f"eval.endpoint.key_variable: {config.key_variable} is not set; export it with the API key in it")
        self._told = -TOLD_EVERY
        self._lock, self._not_before, self._stopped = threading.Lock(), 0.0, threading.Event()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions as they come. Raises UserError where the server cannot be used, or does not answer for all attempts."""
        self._stopped.clear()
        pool = ThreadPoolExecutor(self.config.concurrency, thread_name_prefix="endpoint")
        try:
            pending = [pool.submit(self._complete, index, request) for index, request in enumerate(requests)]
            for future in as_completed(pending):
                yield future.result()
        finally:
            self._stopped.set()  # nobody waits for an answer any more
            pool.shutdown(wait=False, cancel_futures=True)

    def end_session(self, session: str) -> None:
        pass

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        pass

    def _complete(self, index: int, request: Request) -> Completion:
        for attempt in range(self.config.attempts):
            self._pause(self._not_before - time.monotonic())
            try:
                self._count("sent")
                return _completion(index, self._post(self._body(request)))
            except Trouble as trouble:
                self._count(trouble.kind)
                if trouble.kind == "refused":  # this request alone
                    return Completion(index, [], [], FinishReason.STOP, 0, f"the endpoint refuses it: {trouble.reason}")
                last = trouble
            wait = min(LONGEST_WAIT, 2.0**attempt) * random.uniform(0.5, 1.0) if last.wait is None else last.wait
            if attempt + 1 == self.config.attempts:
                break
            if last.kind == "rate_limited":  # the others need not find out for themselves
                with self._lock:
                    self._not_before = max(self._not_before, time.monotonic() + wait)
            self._tell(f"{last.reason}; attempt {attempt + 2} of {self.config.attempts} in {wait:.0f} s")
            self._pause(wait)
            self._count("retried")
        raise UserError(
            f"{self.config.url}: no answer in {self.config.attempts} attempts ({last.kind.replace('_', ' ')}: {last.reason}); "
            "what has been answered is kept, the same command continues"
        )

    def _body(self, request: Request) -> dict[str, Any]:
        ours: dict[str, Any] = {
            "model": self.model,
            "messages": to_messages(request.prompt_ids),
            "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "seed": request.seed % 2**31,  # more is refused by some
            "n": 1,
        }
        ours |= {"top_k": request.sampling.top_k} if request.sampling.top_k else {}
        return {name: value for name, value in (ours | self._further | self.config.body).items() if value is not None}

    def _post(self, body: Mapping[str, Any]) -> bytes:
        """The answer as it came. Raises Trouble where there is none, UserError where there will be none."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        data = json.dumps(body, ensure_ascii=True).encode()
        request = urllib.request.Request(f"{self.config.url}/chat/completions", data, headers)
        try:
            with _opener.open(request, timeout=self.config.timeout_seconds) as answer:
                found = answer.read(ANSWER_LIMIT)
                if (length := answer.headers.get("Content-Length")) and int(length) != len(found):
                    raise Trouble("broken", f"{len(found)} of {length} bytes")
                return found
        except urllib.error.HTTPError as error:
            raise self._trouble(error) from error
        except TimeoutError as error:
            raise Trouble("timed_out", f"none within {self.config.timeout_seconds:g} s") from error
        except urllib.error.URLError as error:
            kind = "timed_out" if isinstance(error.reason, TimeoutError) else "broken"
            raise Trouble(kind, self._safe(str(error.reason))) from error
        except (OSError, ValueError) as error:  # a connection that ends too early, headers that are none
            raise Trouble("broken", self._safe(f"{type(error).__name__} {error}")) from error

    def _trouble(self, error: urllib.error.HTTPError) -> Trouble:
        """What an HTTP status means. Raises UserError for one that no other request will change."""
        try:
            text = self._safe(error.read(2000).decode("utf-8", "replace"))
        except OSError:
            text = ""
        reason = f"HTTP {error.code} {text}".strip()
        if error.code in (401, 403):
            raise UserError(f"{self.config.url}: refuses the key ({reason}); see eval.endpoint.key_variable")
        if error.code in (404, 405) or 300 <= error.code < 400:
            raise UserError(f"{self.config.url}: nothing answers there for the model {self.model!r} ({reason}); see --endpoint and --model")
        if error.code in (429, 503):
            return Trouble("rate_limited" if error.code == 429 else "broken", reason, _seconds(error.headers.get("Retry-After")))
        return Trouble("timed_out" if error.code in (408, 504) else "broken" if error.code >= 500 else "refused", reason)

    def _safe(self, text: str) -> str:
        """One line of text without the key, for a message."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join("".join(character if character.isprintable() else " " for character in text).split())[:300]

    def _tell(self, text: str) -> None:
        """Say why it takes so long; now and then, since many requests may wait for the same reason."""
        with self._lock:
            if time.monotonic() - self._told < TOLD_EVERY:
                return
            self._told = time.monotonic()
        _log.warning("%s: no answer (%s)", self.config.url, text)

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise UserError(f"{self.config.url}: stopped")  # seen by nobody: generate has ended

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A server that sends elsewhere is an error: the key is for the address given."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _further(agent: AgentConfig) -> dict[str, Any]:
    """Keys of every request that the agent's configuration asks for."""
    if agent.chat_template is not None:
        raise UserError("agent.chat_template: an endpoint applies its own template; leave it out, or start the server with another")
    if numbers := [one for one in agent.stop if isinstance(one, int)]:
        raise UserError(f"agent.stop: an endpoint takes texts, not the number {numbers[0]} of a token; give the token's text")
    found: dict[str, Any] = {"stop": agent.stop} if agent.stop else {}
    return found | ({"chat_template_kwargs": agent.template_options} if agent.template_options else {})


def _completion(index: int, answer: bytes) -> Completion:
    """Raises Trouble for an answer that is none."""
    try:
        found = parse_json(answer)
        choice = found["choices"][0]
        text, finish = choice["message"]["content"], choice.get("finish_reason")
        tokens = (found.get("usage") or {}).get("completion_tokens", 0)
        if text is None and finish == "length":  # all of it went into thoughts that are not shown
            text = ""
        if not isinstance(text, str) or not isinstance(tokens, int) or tokens < 0:
            raise TypeError("no text in it")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Trouble("broken", f"not a chat completion ({type(error).__name__}: {error})"[:200]) from error
    reason = FinishReason.LENGTH if finish == "length" else FinishReason.STOP
    return Completion(index, [ord(character) for character in without_marks(text)], [], reason, tokens)


def _seconds(header: str | None) -> float | None:
    """Retry-After, which is seconds or a date; None where there is none. Never more than LONGEST_WAIT."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(LONGEST_WAIT, max(0.0, seconds))
