"""What an engine promises: the model's own distribution, the same tokens whatever else is decoded, nothing lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES, random_base
from hypothesis import given
from hypothesis import strategies as st

from onelayer.agents.drawing import sample, uniform
from onelayer.agents.engine import Completion, FinishReason, Request, Sampling, TransformersEngine
from onelayer.common.errors import UserError

PROMPTS = [(1, 7, 9, 30, 44, 5, 6, 8, 12, 13, 14, 15, 16), (1, 200), (3,), (1, 7, 9, 31)]


def requests(sampling: Sampling, count: int = 24) -> list[Request]:
    return [Request(PROMPTS[index % len(PROMPTS)], 1000 + index, sampling) for index in range(count)]


def generate(engine: TransformersEngine, wanted: list[Request]) -> list[Completion]:
    found = sorted(engine.generate(wanted), key=lambda completion: completion.index)
    assert [completion.index for completion in found] == list(range(len(wanted)))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_logprobs_are_those_of_a_plain_forward(family: str):
    base = random_base(family)
    wanted = requests(Sampling(max_tokens=20, temperature=0.7))
    for completion, request in zip(generate(TransformersEngine(base.model, base.end_ids, 16), wanted), wanted, strict=True):
        prompt = list(request.prompt_ids)
        with torch.no_grad():
            logits = base.model(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / 0.7).log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert torch.allclose(expected, torch.tensor(completion.logprobs), atol=1e-4)
        ended = completion.token_ids[-1] in base.end_ids
        assert (completion.finish is FinishReason.STOP) == ended
        assert ended or len(completion.token_ids) == 20
        assert not base.end_ids & set(completion.token_ids[:-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_what_transformers_generates(family: str):
    base = random_base(family)
    wanted = [Request(PROMPTS[0], seed, Sampling(max_tokens=12, temperature=0)) for seed in (1, 2)]
    found = generate(TransformersEngine(base.model, base.end_ids), wanted)
    ids = torch.tensor([PROMPTS[0]])
    replies = base.model.generate(ids, max_new_tokens=12, do_sample=False)  # pyright: ignore[reportCallIssue] (from a mixin it does not see)
    expected = replies[0, len(PROMPTS[0]) :].tolist()
    assert [completion.token_ids for completion in found] == [expected, expected]


def test_tokens_depend_on_the_seed_and_not_on_the_batch():
    base = random_base("qwen3")
    wanted = requests(Sampling(max_tokens=30))
    together = generate(TransformersEngine(base.model, base.end_ids, 64), wanted)
    in_turns = generate(TransformersEngine(base.model, base.end_ids, 3), wanted)  # rows leave and newcomers join
    backwards = generate(TransformersEngine(base.model, base.end_ids, 7), wanted[::-1])[::-1]
    assert [c.token_ids for c in together] == [c.token_ids for c in in_turns] == [c.token_ids for c in backwards]
    by_prompt = {(wanted[c.index].prompt_ids, tuple(c.token_ids)) for c in together}
    assert len(by_prompt) > len(PROMPTS), "different seeds give different replies"


def test_a_prompt_is_encoded_once_for_all_its_requests(monkeypatch: pytest.MonkeyPatch):
    base, encoded = random_base("llama"), []
    from onelayer.agents import engine as module

    original = module.encode_prompts
    monkeypatch.setattr(module, "encode_prompts", lambda model, prompts: encoded.extend(prompts) or original(model, prompts))
    wanted = [Request(prompt, seed, Sampling(max_tokens=9)) for prompt in PROMPTS for seed in range(8)]
    generate(TransformersEngine(base.model, base.end_ids, 5), wanted)  # groups are split over several admissions
    assert sorted(encoded) == sorted(PROMPTS)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_session_goes_on_where_it_was(family: str, monkeypatch: pytest.MonkeyPatch):
    base, computed = random_base(family), []
    engine, fresh = (TransformersEngine(base.model, base.end_ids, 5) for _ in range(2))
    from onelayer.agents import engine as module

    original = module.extend_prompts
    monkeypatch.setattr(module, "extend_prompts", lambda model, prompts, kept: computed.extend(prompts) or original(model, prompts, kept))
    prompts = [list(PROMPTS[index % len(PROMPTS)]) for index in range(8)]
    for turn in range(4):
        sampling = Sampling(max_tokens=3 + 4 * turn, temperature=0.8)
        wanted = [Request(prompt, 100 * turn + index, sampling, f"session {index}") for index, prompt in enumerate(prompts)]
        kept = generate(engine, wanted)
        for one, other in zip(kept, generate(fresh, [Request(r.prompt_ids, r.seed, sampling) for r in wanted]), strict=True):
            assert one.token_ids == other.token_ids
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        glue = [[50 + turn] * (index % 3) for index in range(len(prompts))]  # what the environment answers, of several lengths
        prompts = [[*prompt, *done.token_ids, *more] for prompt, done, more in zip(prompts, kept, glue, strict=True)]
    assert len(computed) >= 3 * len(prompts) - 3, "only a prompt that two sessions share is computed once"
    changed = Request([9, *prompts[0]], 1, sampling, "session 0")  # a conversation that does not go on as it was
    assert generate(engine, [changed])[0].token_ids == generate(fresh, [Request(changed.prompt_ids, 1, sampling)])[0].token_ids
    for index in range(len(prompts)):
        engine.end_session(f"session {index}")
    assert not engine.sessions


def test_no_requests_no_completions():
    base = random_base("qwen3")
    assert list(TransformersEngine(base.model, base.end_ids).generate([])) == []


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.floats(0, 1, exclude_max=True), st.sampled_from([0.3, 1.0, 2.0]))
def test_sampling_inverts_the_cumulative_distribution(logits: list[float], u: float, temperature: float):
    probability = torch.tensor(logits, dtype=torch.float64).div(temperature).softmax(0).numpy()
    token, logprob = sample(torch.tensor([logits]), torch.tensor([temperature]), np.array([u]))
    (index,) = token.tolist()
    below, above = probability[:index].sum(), probability[: index + 1].sum()
    assert below - 1e-6 <= u <= above + 1e-6
    assert logprob.item() == pytest.approx(np.log(probability[index]), abs=1e-4)


def test_the_generator_is_uniform_and_reproducible():
    numbers = uniform(np.arange(20_000, dtype=np.uint64) // 10, np.arange(20_000) % 10)
    assert numbers.min() >= 0 and numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    assert ((counts - 400) ** 2 / 400).sum() < 85.4  # chi-squared, 49 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    again = uniform(np.arange(2_000, dtype=np.uint64)[::-1], np.full(2_000, 3))[::-1]
    assert again[:2_000].tolist() == numbers.reshape(2_000, 10)[:, 3].tolist(), "a pure function of seed and position"


def test_weights_that_overflow_are_told_and_not_sampled_from():
    """Finite weights can have no finite logits: tokens of such a model would mean nothing."""
    base = random_base("qwen3")
    with torch.no_grad():
        weight = base.model.get_input_embeddings().weight  # the head's, too
        assert isinstance(weight, torch.Tensor)
        weight.mul_(3e38 / weight.abs().max())
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="probabilities are not finite"):
            generate(TransformersEngine(base.model, base.end_ids), requests(Sampling(max_tokens=4, temperature=temperature)))


def test_requests_that_come_later_are_taken_while_others_are_under_way():
    base = random_base("qwen3")
    lengths = [40, *[4] * 7]
    first = [Request(PROMPTS[index % len(PROMPTS)], index, Sampling(length)) for index, length in enumerate(lengths)]
    asked: list[Request] = []
    ready, order = list(first), []

    def more() -> list[Request]:
        asked.extend(ready)
        taken = list(ready)
        ready.clear()
        return taken

    engine = TransformersEngine(base.model, set(), 8)
    found: dict[int, Completion] = {}
    for done in engine.serve(more):
        found[done.index] = done
        order.append(asked[done.index].seed)
        request = asked[done.index]
        if request.seed < 30 and request.sampling.max_tokens == 4:  # its next turn, with a longer prompt
            ready.append(Request([*request.prompt_ids, *done.token_ids, 9, 9, 9, 9], request.seed + 10, Sampling(4)))
    assert len(found) == len(asked) == 8 + 3 * 7 and order[-1] == 0, "the long reply held up nobody"
    alone = generate(TransformersEngine(base.model, set()), asked)
    assert [found[index].token_ids for index in range(len(asked))] == [completion.token_ids for completion in alone]
