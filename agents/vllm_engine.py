"""The engine on vLLM, in process (vllm_process.py) or on a server (vllm_server.py), and the proof that it runs the weights in training.

vLLM holds a copy of the model, so every change of the trainer's model has to be sent (`VllmEngine.load`): whole layers, and of
those only the changed ones. A copy can be stale without any error, so the first batch after each change is compared with the
trainer's model (`check_logprobs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import PreTrainedModel

from ..common.documentation import page
from ..common.errors import UserError
from .config import AgentConfig
from .decoder import decoder_layers
from .drawing import restrict
from .ends import Ends, ends_of
from .engine import Completion, FinishReason, Request
from .length import context_of
from .policy import Base
from .vllm_process import started
from .vllm_server import VllmServer

CHECKED_REPLIES, CHECKED_TOKENS = 8, 256
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Mean absolute difference of logprobs, in nats, that rounding may cause (docs/vllm.md has what was measured)."""
LEAST_TEMPERATURE = 0.01
"""vLLM silently raises lower ones to this."""


class Backend(Protocol):
    """vLLM, wherever it runs."""

    max_len: int
    """Most tokens of prompt and reply together."""
    syncs: bool
    """Whether it can take over weights."""

    def stream(self, requests: Sequence[Request], ends: Ends) -> Iterator[Completion]: ...

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights by parameter name, and forget all keys and values computed with the old ones.

        Raises UserError, with nothing changed, for weights that vLLM can only take together with others.
        """
        ...


class VllmEngine:
    """vLLM's copy of the base's model, which `load` keeps up with every change. Starts with the weights as they are now."""

    returns_tokens = True

    def __init__(self, base: Base, backend: Backend, ends: Ends):
        self.base, self.backend, self.ends = base, backend, ends
        self.context = min(context_of(base.model), backend.max_len)
        self.difference: LogprobGap | None = None  # what the last check found
        self._unchecked = True
        self._own = dict(base.model.named_parameters())  # by the names that vLLM knows: adapters put in later change names
        if backend.syncs:  # it may hold what an earlier run left
            self.load(self._own)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which they finish.

        Raises UserError for a request that vLLM would not follow exactly, and at the end of the first batch after a sync where its
        logprobs are not those of the base's model.
        """
        wanted, sample = list(requests), []
        for request in wanted:
            self._refuse(request)
        for completion in self.backend.stream(wanted, self.ends) if wanted else ():
            if self._unchecked:
                sample.append(completion)
            if completion.finish is FinishReason.LENGTH and len(completion.token_ids) < wanted[completion.index].sampling.max_tokens:
                raise UserError(
                    f"vLLM cut a reply off after {len(completion.token_ids)} tokens of {wanted[completion.index].sampling.max_tokens}: "
                    "the server was started with max_new_tokens (--generation-config, --override-generation-config); start it without"
                )
            yield completion
        if sample:
            sample.sort(key=lambda completion: completion.index)
            spread = sample[:: -(-len(sample) // CHECKED_REPLIES)]
            self.difference = check_logprobs(self.base.model, [(wanted[completion.index], completion) for completion in spread])
            self._unchecked = False

    def end_session(self, session: str) -> None:
        """Nothing to do: vLLM keeps the keys and values of all that it has seen lately, of any session, until it needs the room."""

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Send the weights together with those of the base's model that belong to them: layers as a whole.

        Raises UserError where the backend cannot take over weights.
        """
        self.backend.load(whole_modules(self.base.model, self._own, weights))
        self._unchecked = True

    def _refuse(self, request: Request) -> None:
        sampling = request.sampling
        if 0 < sampling.temperature < LEAST_TEMPERATURE:
            raise UserError(f"temperature {sampling.temperature:g}: vLLM samples at no less than {LEAST_TEMPERATURE:g}; 0 is greedy")
        if (length := len(request.prompt_ids) + sampling.max_tokens) > self.backend.max_len:
            raise UserError(
                f"a prompt of {len(request.prompt_ids)} tokens and a reply of up to {sampling.max_tokens} make {length}, and vLLM has room "
                f"for {self.backend.max_len}; lower agent.max_tokens, or give vLLM more memory (agent.kv_cache_gib)"
            )


def in_process(base: Base, config: AgentConfig) -> VllmEngine:
    """The engine on vLLM in this process, on the device vLLM chooses; one model is loaded once and then used again.

    Raises UserError where there is no vLLM, or where it cannot run the model.
    """
    dtype = str(base.model.dtype).removeprefix("torch.")
    ends = ends_of(base, config.stop)
    return VllmEngine(base, started(base.model.name_or_path, dtype, config.max_batch, config.kv_cache_gib, bool(ends.texts)), ends)


def on_server(base: Base, config: AgentConfig) -> VllmEngine:
    """The engine on the vLLM server at `agent.engine`. Raises UserError where there is none, or one unfit."""
    return VllmEngine(base, VllmServer(config.engine, config.max_batch), ends_of(base, config.stop))


def whole_modules(model: PreTrainedModel, own: Mapping[str, torch.Tensor], changed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Changed weights with all others of the decoder layers and other modules that hold them, by parameter name.

    own: the parameters of the model by the names of its checkpoint.

    vLLM fuses what lies beside each other in a layer, so a layer goes as a whole. A tied head goes with its embedding.
    """
    path_of = {id(module): path for path, module in model.named_modules()}
    layers = tuple(f"{path_of[id(layer)]}." for layer in decoder_layers(model))
    owners = {next((layer for layer in layers if name.startswith(layer)), f"{name.rpartition('.')[0]}.") for name in changed}
    weights = {name: weight for name, weight in own.items() if name.startswith(tuple(owners))}
    return {name: weight.detach() for name, weight in (weights | dict(changed)).items()}


@dataclass(frozen=True)
class LogprobGap:
    """Absolute differences of logprobs, in nats."""

    mean: float
    largest: float
    tokens: int
    replies: int


@torch.no_grad()
def check_logprobs(model: PreTrainedModel, completions: Sequence[tuple[Request, Completion]], tolerance: float | None = None) -> LogprobGap:
    """Compare an engine's logprobs with those of the trainer's model, over the first 256 tokens of each reply.

    tolerance: of the mean (null: that of the model's numeric format). Raises UserError, with the figures, where it is exceeded.
    """
    differences = []
    for request, completion in completions:
        prompt, reply = list(request.prompt_ids), completion.token_ids[:CHECKED_TOKENS]
        ids_1T = torch.tensor([prompt + reply], device=model.device)
        logits_RV = model(input_ids=ids_1T, use_cache=False, logits_to_keep=len(reply) + 1).logits[0, :-1].float()
        logprob_RV = (logits_RV / (request.sampling.temperature or 1.0)).log_softmax(-1)
        if request.sampling.restricted:
            to_some = torch.tensor([request.sampling.top_p]), torch.tensor([request.sampling.top_k])
            logprob_RV = restrict(logprob_RV, *(one.to(logprob_RV.device).expand(len(logprob_RV)) for one in to_some))
        expected_R = logprob_RV.gather(1, ids_1T[0, len(prompt) :, None])[:, 0].cpu()
        difference_R = (expected_R - torch.tensor(completion.logprobs[:CHECKED_TOKENS])).abs()
        differences.append(difference_R[expected_R.isfinite()])  # by rounding another token may be the last of the likeliest
    difference_T = torch.cat(differences)
    found = LogprobGap(difference_T.mean().item(), difference_T.max().item(), len(difference_T), len(completions))
    if tolerance is None:
        tolerance = TOLERANCE[model.dtype]
    if not found.mean <= tolerance:  # not a number, too
        raise UserError(
            f"the engine's logprobs are not those of the model in training: they differ by {found.mean:.2g} nats on average (tolerance "
            f"{tolerance:g}, largest {found.largest:.2g}, {found.tokens} tokens of {found.replies} replies); it holds other weights, or "
            f"computes the model differently; {page('vllm')} lists the causes"
        )
    return found
