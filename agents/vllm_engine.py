"""The engine on vLLM, in process or behind a server, and the proof that it runs the weights being trained.

vLLM holds a copy of the model, so every change of the trainer's model has to be sent (`VllmEngine.sync`): whole layers, and of
those only the changed ones. A copy can be stale without any error, so the first batch after each sync is compared with the
trainer's model (`check_logprobs`).
"""

from __future__ import annotations

import http
import http.client
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save_file
from transformers import PreTrainedModel

from ..common.errors import UserError, first_problem
from .decoder import decoder_layers
from .engine import Completion, FinishReason, Request
from .policy import Base

WORKER = "onelayer.agents.vllm_worker.WeightLoader"
SERVE = (
    "VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL --dtype DTYPE "
    f"--logprobs-mode processed_logprobs --worker-extension-cls {WORKER}"
)
CHECKED_REPLIES, CHECKED_TOKENS = 8, 256
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Mean absolute difference of logprobs, in nats, that rounding may cause (docs/vllm.md has what was measured)."""
REPLY_SECONDS = 3600.0  # a server that says nothing for so long has hung; a reply comes as a whole, after waiting its turn
LEAST_TEMPERATURE = 0.01
"""vLLM silently raises lower ones to this."""


class Backend(Protocol):
    """vLLM, wherever it runs."""

    max_len: int
    """Most tokens of prompt and reply together."""
    syncs: bool
    """Whether it can take over weights."""

    def stream(self, requests: Sequence[Request], end_ids: Sequence[int]) -> Iterator[Completion]: ...

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over weights by parameter name, and forget all keys and values computed with the old ones.

        Raises UserError, with nothing changed, for weights that vLLM can only take together with others.
        """
        ...


class VllmEngine:
    """vLLM's copy of the base's model, which `sync` keeps up with every change. Starts with the weights as they are now."""

    returns_tokens = True

    def __init__(self, base: Base, backend: Backend):
        self.base, self.backend = base, backend
        self.difference: Difference | None = None  # what the last check found
        self._unchecked = True
        if backend.syncs:  # it may hold what an earlier run left
            self.sync()

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Completions in the order in which they finish.

        Raises UserError for a request that vLLM would not follow exactly, and at the end of the first batch after a sync where its
        logprobs are not those of the base's model.
        """
        wanted, sample = list(requests), []
        for request in wanted:
            self._refuse(request)
        for completion in self.backend.stream(wanted, sorted(self.base.end_ids)) if wanted else ():
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

    def sync(self, changed: Iterable[str] | None = None) -> None:
        """Send what the named parameters of the base's model belong to (null: everything), as it is now: layers as a whole.

        Raises UserError where the backend can not take over weights.
        """
        self.backend.load(whole_modules(self.base.model, changed))
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


def in_process(base: Base, max_batch: int = 256, kv_cache_gib: float = 1.0) -> VllmEngine:
    """The engine on vLLM in this process, on the device vLLM chooses; one model is loaded once and then used again.

    max_batch: most sequences decoded together. kv_cache_gib: memory for keys and values. Raises UserError where there is no vLLM,
    or where it can not run the model.
    """
    return VllmEngine(base, _start(base.model.name_or_path, str(base.model.dtype).removeprefix("torch."), max_batch, kv_cache_gib))


def on_server(base: Base, url: str, max_batch: int = 256) -> VllmEngine:
    """The engine on a vLLM server, at most `max_batch` requests at a time. Raises UserError where there is none, or one unfit."""
    return VllmEngine(base, Server(url, max_batch))


@cache
def _start(path: str, dtype: str, max_batch: int, kv_cache_gib: float) -> InProcess:
    return InProcess(path, dtype, max_batch, kv_cache_gib)


class InProcess:
    """vLLM in this process. Its requests advance only while `stream` is asked for the next completion."""

    syncs = True

    def __init__(self, path: str, dtype: str, max_batch: int, kv_cache_gib: float):
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # it shares this process's threads with the trainer
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            self.vllm: Any = import_module("vllm")
        except ImportError as error:
            raise UserError(f"agent.engine: vllm can not be imported ({error}); docs/vllm.md says how to install it") from error
        try:
            self.llm = self.vllm.LLM(
                path,
                dtype=dtype,
                max_model_len=-1,  # as much of the model's own as the memory for keys and values holds
                max_num_seqs=max_batch,
                kv_cache_memory_bytes=int(kv_cache_gib * 2**30),
                enforce_eager=not torch.cuda.is_available(),
                distributed_executor_backend="uni",
                skip_tokenizer_init=True,
                trust_remote_code=False,
                logprobs_mode="processed_logprobs",
                worker_extension_cls=WORKER,
                use_tqdm_on_load=False,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(f"agent.engine: vLLM can not run {path!r} in {dtype}: {' '.join(str(error).split())[:300]}") from error
        self.max_len = int(self.llm.llm_engine.vllm_config.model_config.max_model_len)
        self._ids, self._busy = count(), False

    def stream(self, requests: Sequence[Request], end_ids: Sequence[int]) -> Iterator[Completion]:
        if self._busy:
            raise RuntimeError("vLLM is asked for new completions before all of the last ones were taken")
        engine = self.llm.llm_engine
        index_of: dict[str, int] = {}
        self._busy = True
        try:
            for index, request in enumerate(requests):
                key = str(next(self._ids))
                index_of[key] = index
                engine.add_request(key, _tokens(request), self._sampling(request, end_ids))
            while index_of:
                for output in engine.step():
                    if output.finished:
                        reply = output.outputs[0]
                        tokens = list(reply.token_ids)
                        logprobs = [step[token].logprob for token, step in zip(tokens, reply.logprobs, strict=True)]
                        yield Completion(index_of.pop(output.request_id), tokens, logprobs, _finish(reply.finish_reason))
        finally:
            if index_of:  # whoever asked has had enough
                engine.abort_request(list(index_of))
            self._busy = False

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        if self._busy:
            raise RuntimeError("weights can not change while completions are under way")
        _raise_problems(self.llm.collective_rpc("onelayer_load", args=(weights,)))
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept the keys and values of the old weights")

    def _sampling(self, request: Request, end_ids: Sequence[int]) -> Any:
        return self.vllm.SamplingParams(
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            seed=request.seed,
            logprobs=0,  # of the sampled token alone
            stop_token_ids=list(end_ids),
            ignore_eos=True,  # end_ids say it all
            detokenize=False,
            output_kind=import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
        )


def _tokens(request: Request) -> dict[str, Any]:
    return {"type": "token", "prompt_token_ids": list(request.prompt_ids)}


# What a server answers, as far as it is of use here; what it says beside that is left aside.


class _Served(BaseModel):
    id: str
    max_model_len: int = Field(ge=1)


class _Models(BaseModel):
    data: list[_Served] = Field(min_length=1)


class _Logprobs(BaseModel):
    token_logprobs: list[float]


class _Choice(BaseModel):
    token_ids: list[int]
    logprobs: _Logprobs
    finish_reason: Literal["stop", "length"]


class _Completions(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)


class _Results(BaseModel):
    results: list[dict[str, str]] = Field(min_length=1)


class _Reset(BaseModel):
    success: bool


_Answer = TypeVar("_Answer", bound=BaseModel)


class Server:
    """A vLLM server (`SERVE`). Weights go through a file in the temporary directory (TMPDIR), which both must see."""

    def __init__(self, url: str, max_batch: int):
        self.url, self.max_batch = url.rstrip("/").removesuffix("/v1"), max_batch
        served = self._call("/v1/models", _Models).data[0]
        self.model, self.max_len = served.id, served.max_model_len
        self.description = self._describe()
        self.syncs = bool(self.description)
        if self.description.get("logprobs_mode", "processed_logprobs") != "processed_logprobs":
            raise UserError(f"{url}: reports logprobs of temperature 1 whatever it samples at; start it with: {SERVE}")

    def stream(self, requests: Sequence[Request], end_ids: Sequence[int]) -> Iterator[Completion]:
        pool = ThreadPoolExecutor(min(self.max_batch, len(requests)))
        try:
            futures = [pool.submit(self._complete, index, request, end_ids) for index, request in enumerate(requests)]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # waits for those under way: a sync may follow

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        if not self.syncs:
            raise UserError(f"{self.url}: can not take over weights, so it serves for evaluating its own; start it with: {SERVE}")
        with tempfile.TemporaryDirectory(prefix="onelayer-") as folder:
            file = Path(folder) / "weights.safetensors"
            save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, file)
            _raise_problems(self._call("/collective_rpc", _Results, {"method": "onelayer_load", "args": [str(file)]}).results)
        if not self._call("/reset_prefix_cache", _Reset, {}).success:
            raise UserError(f"{self.url}: kept the keys and values of the old weights; is it answering others at the same time?")

    def _complete(self, index: int, request: Request, end_ids: Sequence[int]) -> Completion:
        body = {
            "model": self.model,
            "prompt": list(request.prompt_ids),
            "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature,
            "seed": request.seed,
            "logprobs": 0,
            "stop_token_ids": list(end_ids),
            "ignore_eos": True,
            "return_token_ids": True,
            # A server takes what is not named here from the model's generation_config.json.
            **{"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
        }
        (choice,) = self._call("/v1/completions", _Completions, body).choices
        tokens, logprobs = choice.token_ids, choice.logprobs.token_logprobs
        if len(tokens) != len(logprobs) or not all(map(math.isfinite, logprobs)):
            raise UserError(f"{self.url}/v1/completions: {len(tokens)} tokens came without as many finite logprobs; is it vLLM?")
        return Completion(index, tokens, logprobs, FinishReason(choice.finish_reason))

    def _describe(self) -> dict[str, str]:
        try:
            return self._call("/collective_rpc", _Results, {"method": "onelayer_describe"}).results[0]
        except UserError:
            return {}

    def _call(self, path: str, answer: type[_Answer], body: dict[str, Any] | None = None) -> _Answer:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(HttpRequest(self.url + path, data, headers), timeout=REPLY_SECONDS) as reply:
                return answer.model_validate_json(reply.read())
        except HTTPError as error:
            said = f"{error.code} {error.reason}: {error.read().decode(errors='replace')[:300]}"
            said = "".join(letter if letter.isprintable() else " " for letter in said)  # it may be anything's, and goes to a terminal
            remedy = f"; start a vLLM server with: {SERVE}" if error.code == http.HTTPStatus.NOT_FOUND else ""
            raise UserError(f"{self.url}{path}: {said}{remedy}") from error
        except ValidationError as error:
            raise UserError(f"{self.url}{path}: vLLM answers otherwise ({first_problem(error)}); start one with: {SERVE}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise UserError(f"{self.url}: no answer from a vLLM server there ({reason}); start one with: {SERVE}") from error


def _finish(reason: str) -> FinishReason:
    if reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a reply with {reason!r}")
    return FinishReason(reason)


def _raise_problems(results: Iterable[Mapping[str, str]]) -> None:
    for result in results:
        if problem := result.get("problem"):
            raise UserError(f"vLLM can not take over these weights: {problem}")


def whole_modules(model: PreTrainedModel, names: Iterable[str] | None = None) -> dict[str, torch.Tensor]:
    """Weights of all decoder layers and other modules that hold a named parameter (null: all of the model), by parameter name.

    vLLM fuses what lies beside each other in a layer, so a layer goes as a whole. A tied head goes with its embedding.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    if names is None:
        return weights
    path_of = {id(module): path for path, module in model.named_modules()}
    layers = tuple(f"{path_of[id(layer)]}." for layer in decoder_layers(model))
    owners = {next((layer for layer in layers if name.startswith(layer)), f"{name.rpartition('.')[0]}.") for name in names}
    return {name: weight for name, weight in weights.items() if name.startswith(tuple(owners))}


@dataclass(frozen=True)
class Difference:
    """Absolute differences of logprobs, in nats."""

    mean: float
    largest: float
    tokens: int
    replies: int


@torch.no_grad()
def check_logprobs(model: PreTrainedModel, completions: Sequence[tuple[Request, Completion]], tolerance: float | None = None) -> Difference:
    """Compare an engine's logprobs with those of the trainer's model, over the first 256 tokens of each reply.

    tolerance: of the mean (null: that of the model's numeric format). Raises UserError, with the figures, where it is exceeded.
    """
    differences = []
    for request, completion in completions:
        prompt, reply = list(request.prompt_ids), completion.token_ids[:CHECKED_TOKENS]
        ids_1T = torch.tensor([prompt + reply], device=model.device)
        logits_RV = model(input_ids=ids_1T, use_cache=False, logits_to_keep=len(reply) + 1).logits[0, :-1].float()
        logprob_RV = (logits_RV / (request.sampling.temperature or 1.0)).log_softmax(-1)
        expected_R = logprob_RV.gather(1, ids_1T[0, len(prompt) :, None])[:, 0].cpu()
        differences.append((expected_R - torch.tensor(completion.logprobs[:CHECKED_TOKENS])).abs())
    difference_T = torch.cat(differences)
    found = Difference(difference_T.mean().item(), difference_T.max().item(), len(difference_T), len(completions))
    if tolerance is None:
        tolerance = TOLERANCE[model.dtype]
    if not found.mean <= tolerance:  # not a number, too
        raise UserError(
            f"the engine's logprobs are not those of the model in training: they differ by {found.mean:.2g} nats on average (tolerance "
            f"{tolerance:g}, largest {found.largest:.2g}, {found.tokens} tokens of {found.replies} replies); it holds other weights, or "
            "computes the model differently; docs/vllm.md says what can be the matter"
        )
    return found
