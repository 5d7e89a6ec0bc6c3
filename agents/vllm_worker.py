"""What runs inside vLLM's workers: changed weights are taken over there.

vLLM gets this class by name (`worker_extension_cls`), in process as well as on a server, and makes it a base of its worker.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file

from ..common.errors import UserError

WORKER = "onelayer.agents.vllm_worker.WeightLoader"


class WeightLoader:
    """Methods that `collective_rpc` calls on every worker; they return a dictionary, which passes a server unchanged."""

    model_runner: Any
    vllm_config: Any
    reload_weights: Any

    def onelayer_describe(self) -> dict[str, str]:
        """Numeric format of the model, and which logprobs it reports."""
        config = self.vllm_config.model_config
        return {"dtype": str(config.dtype).removeprefix("torch."), "logprobs_mode": config.logprobs_mode}

    def onelayer_load(self, weights: Mapping[str, torch.Tensor] | str) -> dict[str, str]:
        """Take over weights, by parameter name of the checkpoint or as the path of a safetensors file.

        Where {"problem": reason} comes back, nothing was changed.
        """
        if isinstance(weights, str):
            weights = load_file(weights)
        model = self.model_runner.get_model()
        if problem := incomplete(model, weights):
            return {"problem": problem}
        # It warns of every module that it gets no weights for, and here these are most of them.
        log = logging.getLogger("vllm.model_executor.model_loader.reload")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            self.reload_weights(weights_iterator=iter(weights.items()))
        finally:
            log.setLevel(level)
        refresh_heads(model, weights)
        return {}


def raise_problems(results: Iterable[Mapping[str, str]]) -> None:
    """Raises UserError where a worker could not take over the weights."""
    for result in results:
        if problem := result.get("problem"):
            raise UserError(f"vLLM cannot take over these weights: {problem}")


def incomplete(model: torch.nn.Module, names: Iterable[str]) -> str:
    """Why vLLM cannot take over weights of these names ("" if it can).

    vLLM refills a module as a whole, and holds some of them fused (q, k and v; gate and up): what it is not given of a module
    is undefined after it, without any error.
    """
    names = set(names)
    fused: dict[str, list[str]] = getattr(model, "packed_modules_mapping", {})
    whole_of = {part: whole for whole, parts in fused.items() for part in parts}
    for name in sorted(names):
        path = name.split(".")[:-1]
        whole = whole_of.get(path[-1], path[-1]) if path else ""
        try:
            module = model.get_submodule(".".join([*path[:-1], whole]))
        except AttributeError:
            return f"{name} has no counterpart in vLLM's {type(model).__name__}"
        for part in fused.get(whole, [whole]):
            for parameter, _ in module.named_parameters(recurse=False):
                if (needed := ".".join([*path[:-1], part, parameter])) not in names:
                    return f"{name} was given without {needed}, which vLLM holds in one module with it"
    return ""


def refresh_heads(model: torch.nn.Module, names: Collection[str]) -> None:
    """On a CPU vLLM multiplies by a packed copy of the head, which stays as it was when the embedding that it is tied to is reloaded."""
    from vllm.model_executor.layers.vocab_parallel_embedding import (  # pyright: ignore[reportMissingImports] (installed only beside vLLM)
        UnquantizedEmbeddingMethod,
        VocabParallelEmbedding,
    )

    tables: dict[str, Any] = {path: module for path, module in model.named_modules() if isinstance(module, VocabParallelEmbedding)}
    reloaded = {path: table for path, table in tables.items() if f"{path}.weight" in names}
    for path, table in tables.items():
        tied = any(table.weight is other.weight for other in reloaded.values())
        if tied and path not in reloaded and isinstance(table.quant_method, UnquantizedEmbeddingMethod):
            table.quant_method.process_weights_after_loading(table)
