"""Files, data sets and built-in suites: what is read, how it is divided, and how a broken line is reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from onelayer.envs import FieldMapping, MathConfig, UserError, check_disjoint, load, parse_suite
from onelayer.envs.config import ALFWorldConfig, CodeConfig
from onelayer.envs.math import golds as golds_module
from onelayer.envs.math.sources import SUITES


def write(path: Path, rows: list[dict]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ROWS = [{"question": f"What is {n} + 1?", "answer": n + 1.0} for n in range(400)]


def test_a_file_is_divided_by_its_texts(tmp_path: Path) -> None:
    config = MathConfig(suite=write(tmp_path / "sums.jsonl", ROWS))
    splits = {name: load(config, name) for name in ("train", "validation", "test", "all")}
    sizes = {name: len(split.items) for name, split in splits.items()}
    assert sizes["train"] + sizes["validation"] + sizes["test"] == sizes["all"] == 400
    assert 240 < sizes["train"] < 320 and 20 < sizes["validation"] < 60 and 50 < sizes["test"] < 110
    check_disjoint(splits["train"], splits["test"])
    reversed_config = MathConfig(suite=write(tmp_path / "reversed.jsonl", ROWS[::-1]))
    assert {item.question for item in load(reversed_config, "test").items} == {item.question for item in splits["test"].items}
    assert (splits["all"].items[26].id, splits["all"].items[26].gold) == ("sums/27", "27")
    assert load(config.model_copy(update={"size": 5}), "train").items == splits["train"].items[:5]


def test_fields_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path / "own.jsonl", [{"q": "One?", "a": "$1$", "key": "first", "answer": 7}])
    (item,) = load(MathConfig(suite=file, fields=FieldMapping(question="q", answer="a", id="key")), "all").items
    assert (item.id, item.question, item.gold) == ("own/first", "One?", "$1$")


GOOD = '{"question": "1?", "answer": 1}'
BROKEN = {
    "not JSON": (f"{GOOD}\n{{", ":2: not JSON"),
    "no object": ("[1]", ":1: a list"),
    "no question": ('{"answer": 1}', ":1: no key 'question' or 'problem' or 'prompt'; it has answer; set env.fields.question"),
    "no answer": (f'{GOOD}\n\n{{"question": "2?"}}', ":3: no key 'answer'"),
    "empty question": ('{"question": " ", "answer": 1}', ":1: the question is empty"),
    "empty answer": ('{"question": "1?", "answer": ""}', ":1: the answer is empty"),
    "wrong type": ('{"question": "1?", "answer": [1]}', ":1: 'answer' is"),
    "not a number": ('{"question": "1?", "answer": NaN}', ":1: 'answer' is NaN"),
    "surrogate": ('{"question": "\\ud800", "answer": 1}', ":1: 'question' holds half a surrogate pair"),
    "unreadable gold": ('{"question": "2?", "answer": "\\\\frac{1}{"}', ":1: the gold answer"),
    "gold beyond the caps": ('{"question": "1?", "answer": "9^{9^{9}}"}', ":1: the gold answer"),
    "empty file": ("", ": the file is empty"),
    "not UTF-8": (b'{"question": "1?", "answer": 1}\n{"question": "\xff"}', ":2: not UTF-8"),
    "same id": ('{"question": "1?", "answer": 1, "id": 5}\n{"question": "2?", "answer": 1, "id": 5}', ":2: the id 'broken/5' is taken by"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_reported_with_their_line(tmp_path: Path, case: str) -> None:
    content, message = BROKEN[case]
    file = tmp_path / "broken.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    fields = FieldMapping(id="id") if case == "same id" else FieldMapping()
    with pytest.raises(UserError) as error:
        load(MathConfig(suite=str(file), fields=fields), "all")
    assert str(error.value).startswith(str(file) + message.partition(" ")[0]) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    write(tmp_path / "math" / "train.jsonl", ROWS)
    for suite, message in {
        "gsm8k": "set ONELAYER_DATA to a folder that holds gsm8k/test.jsonl, or pip install datasets",
        "math": "math has no split 'test'; it has train, validation",
        "math500/train": "math500 has no split 'train'; it has test",
        "arithmetic/all": "it has test, validation, train",
        "gsm9k": "no suite 'gsm9k'; there are arithmetic, gsm8k",
        str(tmp_path / "none.jsonl"): "No such file",
        "hub:owner/name": "pip install datasets",
    }.items():
        with pytest.raises(UserError, match=message):
            load(*parse_suite(suite))
    with pytest.raises(UserError, match=r"env\.size=1000, but math/train has 3"):
        load(MathConfig(suite="math", size=1000), "train")


def test_built_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONELAYER_DATA", str(tmp_path))
    ending = "\nPlease reason step by step, and put your final answer within \\boxed{}."
    write(tmp_path / "aime24" / "test.jsonl", [{"prompt": "Find it." + ending, "answer": 204}])
    write(tmp_path / "gsm8k" / "test.jsonl", [{"question": "How many?", "answer": "2*2=<<2*2=4>>4\n#### 4,000"}])
    write(
        tmp_path / "math500" / "test.jsonl",
        [{"problem": "x?", "solution": "\\boxed{2}", "answer": "2", "unique_id": "test/algebra/1.json"}],
    )
    found = {suite: load(*parse_suite(suite)).items[0] for suite in ("aime24", "gsm8k", "math500")}
    assert {suite: (item.id, item.question, item.gold) for suite, item in found.items()} == {
        "aime24": ("aime24/test/1", "Find it.", "204"),
        "gsm8k": ("gsm8k/test/1", "How many?", "4,000"),
        "math500": ("math500/test/test/algebra/1.json", "x?", "2"),
    }


def test_data_sets_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the package datasets, which may not be installed."""

    def load_dataset(name: str, config: str | None, split: str) -> list[dict]:
        assert (name, config) in (("openai/gsm8k", "main"), ("owner/name", None))
        if split == "test":
            return [{"question": "How many?", "solution": "so \\boxed{4}"}]
        return ROWS

    stand_in = SimpleNamespace(load_dataset=load_dataset, get_dataset_split_names=lambda name: ["train", "test"])
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    monkeypatch.setenv("ONELAYER_DATA", "/nowhere")
    assert load(*parse_suite("gsm8k")).items[0].gold == "4"
    own = {name: load(*parse_suite(f"hub:owner/name/{name}")) for name in ("train", "validation", "test")}
    assert own["test"].items[0].id == "owner/name/test/1"
    assert len(own["train"].items) + len(own["validation"].items) == 400
    check_disjoint(own["train"], own["validation"])


def test_training_on_evaluation_items_is_refused(tmp_path: Path) -> None:
    train = load(MathConfig(suite=write(tmp_path / "train.jsonl", ROWS[:10])), "all")
    spaced = [{"question": " What  is\n3 + 1? ", "answer": 4}, {"question": "Other?", "answer": 1}]
    with pytest.raises(UserError, match=r"1 of the 10 items of .*train.jsonl/all .*\(train/4\)"):
        check_disjoint(train, load(MathConfig(suite=write(tmp_path / "evaluation.jsonl", spaced)), "all"))
    with pytest.raises(UserError, match="10 of the 10"):
        check_disjoint(train, train)


def test_the_list_of_suites_is_that_of_their_sources() -> None:
    assert sorted(MathConfig.suites()) == sorted(["arithmetic", *SUITES])
    assert not MathConfig(suite="FILE.jsonl").has_fixed_source and not CodeConfig(suite="hub:...").has_fixed_source
    assert CodeConfig(suite="mbpp+").has_fixed_source and ALFWorldConfig(suite="official").has_fixed_source


def test_names_of_suites() -> None:
    for text, suite, split in (
        ("math500", "math500", "test"),
        ("gsm8k/train", "gsm8k", "train"),
        ("data/own.jsonl", "data/own.jsonl", "test"),
        ("data/own.jsonl/all", "data/own.jsonl", "all"),
        ("hub:a/b", "hub:a/b", "test"),
        ("hub:a/b/validation", "hub:a/b", "validation"),
    ):
        assert parse_suite(text) == (MathConfig(suite=suite), split)


def test_what_cannot_be_graded_is_skipped_by_name_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": "1?", "answer": 1}, {"question": "2?", "answer": "\\frac{1}{"}, {"question": "3?", "answer": None}, *ROWS[:9]]
    file = write(tmp_path / "some.jsonl", rows)
    split = load(MathConfig(suite=file), "all")
    reasons = {one.id: one.reason for one in split.skipped}
    assert reasons == {"some/2": "the gold answer '\\\\frac{1}{' cannot be read by the grader", "some/3": "the answer is empty"}
    assert (split.size_text, split.first(1).size_text, split.first(2).size_text) == (
        "10 items (2 skipped)",
        "1 item",
        "2 items (2 skipped)",
    )
    assert "10 items (2 skipped): some/2 (the gold answer" in caplog.text
    without = load(MathConfig(suite=write(tmp_path / "fewer" / "some.jsonl", [rows[0], *ROWS[:9]]), fields=FieldMapping()), "all")
    assert without.size_text == "10 items" and without.digest != split.digest
    assert load(MathConfig(suite=file, size=5), "all").items == split.items[:5]
    with pytest.raises(UserError, match=r"some.jsonl:2: the gold answer .* cannot be read.*env.unreadable=skip"):
        load(MathConfig(suite=file, unreadable="refuse"), "all")
    with pytest.raises(UserError, match=r"env.size=11, but .* has 10 items"):
        load(MathConfig(suite=file, size=11), "all")


def test_what_could_not_be_read_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    golds = ["x+1", "\\frac{1}{", "3", "x+1"]
    assert golds_module.unreadable_golds(golds) == [1]
    monkeypatch.setattr(golds_module, "_readable", lambda formula: pytest.fail("checked twice"))
    assert golds_module.unreadable_golds(golds[::-1]) == [2]
