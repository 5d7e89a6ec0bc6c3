"""A vLLM server."""

from __future__ import annotations

import http
import http.client
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import save_file

from ..common.errors import UserError, first_problem
from .ends import Ends
from .engine import Completion, FinishReason, Request
from .vllm_worker import WORKER, raise_problems

SERVE = (
    "VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL --dtype DTYPE "
    f"--logprobs-mode processed_logprobs --worker-extension-cls {WORKER}"
)
REPLY_SECONDS = 3600.0  # a server that says nothing for so long has hung; a reply comes as a whole, after waiting its turn

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


class VllmServer:
    """A vLLM server (`SERVE`). Weights go through a file in the temporary directory (TMPDIR), which both must see."""

    def __init__(self, url: str, max_batch: int):
        self.url, self.max_batch = url.rstrip("/").removesuffix("/v1"), max_batch
        served = self._call("/v1/models", _Models).data[0]
        self.model, self.max_len = served.id, served.max_model_len
        self.description = self._describe()
        self.syncs = bool(self.description)
        if self.description.get("logprobs_mode", "processed_logprobs") != "processed_logprobs":
            raise UserError(f"{url}: reports logprobs of temperature 1 whatever it samples at; start it with: {SERVE}")

    def stream(self, requests: Sequence[Request], ends: Ends) -> Iterator[Completion]:
        pool = ThreadPoolExecutor(min(self.max_batch, len(requests)))
        try:
            futures = [pool.submit(self._complete, index, request, ends) for index, request in enumerate(requests)]
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # waits for those under way: a sync may follow

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        if not self.syncs:
            raise UserError(f"{self.url}: cannot take over weights, so it serves for evaluating its own; start it with: {SERVE}")
        with tempfile.TemporaryDirectory(prefix="onelayer-") as folder:
            file = Path(folder) / "weights.safetensors"
            save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, file)
            raise_problems(self._call("/collective_rpc", _Results, {"method": "onelayer_load", "args": [str(file)]}).results)
        if not self._call("/reset_prefix_cache", _Reset, {}).success:
            raise UserError(f"{self.url}: kept the keys and values of the old weights; is it answering others at the same time?")

    def _complete(self, index: int, request: Request, ends: Ends) -> Completion:
        body = {
            "model": self.model,
            "prompt": list(request.prompt_ids),
            "max_tokens": request.sampling.max_tokens,
            "temperature": request.sampling.temperature,
            "seed": request.seed,
            "logprobs": 0,
            "stop_token_ids": sorted(ends.ids),
            "stop": list(ends.texts),
            "ignore_eos": True,
            "return_token_ids": True,
            # A server takes what is not named here from the model's generation_config.json.
            **{
                "top_p": request.sampling.top_p,
                "top_k": request.sampling.top_k,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
            },
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
