"""What real models ask for: stops, system messages, chat templates and their options, top-p and top-k, code that comes with a model."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from onelayer.agents import tiny
from onelayer.agents.agent import endpoint_agent, make_agent
from onelayer.agents.chat import Chat
from onelayer.agents.config import AgentConfig, EndpointConfig, ModelConfig
from onelayer.agents.drawing import restrict, sample
from onelayer.agents.ends import Ends, ends_of
from onelayer.agents.engine import Completion, FinishReason, Request, Sampling, TransformersEngine
from onelayer.agents.openai_engine import OpenAIEngine
from onelayer.agents.policy import Base, load_base
from onelayer.cli.config import load
from onelayer.cli.main import main
from onelayer.common.errors import UserError
from onelayer.envs.config import MathConfig

QUESTION = "What is 12 + 30?"


@pytest.fixture(scope="module")
def base() -> Base:
    return load_base(ModelConfig())


def replies(base: Base, ends: Ends, sampling: Sampling | None = None, count: int = 12) -> list[Completion]:
    prompt = Chat(base.tokenizer, AgentConfig()).encode(QUESTION)
    requests = [Request(prompt, 1000 + number, sampling or Sampling(30)) for number in range(count)]
    return sorted(TransformersEngine(base.model, ends, 5).generate(requests), key=lambda one: one.index)


# Stops.


def test_a_text_or_a_token_ends_a_reply_where_it_first_stands(base: Base) -> None:
    """The tokens are those of the reply that is not stopped, up to and with the end; the text stops before it."""
    free = replies(base, ends_of(base, []))
    said = [str(base.tokenizer.decode(one.token_ids, skip_special_tokens=True)) for one in free]
    several: str = next(text[at : at + 4] for text in said for at in (len(text) // 2,) if len(text) > 10)
    stops: list[str | int] = [several, said[0][3], free[0].token_ids[2]]
    for stop in stops:
        ends = ends_of(base, [stop])
        chat, hit = Chat(base.tokenizer, AgentConfig(stop=[stop]), ends), 0
        for one, whole, text in zip(replies(base, ends), free, said, strict=True):
            assert whole.token_ids[: len(one.token_ids)] == one.token_ids and not ends.passed(one.token_ids[:-1])
            stopped = (isinstance(stop, int) and stop in whole.token_ids) or (isinstance(stop, str) and stop in text)
            hit += stopped
            assert ends.ended(one.token_ids) == ends.passed(one.token_ids) == (one.finish is FinishReason.STOP)
            if isinstance(stop, str):
                assert chat.text(one.token_ids) == text.partition(stop)[0]
            if stopped:
                assert one.finish is FinishReason.STOP and ends.passed(one.token_ids)
                assert not isinstance(stop, int) or one.token_ids[-1] == stop
            else:
                assert (one.token_ids, one.finish) == (whole.token_ids, whole.finish)
        assert hit


def test_a_stop_that_lies_within_a_token_is_seen(base: Base) -> None:
    """A tokenizer may have ".\\n\\n" as one token: a stop of "\\n\\n" must see it, though it is a token, too."""
    vocabulary = base.tokenizer.get_vocab()
    longer = next(token for token in vocabulary if len(token) > 2 and token.isalpha() and token[1:] in vocabulary)
    ends = ends_of(base, [longer[1:]])
    assert ends.ended([vocabulary[longer]]) and not ends.ended([vocabulary[longer[0]]])


def test_tokens_that_the_tokenizer_keeps_apart_are_stopped_at_as_tokens(base: Base) -> None:
    end = str(base.tokenizer.eos_token)
    ends = ends_of(base, [end, 5])
    assert ends.ids == base.end_ids | {5} and ends.texts == ()
    with pytest.raises(UserError, match="holds the special token"):
        ends_of(base, [f"{end}\n"])
    with pytest.raises(UserError, match="no token 99999999"):
        ends_of(base, [99999999])


def test_there_is_one_end_token_between_turns_whichever_was_sampled(base: Base) -> None:
    """As Gemma has it: the template ends a turn with another token than the tokenizer's end."""
    tokenizer: Any = copy.deepcopy(base.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "<end_of_turn>"]})
    tokenizer.chat_template = "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}<turn>assistant:"
    turn_end, end = tokenizer.convert_tokens_to_ids("<end_of_turn>"), tokenizer.eos_token_id
    chat = Chat(tokenizer, AgentConfig(), Ends({turn_end, end}))
    after = tokenizer.encode("\n<turn>user\nnext<end_of_turn>\n<turn>assistant:", add_special_tokens=False)
    assert chat.encode_next("next", ended=True) == after
    assert chat.encode_next("next", ended=False) == [turn_end, *after]
    assert chat.text([*tokenizer.encode("so", add_special_tokens=False), turn_end]) == "so"


# Messages and templates.


def shown(base: Base, **keys: Any) -> str:
    return str(base.tokenizer.decode(make_agent(base, AgentConfig(max_tokens=20, **keys), MathConfig()).chat.encode(QUESTION)))


TEMPLATE = "{% for m in messages %}[{{ m.role }}{{ mood }}] {{ m.content }}\n{% endfor %}[assistant]"


def test_what_a_prompt_is_made_of(base: Base) -> None:
    assert shown(base, chat_template="none") == QUESTION
    assert shown(base, chat_template=TEMPLATE) == f"[user] {QUESTION}\n[assistant]"
    assert shown(base, chat_template=TEMPLATE, system="Be kind.") == f"[system] Be kind.\n[user] {QUESTION}\n[assistant]"
    assert shown(base, chat_template=TEMPLATE, template_options={"mood": "!"}) == f"[user!] {QUESTION}\n[assistant]"
    later = make_agent(base, AgentConfig(max_tokens=20, chat_template=TEMPLATE, system="Be kind."), MathConfig()).chat
    assert base.tokenizer.decode(later.encode_next("more", ended=False)) == "\n[user] more\n[assistant]"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"chat_template": "none", "system": "x"}, "agent.system: there is no chat template"),
        ({"chat_template": "none", "template_options": {"a": 1}}, "agent.template_options: there is no chat template"),
        ({"chat_template": "{% for %}"}, "agent.chat_template: it cannot be used"),
        ({"chat_template": "{{ raise_exception('no system') if messages[0].role == 'system' else 'x' }}", "system": "x"}, "no system"),
        ({"chat_template": TEMPLATE, "template_options": {"tokenize": True}}, "agent.template_options: tokenize"),
    ],
)
def test_what_a_template_cannot_do_is_refused(keys: dict[str, Any], told: str, base: Base) -> None:
    with pytest.raises(UserError, match=told):
        shown(base, **keys)


def test_files_stand_for_texts_and_the_known_templates_are_written_as_their_authors_have_them(tmp_path: Path, base: Base) -> None:
    (tmp_path / "t.jinja").write_text(TEMPLATE + "\n")
    (tmp_path / "s.txt").write_text("Be kind.\n")
    agent = load(None, [f"agent.chat_template.file={tmp_path / 't.jinja'}", f"agent.system.file={tmp_path / 's.txt'}"]).agent
    assert (agent.chat_template, agent.system) == (TEMPLATE, "Be kind.")
    expected = {
        "no": QUESTION,
        "qwen_math": "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
        "r1": "A conversation between User and Assistant. The User asks a question, and the Assistant solves it. The Assistant first "
        "thinks about the reasoning process in the mind and then provides the User with the answer. The reasoning process is enclosed "
        "within <think> </think> and answer is enclosed within <answer> </answer> tags, respectively, i.e., <think> reasoning process "
        f"here </think> <answer> answer here </answer>.\nUser: {QUESTION}\nAssistant: <think>",
    }
    for name, text in expected.items():
        config = load(None, [f"agent.prompt.file={name}", "agent.chat_template=none", "agent.max_tokens=20"]).agent
        dialogue = make_agent(base, config, MathConfig()).begin("item", 0)
        assert dialogue.hear(QUESTION, {}) == base.tokenizer.encode(text)


def test_an_endpoint_is_sent_what_it_can_do() -> None:
    config = AgentConfig(max_tokens=20, system="Be kind.", stop=["END"], template_options={"enable_thinking": False})
    agent = endpoint_agent(EndpointConfig(url="http://127.0.0.1:9/v1"), "name", config, MathConfig())
    prompt = agent.begin("item", 0).hear(QUESTION, {})
    assert prompt is not None and isinstance(agent.engine, OpenAIEngine)
    body = agent.engine._body(Request(prompt, 1, Sampling(20, 1.0, 0.9, 40)))
    assert [message["role"] for message in body["messages"]] == ["system", "user"] and body["messages"][0]["content"] == "Be kind."
    assert (body["stop"], body["top_p"], body["top_k"]) == (["END"], 0.9, 40)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    refused: list[dict[str, Any]] = [{"chat_template": "none"}, {"stop": [5]}]
    for wrong in refused:
        with pytest.raises(UserError, match=r"agent\.(chat_template|stop): an endpoint"):
            endpoint_agent(EndpointConfig(url="http://127.0.0.1:9/v1"), "name", AgentConfig(**wrong), MathConfig())


# Top-p and top-k.


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.05, 1.0), st.integers(0, 45))
def test_restricted_distributions_are_those_of_transformers(seed: int, vocabulary: int, top_p: float, top_k: int) -> None:
    logits = 3 * torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(seed))
    expected = logits
    if top_k:
        expected = TopKLogitsWarper(top_k)(torch.zeros(0), expected)  # type: ignore[arg-type]
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(torch.zeros(0), expected)  # type: ignore[arg-type]
    found = restrict(logits.log_softmax(-1), torch.full((3,), top_p), torch.full((3,), top_k))
    torch.testing.assert_close(found, expected.log_softmax(-1), atol=1e-5, rtol=1e-5)


def test_sampled_tokens_are_of_the_likeliest_and_their_logprobs_of_what_was_drawn_from(base: Base) -> None:
    """Rows with other settings beside them in the batch keep theirs; a greedy row does not look at them."""
    free, some = Sampling(8), Sampling(8, 0.7, 0.8, 5)
    requests = [Request(Chat(base.tokenizer, AgentConfig()).encode(QUESTION), seed, (free, some)[seed % 2]) for seed in range(20)]
    alone = {one.index: one for one in TransformersEngine(base.model, base.end_ids).generate(requests[::2])}
    for one in TransformersEngine(base.model, base.end_ids, 4).generate(requests):
        request = requests[one.index]
        if request.sampling is free:
            assert one.token_ids == alone[one.index // 2].token_ids
        ids = torch.tensor([[*request.prompt_ids, *one.token_ids]])
        with torch.no_grad():
            logprobs = (base.model(ids).logits[0, len(request.prompt_ids) - 1 : -1] / request.sampling.temperature).log_softmax(-1)
        if request.sampling.restricted:
            count = len(logprobs)
            logprobs = restrict(logprobs, torch.full((count,), request.sampling.top_p), torch.full((count,), request.sampling.top_k))
        assert logprobs.gather(1, torch.tensor(one.token_ids)[:, None])[:, 0].tolist() == pytest.approx(one.logprobs, abs=1e-4)
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    token, logprob = sample(logits, torch.zeros(1), np.zeros(1), (torch.tensor([0.1]), torch.tensor([1])))
    assert token.item() == 1 and logprob.item() == pytest.approx(logits.log_softmax(-1)[0, 1].item())


def test_training_never_draws_from_some(capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("eval.top_p=0.9", "eval.top_k=5"):
        assert main(["train", "quickstart", key]) == 2
        assert "training draws from all tokens" in capsys.readouterr().err
    assert main(["train", "quickstart", "agent.top_p=0.9"]) == 2
    assert "unknown key agent.top_p" in capsys.readouterr().err


def test_the_code_of_a_model_runs_where_the_recipe_says_so(tmp_path: Path) -> None:
    shutil.copytree(tiny.PATH, path := tmp_path / "model")
    (path / "theirs.py").write_text(
        "from transformers import Qwen3Config, Qwen3ForCausalLM\n"
        'class Config(Qwen3Config): model_type = "theirs"\n'
        "class Model(Qwen3ForCausalLM): config_class = Config\n"
    )
    change = {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}}
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match="trust_remote_code=true if you trust its authors"):
        load_base(ModelConfig(path=str(path)))
    assert type(load_base(ModelConfig(path=str(path), trust_remote_code=True)).model).__name__ == "Model"
