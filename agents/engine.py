"""Engines make tokens. The contract that every engine keeps, and the engine on Transformers models."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import islice, takewhile
from typing import Protocol, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel

from ..common.errors import UserError
from .config import AgentConfig
from .decoder import decoder_layers
from .drawing import sample, uniform
from .ends import Ends, ends_of
from .layer_inputs import InputMemory, LayerInputs, recorded
from .length import context_of
from .policy import Base
from .prefix import Kept, Prompts, bytes_per_token, check_tokens, decoder_forward, encode_prompts, extend_prompts, head_logits
from .slots import SlotCache

Output = TypeVar("Output")

KEPT_BYTES = 256 * 2**20
"""A cache up to this size is kept from call to call, since fresh memory costs a page fault for every 4 KiB; a larger one is given back."""
ENCODED_TOKENS = 8192
"""Padded tokens of the prompts that are encoded together."""


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model sampled an end: the last of `token_ids` is an end token, or completes a text that ends replies."""
    LENGTH = "length"
    """The reply reached `max_tokens` without an end token."""
    UNKNOWN = "unknown"
    """The reply was made elsewhere, and nobody has told how it ended."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 is greedy. Training draws from all tokens: top_p and top_k are for evaluations alone."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    """The fewest likeliest tokens that have this probability together; 1: all."""
    top_k: int = 0
    """So many of the likeliest tokens, before `top_p`; 0: all."""

    @property
    def restricted(self) -> bool:
        """Whether tokens are drawn from some alone."""
        return self.temperature > 0 and (self.top_p < 1 or self.top_k > 0)


@dataclass(frozen=True)
class Request:
    """One completion asked for: `seed` fixes its tokens, whatever else is decoded beside it."""

    prompt_ids: Sequence[int]
    seed: int
    sampling: Sampling
    session: str | None = None
    """A conversation whose keys and values the engine keeps from turn to turn, until `end_session`; a request of it whose prompt
    begins with what the session has seen is computed from there on."""
    inputs_of: int | None = None
    """A decoder layer whose input is asked for too, the same in all requests of a call. An engine may leave it out."""


@dataclass(frozen=True)
class Completion:
    """Sampled tokens, and their log-probabilities in nats under the distribution sampled from (temperature, top-p and top-k included;
    for greedy decoding, which has no such distribution, under temperature 1)."""

    index: int
    """Position of the request in the list that was given to `generate`."""
    token_ids: list[int]
    logprobs: list[float]
    finish: FinishReason
    counted: int | None = None
    """How many tokens there were, from an engine that does not return them; None with `UNKNOWN`: not known."""
    error: str | None = None
    """Why there is no reply, and none will come: the episode is lost."""
    inputs: LayerInputs | None = field(default=None, repr=False, compare=False)
    """What entered the layer that was asked for."""


class Engine(Protocol):
    """What agents, the evaluator and the trainer rely on."""

    returns_tokens: bool
    """False where only text comes back; training refuses such an engine."""
    context: int
    """Most tokens of prompt and reply together; UNLIMITED where nothing bounds them here."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which they finish."""
        ...

    # An engine may also have `serve(more)`: as `generate`, but `more()` gives the requests, those that are there by now. The engine asks at
    # the start, and again where a quarter of what is under way has finished; it ends where nothing is under way and none came. Completions
    # bear numbers in the order in which their requests were taken. With it an episode goes on while the replies of others are made.

    def end_session(self, session: str) -> None:
        """Forget what is kept of a conversation; also of one that never was."""
        ...

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over changed weights, by parameter name; none: show that this engine could.

        An engine begins with the weights of the base's model. Raises UserError where it cannot take over weights.
        """
        ...


class TransformersEngine:
    """Batched generation on a Hugging Face decoder-only model, in process.

    At most `max_batch` rows decode together, and no more than have room in `kv_cache_gib` (one row always does). Each prompt is computed
    once for all its requests; a row that has ended leaves the batch, and a waiting request takes its place. As much memory again may hold
    conversations that go on; where they need more, those that waited longest are forgotten, and computed again when they go on. As much
    again may hold the layer inputs that are asked for between two changes of the weights; later completions come without.
    """

    returns_tokens = True

    def __init__(self, model: PreTrainedModel, ends: Ends | Iterable[int], max_batch: int = 256, kv_cache_gib: float = 1.0):
        self.model, self.max_batch, self.kv_bytes = model, max_batch, int(kv_cache_gib * 2**30)
        self._cache: SlotCache | None = None
        self.ends = ends if isinstance(ends, Ends) else Ends(ends)
        self.context = context_of(model)
        self.sessions: dict[str, Kept] = {}
        self._inputs = InputMemory(self.kv_bytes)

    @cached_property
    def _column_bytes(self) -> int:
        return bytes_per_token(self.model)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        asked = [list(requests)]
        return self.serve(lambda: asked.pop() if asked else [])

    @torch.inference_mode()
    def serve(self, more: Callable[[], Sequence[Request]]) -> Iterator[Completion]:
        waiting, taken, finished = deque[tuple[int, Request]](), 0, 0
        session_of: dict[int, str] = {}
        uses: Counter[tuple[int, ...]] = Counter()
        rows: _Rows | None = None
        while True:
            under_way = len(waiting) + (rows.count if rows else 0)
            if not under_way or (finished and finished >= (under_way + finished) // 4):
                new, finished = list(enumerate(more(), taken)), 0
                taken += len(new)
                if new:
                    check_tokens([request.prompt_ids for _, request in new], self.model)
                session_of |= {index: request.session for index, request in new if request.session is not None}
                uses.update(tuple(request.prompt_ids) for _, request in new)
                waiting += new
            if rows is None or not rows.count:
                if not waiting:
                    break
                rows = self._rows_for([request for _, request in waiting], rows)
            free = rows.slots - rows.count
            # Encoding prompts costs a pass of its own, so newcomers wait until a quarter of the batch is free.
            if waiting and free >= max(1, rows.slots // 4):
                fits = list(takewhile(lambda one, rows=rows: rows.takes(one[1]), islice(waiting, free)))
                if fits:
                    rows.admit([waiting.popleft() for _ in fits], uses, self.sessions)
            rows.step()
            done = rows.pop_finished(self.ends, session_of, self.sessions)
            finished += len(done)
            yield from done
            self._forget_oldest()
        if self._cache and self._cache.slots * self._cache.width * self._column_bytes > KEPT_BYTES:
            self._cache = None

    def _rows_for(self, requests: Sequence[Request], before: _Rows | None) -> _Rows:
        """No rows yet, with slots for these requests in the memory that there is; those before where they do."""
        max_tokens = max(request.sampling.max_tokens for request in requests)
        width = max(len(request.prompt_ids) for request in requests) + max_tokens
        slots = max(1, min(self.max_batch, len(requests), self.kv_bytes // (width * self._column_bytes)))
        if before and slots <= before.slots and width <= before.cache.width and max_tokens <= before.max_tokens:
            return before
        if self._cache is None or self._cache.slots < slots or self._cache.width < width:
            self._cache = SlotCache(slots, width)
        self._inputs.layer = requests[0].inputs_of
        return _Rows(self.model, self._cache, slots, max_tokens, self._inputs, self.kv_bytes // self._column_bytes)

    def _forget_oldest(self) -> None:
        held = sum(kept.bytes for kept in self.sessions.values())
        for session in list(self.sessions):
            if held <= self.kv_bytes:
                break
            held -= self.sessions.pop(session).bytes

    def end_session(self, session: str) -> None:
        self.sessions.pop(session, None)

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """What is kept of conversations was computed with the old weights; the model itself is the base's, and has the new ones."""
        self.sessions.clear()
        self._inputs = InputMemory(self.kv_bytes)


def in_model(base: Base, config: AgentConfig) -> TransformersEngine:
    """The engine on the base's model itself."""
    return TransformersEngine(base.model, ends_of(base, config.stop), config.max_batch, config.kv_cache_gib)


class _Rows:
    """The rows being decoded: rows `0 .. count` of every tensor, dense, since the last one moves into a gap."""

    def __init__(self, model: PreTrainedModel, cache: SlotCache, slots: int, max_tokens: int, input_memory: InputMemory, most_columns: int):
        """most_columns: of all slots together, as far as there is memory."""
        self.model, self.cache, self.count, self.slots = model, cache, 0, slots
        self.max_tokens, self.most_columns = max_tokens, most_columns
        self.input_memory, self.prompt_inputs = input_memory, dict[tuple[int, ...], torch.Tensor | None]()
        self.layer = None if input_memory.layer is None else decoder_layers(model)[input_memory.layer]
        self.encoded: dict[tuple[int, ...], tuple[Prompts, int]] = {}
        self.prompts: dict[int, tuple[int, ...]] = {}

        def column(dtype: torch.dtype, *shape: int) -> torch.Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=model.device)

        self.index, self.seed = column(torch.long), np.zeros(slots, dtype=np.uint64)
        self.temperature, self.limit = column(torch.float32), column(torch.long)
        self.top_p, self.top_k, self.restricted = column(torch.float32), column(torch.long), False
        self.start, self.end = column(torch.long), column(torch.long)  # first column of the prompt, column of `last`
        self.last, self.length = column(torch.long), column(torch.long)  # token to feed next, tokens sampled so far
        self.tokens, self.logprobs = column(torch.long, max_tokens), column(torch.float32, max_tokens)
        self.inputs = torch.zeros(
            slots, max_tokens, model.config.get_text_config().hidden_size if self.layer else 0, dtype=model.dtype, device=model.device
        )  # what entered the layer that is asked for, of each token that was fed
        self.columns = (self.index, self.temperature, self.limit, self.top_p, self.top_k, self.start, self.end, self.last, self.length)
        self.wide = (self.tokens, self.logprobs, self.inputs)

    def takes(self, request: Request) -> bool:
        """Whether a request can be admitted while others are under way; the slots are made longer for it where there is memory."""
        width = len(request.prompt_ids) + request.sampling.max_tokens
        if request.sampling.max_tokens > self.max_tokens or (width > self.cache.width and width * self.slots > self.most_columns):
            return False
        self.cache.widen(width)
        return True

    def admit(self, admitted: list[tuple[int, Request]], uses: Counter[tuple[int, ...]], sessions: dict[str, Kept]) -> None:
        """Give each request a row whose slot holds its prompt; `uses` counts the requests still to come of each prompt."""
        keys = [tuple(request.prompt_ids) for _, request in admitted]
        if new := [key for key in dict.fromkeys(keys) if key not in self.encoded]:
            kept = {key: sessions[r.session] for key, (_, r) in zip(keys, admitted, strict=True) if r.session in sessions}
            begun = [key for key in new if key in kept and kept[key].begins(key)]
            for part in _chunks(begun):
                self._encode(part, lambda part=part: extend_prompts(self.model, part, [kept[key] for key in part]), kept)
            for part in _chunks([key for key in new if key not in begun]):
                self._encode(part, lambda part=part: encode_prompts(self.model, part), {})
        first, self.count = self.count, self.count + len(admitted)
        for prompts in {id(self.encoded[key][0]): self.encoded[key][0] for key in keys}.values():
            chosen = [(first + at, self.encoded[key][1]) for at, key in enumerate(keys) if self.encoded[key][0] is prompts]
            rows, prompt_rows = torch.tensor(chosen, device=self.end.device).T
            self.cache.fill(rows, prompts, prompt_rows)
            self.start[rows], self.end[rows] = prompts.start_P[prompt_rows], prompts.width
        at = slice(first, self.count)
        self.seed[at] = [request.seed for _, request in admitted]
        self.length[at] = 0
        for column, values in (
            (self.index, [index for index, _ in admitted]),
            (self.last, [key[-1] for key in keys]),
            (self.temperature, [float(request.sampling.temperature) for _, request in admitted]),
            (self.limit, [request.sampling.max_tokens for _, request in admitted]),
            (self.top_p, [request.sampling.top_p for _, request in admitted]),
            (self.top_k, [request.sampling.top_k for _, request in admitted]),
        ):
            column[at] = torch.tensor(values, dtype=column.dtype, device=column.device)
        self.restricted = self.restricted or any(request.sampling.restricted for _, request in admitted)
        self.prompts |= {index: key for key, (index, _) in zip(keys, admitted, strict=True)}
        uses.subtract(keys)
        self.encoded = {key: place for key, place in self.encoded.items() if uses[key]}

    def _encode(self, keys: list[tuple[int, ...]], forward: Callable[[], Prompts], kept: Mapping[tuple[int, ...], Kept]) -> None:
        prompts, entered_PTH = self._entering(forward)
        self.encoded |= {key: (prompts, row) for row, key in enumerate(keys)}
        if entered_PTH is None:
            return
        for key, entered_TH in zip(keys, entered_PTH, strict=True):
            new = len(key) - 1 - (len(kept[key].ids) if key in kept else 0)
            self.prompt_inputs[key] = self.input_memory.keep(entered_TH[len(entered_TH) - new :])

    def _entering(self, forward: Callable[[], Output]) -> tuple[Output, torch.Tensor | None]:
        """What a pass returns, and what entered the layer in it, where that is asked for."""
        if self.layer is None:
            return forward(), None
        entered: list[torch.Tensor] = []
        with recorded(self.layer, entered):
            return forward(), entered[0]

    def step(self) -> None:
        """Feed every row's last token and sample its next one."""
        live = slice(0, self.count)
        end_B, position_B = self.end[live], self.end[live] - self.start[live]
        columns = self.cache.advance(end_B)
        column_K = torch.arange(columns, device=end_B.device)
        visible_BK = (column_K >= self.start[live, None]) & (column_K <= end_B[:, None])
        key_position_BK = column_K - self.start[live, None]
        hidden_BRH, entered_BRH = self._entering(
            lambda: decoder_forward(
                self.model, self.last[live, None], position_B[:, None], visible_BK[:, None], key_position_BK, self.cache
            )
        )
        logits_BV = head_logits(self.model, hidden_BRH[:, 0])
        uniform_B = uniform(self.seed[live], self.length[live].numpy(force=True))
        to_some = (self.top_p[live], self.top_k[live]) if self.restricted else None
        token_B, logprob_B = sample(logits_BV, self.temperature[live], uniform_B, to_some)
        rows_B = torch.arange(self.count, device=end_B.device)
        self.tokens[rows_B, self.length[live]] = token_B
        self.logprobs[rows_B, self.length[live]] = logprob_B
        if entered_BRH is not None:
            self.inputs[rows_B, self.length[live]] = entered_BRH[:, 0]
        self.last[live] = token_B
        self.length[live] += 1
        self.end[live] += 1

    def _stopped(self, ends: Ends) -> torch.Tensor:
        """Which rows [B] have just sampled an end."""
        live = slice(0, self.count)
        stopped_B = torch.isin(self.last[live], torch.tensor(sorted(ends.ids), device=self.last.device))
        if ends.texts:
            tails = [ends.tail(self.tokens[row, :length].tolist()) for row, length in enumerate(self.length[live].tolist())]
            stopped_B |= torch.tensor([ends.completed(tail) for tail in tails], device=stopped_B.device)
        return stopped_B

    def pop_finished(self, ends: Ends, session_of: dict[int, str], sessions: dict[str, Kept]) -> list[Completion]:
        """Completions of the rows that ended in this step, what they computed kept for their sessions; the rows behind them move up."""
        live = slice(0, self.count)
        stopped_B = self._stopped(ends)
        done_B = stopped_B | (self.length[live] >= self.limit[live])
        done = done_B.nonzero().flatten()
        if not len(done):
            return []
        lengths, indices = self.length[done].tolist(), self.index[done].tolist()
        tokens, logprobs, stopped = self.tokens[done].tolist(), self.logprobs[done].tolist(), stopped_B[done].tolist()
        for row, index, length, sampled in zip(done.tolist(), indices, lengths, tokens, strict=True):
            if index in session_of:
                sessions[session_of[index]] = self.cache.keep(
                    row, int(self.start[row]), int(self.end[row]), [*self.prompts[index], *sampled[: length - 1]]
                )
        if not self.logprobs[done].isfinite().all():
            raise UserError(
                "the model's probabilities are not finite (NaN or infinity): its weights, or a patch, are too large for its format; "
                "train again with a lower trainer.lr, or name another patch"
            )
        inputs = [self._inputs_of(row, index, length) for row, index, length in zip(done.tolist(), indices, lengths, strict=True)]
        self.count -= len(done)
        gaps = done[done < self.count]
        movers = (~done_B[self.count :]).nonzero().flatten() + self.count
        for column in (*self.columns, *self.wide):
            column[gaps] = column[movers]
        self.seed[gaps.numpy(force=True)] = self.seed[movers.numpy(force=True)]
        self.cache.move(movers, gaps)
        return [
            Completion(
                index,
                tokens[row][:length],
                logprobs[row][:length],
                FinishReason.STOP if stopped[row] else FinishReason.LENGTH,
                inputs=inputs[row],
            )
            for row, (index, length) in enumerate(zip(indices, lengths, strict=True))
        ]

    def _inputs_of(self, row: int, index: int, length: int) -> LayerInputs | None:
        prompt_TH = self.prompt_inputs.get(self.prompts[index])
        if prompt_TH is None or (reply_RH := self.input_memory.keep(self.inputs[row, :length])) is None:
            return None
        return LayerInputs(prompt_TH, (reply_RH,))


def _chunks(prompts: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """The prompts in their order, as many at a time as make `ENCODED_TOKENS` when all are padded to the longest of them."""
    part: list[tuple[int, ...]] = []
    for prompt in prompts:
        if part and (len(part) + 1) * max(map(len, [*part, prompt])) > ENCODED_TOKENS:
            yield part
            part = []
        part = [*part, prompt]
    if part:
        yield part
