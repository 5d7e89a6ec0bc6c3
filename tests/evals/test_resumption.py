"""Evaluations that are interrupted or extended go on without loss, and never reuse a sample that was made otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_evaluation import BASE, SPLIT, ToyEngine, ToyEnv, run, toy_agent

from onelayer.common.errors import UserError
from onelayer.envs.items import Split
from onelayer.envs.pool import Pool
from onelayer.evals.config import EvalConfig
from onelayer.evals.evaluator import evaluate
from onelayer.evals.journal import JOURNAL, read_journal
from onelayer.evals.records import PolicyInfo, read_evaluation
from onelayer.evals.samples import SAMPLES


@settings(max_examples=25, deadline=None)
@given(stops=st.lists(st.integers(0, 30), max_size=5), torn=st.integers(0, 80), broken=st.booleans())
def test_an_interrupted_evaluation_goes_on_without_loss_or_repetition(stops, torn, broken):
    """Whatever number of samples each process ends after, and however torn its last line is."""
    with TemporaryDirectory() as name:
        whole, stopped = Path(name, "whole"), Path(name, "stopped")
        run(whole, n=3)
        asked, again = [], 0
        for stop in stops:
            engine = ToyEngine(stop)
            try:
                run(stopped, n=3, engine=engine)
            except KeyboardInterrupt:
                with pytest.raises(UserError, match="no complete evaluation"):
                    read_evaluation(stopped)
            asked += engine.asked
            if (stopped / "evaluation.json").exists():
                break
            if not (journal := stopped / JOURNAL).exists():
                assert not asked
                continue
            before = len(read_journal(journal).samples)
            data = journal.read_bytes()
            if broken and data.count(b"\n") > 2:
                first, second, rest = data.split(b"\n", 2)
                data = first + b"\n" + second[: len(second) // 2] + b"\n" + rest
            journal.write_bytes(data[: len(data) - torn])
            again += before - len(read_journal(journal).samples)
        engine = ToyEngine()
        evaluation = run(stopped, n=3, engine=engine)
        asked += engine.asked
        assert len(asked) == 48 + again and len(set(asked)) == 48
        assert (stopped / SAMPLES).read_bytes() == (whole / SAMPLES).read_bytes()
        assert (torn or broken or evaluation.tokens == 48) and not (stopped / JOURNAL).exists()
        assert read_evaluation(stopped).manifest.sampled == read_evaluation(whole).manifest.sampled


def test_more_samples_and_items_are_added_without_repeating_what_is_there(tmp_path):
    run(tmp_path / "grown", n=2, items=5)
    for n, items, new in ((4, 5, 10), (4, 12, 35), (4, 12, 0)):
        engine = ToyEngine()
        evaluation = run(tmp_path / "grown", n=n, items=items, engine=engine)
        assert len(engine.asked) == new and evaluation.cost.tokens == items * (n + 1)  # of the samples that were there, too
    run(tmp_path / "whole", n=4)
    assert (tmp_path / "grown" / SAMPLES).read_bytes() == (tmp_path / "whole" / SAMPLES).read_bytes()


def test_an_extension_that_is_stopped_leaves_the_complete_evaluation(tmp_path):
    before = run(tmp_path, n=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, n=4, engine=ToyEngine(3))
    assert read_evaluation(tmp_path).manifest == before
    engine = ToyEngine()
    after = run(tmp_path, n=4, engine=engine)
    assert len(engine.asked) == 21 and after.cost.tokens == 60 and after.sampled.samples == 4


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"policy": PolicyInfo(name="base", base="e" * 64)},
        {"policy": PolicyInfo(name="layer:3", base="f" * 64, patches=["a" * 64])},
        {"recipe": {"env": {"id": "x", "max_turns": 2}}},
        {"recipe": {"model": {"dtype": "bfloat16"}}},
        {"prompt": "Answer: {observation}"},
        {"max_tokens": 7},
        {"content": "changed"},
    ],
)
def test_what_a_sample_depends_on_is_in_its_key(tmp_path, change):
    """A changed key is a new record, never a wrong reuse: begun samples are made again, and a complete evaluation is not overwritten."""
    items = tuple(replace(item, gold=item.gold + change["content"]) for item in SPLIT.items) if "content" in change else SPLIT.items
    options: Any = {"policy": BASE} | {name: value for name, value in change.items() if name in ("policy", "recipe")}
    config = {name: value for name, value in change.items() if name in ("seed", "temperature")}

    def changed(directory, engine):
        agent = toy_agent(engine, change.get("prompt", "{observation}"), max_tokens=change.get("max_tokens", 40))
        settings = EvalConfig.model_validate({"n": 2} | config)
        return evaluate(agent, Pool(ToyEnv), Split("toy/test", items), settings, directory, **options)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "begun", n=2, engine=ToyEngine(20))
    engine = ToyEngine()
    evaluation = changed(tmp_path / "begun", engine)
    assert len(engine.asked) == 36 and evaluation.items == 12
    before = run(tmp_path / "complete", n=2)
    with pytest.raises(UserError, match=r"holds a complete evaluation .* have no place in this one; name another --output"):
        changed(tmp_path / "complete", ToyEngine())
    assert read_evaluation(tmp_path / "complete").manifest == before


def test_a_complete_evaluation_is_never_reduced(tmp_path):
    run(tmp_path, n=4)
    for less in ({"n": 3}, {"n": 4, "items": 5}):
        with pytest.raises(UserError, match="name another --output"):
            run(tmp_path, **less)
