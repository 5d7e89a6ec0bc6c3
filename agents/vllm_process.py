"""vLLM in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from itertools import count
from typing import Any

import torch

from ..common.documentation import page
from ..common.errors import UserError
from .ends import Ends
from .engine import Completion, FinishReason, Request
from .vllm_worker import WORKER, raise_problems


@cache
def started(path: str, dtype: str, max_batch: int, kv_cache_gib: float, reads: bool) -> InProcess:
    """vLLM on a model, begun once for each model and these settings."""
    return InProcess(path, dtype, max_batch, kv_cache_gib, reads)


class InProcess:
    """vLLM in this process. Its requests advance only while `stream` is asked for the next completion."""

    syncs = True

    def __init__(self, path: str, dtype: str, max_batch: int, kv_cache_gib: float, reads: bool = False):
        """reads: with a tokenizer, which looks for texts that end replies."""
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # it shares this process's threads with the trainer
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            self.vllm: Any = import_module("vllm")
        except ImportError as error:
            raise UserError(f"agent.engine: vllm cannot be imported ({error}); {page('vllm')} says how to install it") from error
        try:
            self.llm = self.vllm.LLM(
                path,
                dtype=dtype,
                max_model_len=-1,  # as much of the model's own as the memory for keys and values holds
                max_num_seqs=max_batch,
                kv_cache_memory_bytes=int(kv_cache_gib * 2**30),
                enforce_eager=not torch.cuda.is_available(),
                distributed_executor_backend="uni",
                skip_tokenizer_init=not reads,
                trust_remote_code=False,
                logprobs_mode="processed_logprobs",
                worker_extension_cls=WORKER,
                use_tqdm_on_load=False,
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(f"agent.engine: vLLM cannot run {path!r} in {dtype}: {' '.join(str(error).split())[:300]}") from error
        self.max_len = int(self.llm.llm_engine.vllm_config.model_config.max_model_len)
        self._ids, self._busy = count(), False

    def stream(self, requests: Sequence[Request], ends: Ends) -> Iterator[Completion]:
        if self._busy:
            raise RuntimeError("vLLM is asked for new completions before all of the last ones were taken")
        engine = self.llm.llm_engine
        index_of: dict[str, int] = {}
        self._busy = True
        try:
            for index, request in enumerate(requests):
                key = str(next(self._ids))
                index_of[key] = index
                engine.add_request(key, {"type": "token", "prompt_token_ids": list(request.prompt_ids)}, self._sampling(request, ends))
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
            raise RuntimeError("weights cannot change while completions are under way")
        raise_problems(self.llm.collective_rpc("onelayer_load", args=(weights,)))
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept the keys and values of the old weights")

    def _sampling(self, request: Request, ends: Ends) -> Any:
        return self.vllm.SamplingParams(
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            seed=request.seed,
            logprobs=0,  # of the sampled token alone
            top_p=request.sampling.top_p,
            top_k=request.sampling.top_k,
            stop_token_ids=sorted(ends.ids),
            ignore_eos=True,  # the ends say it all
            stop=list(ends.texts),
            detokenize=bool(ends.texts),
            output_kind=import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
        )


def _finish(reason: str) -> FinishReason:
    if reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a reply with {reason!r}")
    return FinishReason(reason)
