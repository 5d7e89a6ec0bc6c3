"""Weights that are loaded, and the ways in which vLLM would silently go on with other weights: each is refused or caught by the check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from vllm_engines import MakeEngine, at, here

from onelayer.agents import vllm_worker
from onelayer.agents.engine import Completion, Request, Sampling, TransformersEngine
from onelayer.agents.policy import Base
from onelayer.agents.trained_sets import select
from onelayer.agents.vllm_engine import VllmEngine, check_logprobs, whole_modules
from onelayer.agents.vllm_process import InProcess
from onelayer.agents.vllm_server import VllmServer
from onelayer.common.errors import UserError


def long_requests(base: Base) -> list[Request]:
    """Prompts of several blocks, which vLLM keeps for the next time."""
    prompts = [base.tokenizer.encode(question * 60) for question in ("12+30=?", "7*8=?")]
    return [Request(prompts[index % 2], index, Sampling(20)) for index in range(16)]


def change(base: Base, spec: str) -> dict[str, torch.Tensor]:
    """Shift the named part of the base's model; returns what has changed."""
    parameters = select(base.model, spec).parameters
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn_like(parameter), alpha=0.03)
    return dict(parameters)


def answer(engine: VllmEngine, base: Base) -> list[Completion]:
    return list(engine.generate(long_requests(base)))


@pytest.mark.parametrize("spec", ["layer:3", "layers:0,5", "layer:2.attn", "layer:2.mlp", "mid:2", "embed", "head", "full"])
def test_after_a_sync_vllm_runs_the_new_weights(spec: str, base: Base, make_engine: MakeEngine):
    engine = make_engine(base)
    before = answer(engine, base)
    engine.load(change(base, spec))
    answer(engine, base)
    assert engine.difference is not None and engine.difference.mean < 1e-4
    with pytest.raises(UserError, match="not those of the model in training"):
        check_logprobs(base.model, [(long_requests(base)[c.index], c) for c in before])


def test_adapters_are_sent_as_whole_layers_of_merged_weights(base: Base, make_engine: MakeEngine):
    engine = make_engine(base)
    trained = select(base.model, "lora:4@layers:1,3")
    with trained.attached(seed=0):
        for name, factor in trained.parameters.items():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(factor, std=0.03)
        engine.load(trained.weights())
        adapted = answer(engine, base)
        assert engine.difference is not None and engine.difference.mean < 1e-4
    with pytest.raises(UserError, match="not those of the model in training"):
        check_logprobs(base.model, [(long_requests(base)[c.index], c) for c in adapted])


def test_a_new_engine_starts_with_the_weights_as_they_are_now(base: Base, make_engine: MakeEngine):
    make_engine(base).load(change(base, "layer:3"))  # an earlier run's, in the same vLLM
    change(base, "layer:4")
    engine = make_engine(base)
    answer(engine, base)
    assert engine.difference is not None and engine.difference.mean < 1e-4


def test_only_whole_layers_that_have_changed_are_sent(base: Base):
    there = dict(base.model.named_parameters())

    def sent(*names: str) -> set[str]:
        return set(whole_modules(base.model, there, {name: there[name] for name in names}))

    layer = {name for name in there if name.startswith("model.layers.1.")}
    assert sent("model.layers.1.self_attn.q_proj.weight") == layer
    assert sent("model.layers.1.mlp.up_proj.weight", "model.norm.weight") == layer | {"model.norm.weight"}
    assert sent(*there) == there.keys()


def test_the_weights_that_are_given_are_sent(base: Base):
    name = "model.layers.1.mlp.up_proj.weight"
    there = dict(base.model.named_parameters())
    given = torch.zeros_like(there[name])
    assert whole_modules(base.model, there, {name: given})[name].data_ptr() == given.data_ptr()


def test_kept_keys_and_values_of_the_old_weights_are_caught(base: Base, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch):
    engine = make_engine(base)
    answer(engine, base)
    with monkeypatch.context() as patch:
        if isinstance(backend := engine.backend, VllmServer):
            call = backend._call
            keep = lambda path, kind, body=None: kind(success=True) if path == "/reset_prefix_cache" else call(path, kind, body)  # noqa: E731
            patch.setattr(backend, "_call", keep)
        elif isinstance(backend, InProcess):
            patch.setattr(backend.llm, "reset_prefix_cache", lambda: True)
        engine.load(change(base, "layer:3"))
        with pytest.raises(UserError, match="not those of the model in training"):
            answer(engine, base)
    engine.load({})
    answer(engine, base)


def test_a_stale_tied_head_is_caught(base: Base, monkeypatch: pytest.MonkeyPatch):
    engine = here(base)
    with monkeypatch.context() as patch:
        patch.setattr(vllm_worker, "refresh_heads", lambda model, names: None)
        engine.load(change(base, "embed"))
        with pytest.raises(UserError, match="not those of the model in training"):
            answer(engine, base)
    engine.load(dict(base.model.named_parameters()))
    answer(engine, base)


@pytest.mark.parametrize("part", ["q_proj", "up_proj"])
def test_part_of_a_fused_weight_is_refused_before_it_corrupts(part: str, base: Base, make_engine: MakeEngine):
    engine = make_engine(base)
    weights = {
        name: weight
        for name, weight in base.model.named_parameters()
        if f"layers.3.{part}" in name.replace("self_attn.", "").replace("mlp.", "")
    }
    assert len(weights) == 1
    with pytest.raises(UserError, match="holds in one module"):
        engine.backend.load(weights)
    answer(engine, base)  # unharmed


def test_part_of_a_fused_weight_would_corrupt_and_be_caught(base: Base, monkeypatch: pytest.MonkeyPatch):
    engine = here(base)
    with monkeypatch.context() as patch:
        patch.setattr(vllm_worker, "incomplete", lambda model, names: "")
        name = "model.layers.3.self_attn.q_proj.weight"
        engine.backend.load({name: base.model.get_parameter(name).detach()})
        with pytest.raises(UserError, match="not those of the model in training"):
            answer(engine, base)
    clear_keys_and_values(engine)
    engine.load(dict(base.model.named_parameters()))
    answer(engine, base)


def clear_keys_and_values(engine: VllmEngine) -> None:
    """Undefined weights may give NaN, and vLLM's attention on a CPU multiplies what an earlier reply left in the rest of a block by 0."""

    def clear(worker: Any) -> None:
        for kept in worker.model_runner.kv_caches:
            kept.zero_()

    assert isinstance(engine.backend, InProcess)
    engine.backend.llm.collective_rpc(clear)


def test_unknown_weights_are_refused(base: Base, make_engine: MakeEngine):
    with pytest.raises(UserError, match="no counterpart"):
        make_engine(base).backend.load({"model.layers.77.mlp.up_proj.weight": torch.zeros(2, 2)})


def test_a_sync_that_changes_nothing_is_caught(base: Base, monkeypatch: pytest.MonkeyPatch):
    engine = here(base)
    monkeypatch.setattr(engine.backend, "load", lambda weights: None)
    engine.load(change(base, "layer:5"))
    with pytest.raises(UserError, match="not those of the model in training"):
        answer(engine, base)


def test_weights_do_not_change_under_a_batch(base: Base):
    engine = here(base)
    replies = engine.generate(long_requests(base))
    next(replies)
    with pytest.raises(RuntimeError, match="under way"):
        engine.load(dict(base.model.named_parameters()))
    list(replies)


def test_a_server_that_takes_no_weights_serves_its_own_only(base: Base, plain_server: str):
    engine = at(base, plain_server)
    answer(engine, base)
    assert engine.difference is not None and engine.difference.mean < 1e-4
    with pytest.raises(UserError, match="cannot take over weights"):
        engine.load({"model.norm.weight": base.model.get_parameter("model.norm.weight")})
    # It reports logprobs of temperature 1 whatever it samples at.
    cooler = [replace(request, sampling=Sampling(20, temperature=0.6)) for request in long_requests(base)]
    with pytest.raises(UserError, match="not those of the model in training"):
        list(at(base, plain_server).generate(cooler))
    change(base, "layer:3")
    with pytest.raises(UserError, match="not those of the model in training"):
        answer(at(base, plain_server), base)


def test_the_check_accepts_rounding_and_nothing_else(base: Base):
    wanted = long_requests(base)
    pairs = [(wanted[c.index], c) for c in TransformersEngine(base.model, base.end_ids).generate(wanted)]

    def off(by: float) -> Iterable[tuple[Request, Completion]]:
        return [(request, replace(c, logprobs=[logprob + by for logprob in c.logprobs])) for request, c in pairs]

    assert check_logprobs(base.model, pairs).mean < 1e-5
    assert check_logprobs(base.model, list(off(5e-4))).mean == pytest.approx(5e-4, rel=0.1)
    for by in (2e-3, -2e-3, float("nan")):
        with pytest.raises(UserError, match=r"tolerance 0\.001"):
            check_logprobs(base.model, list(off(by)))
