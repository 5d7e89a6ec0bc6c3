"""The engine's contract on vLLM: the model's own distribution, the same tokens whatever else is decoded, nothing lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import families
import pytest
import torch
from vllm_engines import MakeEngine, at, here

from onelayer.agents.config import AgentConfig, ModelConfig
from onelayer.agents.ends import ends_of
from onelayer.agents.engine import Completion, Engine, FinishReason, Request, Sampling, TransformersEngine
from onelayer.agents.engines import make_engine
from onelayer.agents.policy import Base, load_base
from onelayer.agents.vllm_engine import VllmEngine
from onelayer.common.errors import UserError

QUESTIONS = ["12+30=?", "7*8=?", "99-1=?", "(3+4)*5=?"]


def requests(base: Base, temperatures: tuple[float, ...] = (1.0, 0.7), count: int = 24, max_tokens: int = 20) -> list[Request]:
    return [
        Request(
            base.tokenizer.encode(QUESTIONS[index % len(QUESTIONS)]),
            2**62 + index,
            Sampling(max_tokens, temperatures[index % len(temperatures)]),
        )
        for index in range(count)
    ]


def generate(engine: Engine, wanted: list[Request]) -> list[Completion]:
    found = sorted(engine.generate(wanted), key=lambda completion: completion.index)
    assert [completion.index for completion in found] == list(range(len(wanted)))
    return found


def test_logprobs_are_those_of_the_distribution_sampled_from(base: Base, make_engine: MakeEngine):
    engine = make_engine(base)
    wanted = requests(base, temperatures=(1.0, 0.7, 1.5, 0.0), count=32)
    finished = set()
    for completion, request in zip(generate(engine, wanted), wanted, strict=True):
        prompt = list(request.prompt_ids)
        with torch.no_grad():
            logits = base.model(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits / (request.sampling.temperature or 1.0)).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert torch.allclose(expected, torch.tensor(completion.logprobs), atol=1e-4)
        ended = completion.token_ids[-1] in base.end_ids
        assert (completion.finish is FinishReason.STOP) == ended
        assert ended or len(completion.token_ids) == 20
        assert not base.end_ids & set(completion.token_ids[:-1])
        finished.add(completion.finish)
    assert finished == {FinishReason.STOP, FinishReason.LENGTH}
    assert engine.difference is not None and engine.difference.mean < 1e-5


def test_tokens_depend_on_the_seed_and_not_on_the_batch(base: Base, make_engine: MakeEngine):
    engine, wanted = make_engine(base), requests(base)
    together = [completion.token_ids for completion in generate(engine, wanted)]
    alone = [tokens.token_ids for start in range(0, len(wanted), 5) for tokens in generate(engine, wanted[start : start + 5])]
    backwards = [completion.token_ids for completion in generate(engine, wanted[::-1])][::-1]
    assert together == alone == backwards
    assert len({(wanted[index].prompt_ids[0], tuple(tokens)) for index, tokens in enumerate(together)}) > len(QUESTIONS)


def test_greedy_is_what_the_transformers_engine_decodes(base: Base, make_engine: MakeEngine):
    wanted = requests(base, temperatures=(0.0,), max_tokens=40)
    expected = generate(TransformersEngine(base.model, base.end_ids), wanted)
    found = generate(make_engine(base), wanted)
    assert [(c.token_ids, c.finish) for c in found] == [(c.token_ids, c.finish) for c in expected]
    assert found[0].logprobs == pytest.approx(expected[0].logprobs, abs=1e-4)


def test_the_server_samples_what_the_process_samples(base: Base, server: str):
    wanted = requests(base)
    for inside, outside in zip(generate(here(base), wanted), generate(at(base, server), wanted), strict=True):
        assert (inside.token_ids, inside.finish) == (outside.token_ids, outside.finish)
        assert inside.logprobs == pytest.approx(outside.logprobs, abs=1e-4)


def test_completions_come_as_they_finish(base: Base):
    engine = here(base)
    prompt = base.tokenizer.encode(QUESTIONS[0])
    long, short = Request(prompt, 1, Sampling(30)), Request(prompt, 2, Sampling(1))
    replies = engine.generate([long, short])
    assert next(replies).index == 1
    assert engine.backend.llm.llm_engine.has_unfinished_requests()  # pyright: ignore[reportAttributeAccessIssue]
    assert next(replies).index == 0


def test_a_batch_left_early_leaves_nothing_behind(base: Base, make_engine: MakeEngine):
    engine, wanted = make_engine(base), requests(base)
    expected = generate(engine, wanted)
    replies = engine.generate(wanted)
    next(replies)
    replies.close()  # pyright: ignore[reportAttributeAccessIssue] (a generator)
    engine.load(dict(base.model.named_parameters()))
    assert [c.token_ids for c in generate(engine, wanted)] == [c.token_ids for c in expected]


def test_what_vllm_would_not_follow_exactly_is_refused(base: Base, make_engine: MakeEngine):
    engine, prompt = make_engine(base), base.tokenizer.encode(QUESTIONS[0])
    with pytest.raises(UserError, match=r"at no less than 0\.01"):
        list(engine.generate([Request(prompt, 1, Sampling(5, temperature=0.001))]))
    with pytest.raises(UserError, match=r"lower agent\.max_tokens"):
        list(engine.generate([Request(prompt, 1, Sampling(engine.backend.max_len - len(prompt) + 1))]))
    assert list(engine.generate([])) == []


def test_a_reply_cut_off_early_is_refused(base: Base, plain_server: str):
    with pytest.raises(UserError, match="after 25 tokens of 40: the server was started with max_new_tokens"):
        generate(at(base, plain_server), requests(base, max_tokens=40))


def test_no_server_no_engine(base: Base):
    with pytest.raises(UserError, match="no answer from a vLLM server"):
        at(base, "http://127.0.0.1:9")


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral, sliding window", "gemma"])
def test_other_families(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Untied heads, biases, windows; one layer synced, then all. vLLM's kernels for CPUs want heads of 32 at least."""
    for name, size in {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}.items():
        monkeypatch.setitem(families.SIZES, name, size)
    random = families.random_base(family)
    random.model.save_pretrained(tmp_path)
    random.tokenizer.save_pretrained(tmp_path)
    base = load_base(ModelConfig(path=str(tmp_path), device="cpu"))
    engine = here(base)
    names = dict(base.model.named_parameters())
    for changed in ([], [name for name in names if ".layers.10." in name], list(names)):
        with torch.no_grad():
            for name in changed:
                names[name].add_(torch.randn_like(names[name]), alpha=0.05)
        engine.load({name: names[name] for name in changed})
        generate(engine, requests(base))
        assert engine.difference is not None and engine.difference.mean < 1e-4


@pytest.mark.parametrize("place", ["in process", "server"])
def test_stops_and_restrictions_are_vllms_own(place: str, base: Base, request: pytest.FixtureRequest):
    """A text ends greedy replies where it ends those of the Transformers engine; logprobs are of the likeliest tokens alone."""
    greedy = requests(base, temperatures=(0.0,))
    said = [str(base.tokenizer.decode(one.token_ids)) for one in generate(TransformersEngine(base.model, base.end_ids), greedy)]
    stop = max(said, key=len)[3:6]
    config = AgentConfig(engine="vllm", max_batch=64, kv_cache_gib=0.25, stop=[stop, "<think>"])
    if place == "server":
        config = config.model_copy(update={"engine": request.getfixturevalue("server")})
    engine = make_engine(base, config)
    expected = generate(TransformersEngine(base.model, ends_of(base, config.stop)), greedy)
    found = generate(engine, greedy)
    assert [(one.token_ids, one.finish) for one in found] == [(one.token_ids, one.finish) for one in expected]
    assert any(stop in str(base.tokenizer.decode(one.token_ids)) for one in found)
    engine.load({})
    generate(engine, [replace(one, sampling=Sampling(20, 0.8, 0.7, 10)) for one in greedy])
    assert isinstance(engine, VllmEngine) and engine.difference is not None and engine.difference.mean < 1e-4
