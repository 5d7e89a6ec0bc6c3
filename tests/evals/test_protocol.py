"""One hash for how something was measured: every key of a recipe is in it or left out for a reason, and it is read from any manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_evaluation, outcomes
from pydantic import BaseModel, ValidationError

from onelayer.agents.prompts import default_prompt
from onelayer.envs.config import BUILT_IN, OtherConfig
from onelayer.evals.protocol import OUTSIDE, TOKENIZER, UNRECORDED, is_outside, labels, protocol, who
from onelayer.evals.records import MANIFEST, Decoding, Evaluation, Source, read_manifest
from onelayer.trainers.config import Config
from onelayer.trainers.manifest import recipe_of

OTHER = "my.module:mine/Mine-v0"
ENVIRONMENTS = {**BUILT_IN, OTHER: OtherConfig}
VALUES: list[Any] = [
    True,
    False,
    1,
    2,
    3,
    0.5,
    0.25,
    "{observation}!",
    "functions",
    "generated",
    "official",
    "small",
    "bfloat16",
    "cpu",
    "refuse",
    "int8",
]
VALUES += ["vllm", "gigpo", "layer:1", "token_mean", "sequence", "http://localhost:1/v1", "your.module:your/Yours-v0", "name"]
VALUES += ["any", {"layer:1": [0.5]}, {"url": "http://localhost:1/v1"}, {"key": 1}, {"1": 0.5}, [3], ["layer:1"], [0.5]]
"""Of these at least one is another legal value of every key."""


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted keys of all that a recipe may hold below a section; of an environment those of this one."""
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from keys(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def all_keys() -> Iterator[tuple[str, str]]:
    """Environment and key: every key of a recipe once, and those of `env` for each environment that has them."""
    yield from (("onelayer/Math-v0", key) for key in keys(Config) if key != "env")
    yield from ((name, f"env.{key}") for name, model in ENVIRONMENTS.items() for key in keys(model))


def resolved(env: str, changes: dict[str, Any] | None = None) -> Config:
    """A recipe for an environment, with keys that differ."""
    tree: dict[str, Any] = {"env": {"id": env}}
    for key, value in (changes or {}).items():
        *path, last = key.split(".")
        section = tree
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    return Config.model_validate(tree)


def changed(env: str, key: str) -> Config:
    """A recipe in which this key alone has another value."""
    before = resolved(env).model_dump(mode="json")
    for value in VALUES:
        try:
            found = resolved(env, {key: value})
        except ValidationError:
            continue
        if found.model_dump(mode="json") != before:
            return found
    raise AssertionError(f"{key}: name a legal value that is not its default in VALUES")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return read_manifest(make_evaluation(tmp_path_factory.mktemp("made"), outcomes(0.5, 1)))


def measured(made: Evaluation, config: Config, **fields: Any) -> Evaluation:
    """The manifest that the evaluator writes for a recipe."""
    values = {
        "temperature": config.eval.temperature,
        "seed": config.eval.seed,
        "max_tokens": config.agent.max_tokens,
        "prompt": config.agent.prompt or default_prompt(config.env.id),
        "config": recipe_of(config, config.env, config.eval),
    }
    return made.model_copy(update=values | fields)


@pytest.mark.parametrize(("env", "key"), list(all_keys()), ids=lambda value: value.rpartition("/")[2])
def test_a_key_of_the_recipe_is_in_the_hash_or_left_out_for_a_reason(env: str, key: str, made: Evaluation) -> None:
    one, other = (protocol(measured(made, config)) for config in (resolved(env), changed(env, key)))
    assert (one.hash == other.hash) == is_outside(key) == (not one.differing(other))
    if not is_outside(key):
        assert labels([one.levels, other.levels])[0] != labels([one.levels, other.levels])[1]


def test_every_reason_is_of_a_key_that_there_is() -> None:
    there = {key for _, key in all_keys()}
    sections = {".".join(key.split(".")[:length]) for key in there for length in range(1, 4)}
    assert OUTSIDE.keys() <= sections
    assert all(len(reason) > 10 for reason in OUTSIDE.values())


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("digest", "e" * 64, "items"),
        ("split", "arithmetic/validation", "split"),
        ("seed", 5, "evaluation seed"),
        ("max_tokens", 80, "max_tokens"),
        ("prompt", "Q: {observation}", "prompt"),
        ("temperature", 0.7, "temperature"),
    ],
)
def test_what_the_manifest_itself_tells_is_in_the_hash(field: str, value: object, name: str, made: Evaluation) -> None:
    other = made.model_copy(update={field: value})
    for decoding in Decoding:
        alike = field == "temperature" and decoding is Decoding.GREEDY
        one, two = protocol(made, decoding), protocol(other, decoding)
        assert one.differing(two) == ([] if alike else [name]) and (one.hash == two.hash) == alike


def test_the_policy_is_not_in_the_hash(made: Evaluation) -> None:
    """Neither who played, nor how much of it, nor on what."""
    other = made.model_copy(update={"policy": "layer:3", "patches": ["9" * 64], "base": "b" * 64, "protocol": "other", "tokenizer": "t"})
    assert protocol(made).hash == protocol(other).hash and not protocol(made).differing(protocol(other))
    assert who(made) != who(other)


def test_the_same_base_with_another_tokenizer_is_not_compared(made: Evaluation) -> None:
    one, two, old = (protocol(made.model_copy(update={"tokenizer": tokenizer})) for tokenizer in ("one", "two", ""))
    assert one.differing(two) == [TOKENIZER]
    assert not one.differing(old) and not old.differing(two)  # manifests of earlier versions do not tell: it counts as that of the base


def test_a_policy_that_reads_no_prompt_is_compared_by_what_it_plays(made: Evaluation) -> None:
    model = measured(made, resolved("onelayer/ALFWorld-v0"))
    short = measured(made, resolved("onelayer/ALFWorld-v0", {"env.max_steps": 30}))
    rule = {"source": Source.BASELINE, "base": "none", "prompt": "(random)", "temperature": 0.1}
    endpoint = {"source": Source.ENDPOINT, "base": "none"}
    assert not protocol(model.model_copy(update=rule)).differing(protocol(model))
    assert protocol(model).differing(protocol(short.model_copy(update=rule))) == ["env.max_steps"]
    assert not protocol(model.model_copy(update=endpoint)).differing(protocol(model))
    assert protocol(model.model_copy(update=endpoint | {"prompt": "Q"})).differing(protocol(model)) == ["prompt"]
    places = [made.model_copy(update=endpoint | {"protocol": address}) for address in ("one address", "another")]
    assert who(places[0]) != who(places[1])


def test_defaults_written_out_are_the_same_protocol(made: Evaluation) -> None:
    """A history of null is the environment's own; a server of vLLM and vLLM in process are one engine."""
    math, code = "onelayer/Math-v0", "onelayer/Code-v0"
    assert not protocol(measured(made, resolved(math))).differing(protocol(measured(made, resolved(math, {"agent.history": 0}))))
    assert not protocol(measured(made, resolved(code))).differing(protocol(measured(made, resolved(code, {"agent.history": 0}))))
    engines = [measured(made, resolved(math, {"agent.engine": engine})) for engine in ("vllm", "http://localhost:8000")]
    assert protocol(engines[0]).hash == protocol(engines[1]).hash


def test_manifests_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Without `tokenizer`, and without a key of the environment that did not exist yet: only those that have it are told apart by it."""
    directory = make_evaluation(tmp_path, outcomes(0.5, 1))
    new = read_manifest(directory)
    tree = json.loads((directory / MANIFEST).read_text())
    del tree["tokenizer"], tree["config"]["env"]["max_turns"]
    (directory / MANIFEST).write_text(json.dumps(tree))
    old = read_manifest(directory)
    assert not protocol(old).differing(protocol(old)) and protocol(old).differing(protocol(new)) == ["env.max_turns"]
    assert labels([protocol(old).levels, protocol(new).levels]) == ["no env.max_turns", "1 turn"]


def test_an_evaluation_whose_settings_are_not_recorded_is_like_no_other(made: Evaluation) -> None:
    one, two = (protocol(made.model_copy(update={"config": {}, "samples_sha256": sha})) for sha in ("1", "2"))
    assert UNRECORDED in one.differing(two) and UNRECORDED in one.differing(protocol(made)) and not one.differing(one)
    assert labels([one.levels, protocol(made).levels])[0].startswith("settings not recorded")


def test_a_label_has_what_sets_measurements_apart() -> None:
    turns = [{"env.max_turns": number, "prompt": "a"} for number in (1, 2, 2)]
    assert labels([[settings] for settings in turns]) == ["1 turn", "2 turns", "2 turns"]
    assert labels([[turns[0]]]) == [""] and labels([]) == []
    assert labels([[{"prompt": "a\nb"}], [{"prompt": "c"}]])[1] == "prompt c"
    assert labels([[{"x": 1.0}, {"y": 2}], [{"x": 0.7}], [{"x": 1.0}, {"y": 3}]]) == ["x 1, y 2", "x 0.7", "x 1, y 3"]
