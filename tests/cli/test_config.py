"""Recipes: what is accepted, what wins, and what a mistake is answered with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onelayer.cli.config import compose_suite, load
from onelayer.common.errors import UserError
from onelayer.envs.config import MathConfig
from onelayer.evals.suites import LM_EVAL, named, select
from onelayer.trainers.algorithms import ALGORITHMS
from onelayer.trainers.algorithms.gigpo import GiGPO
from onelayer.trainers.algorithms.grpo import GRPO
from onelayer.trainers.algorithms.own import Own
from onelayer.trainers.config import Config, dump

RECIPE = """\
name: example
trainer:
  lr: 1e-5  # a number in YAML 1.2, a word to PyYAML
  trained_set: layer:3
  lr_by_layer: {10: 2e-5}
study:
  seeds: [0, 1]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_a_recipe_is_read_and_later_overrides_win(recipe: str) -> None:
    config = load(recipe)
    assert (config.trainer.lr, config.trainer.trained_set, config.trainer.lr_by_layer, config.study.seeds) == (
        1e-5,
        "layer:3",
        {10: 2e-5},
        [0, 1],
    )
    overrides = [
        "trainer.lr=3e-4",
        "trainer.lr=1",
        "trainer.lr_by_layer.10=1.",
        "trainer.lr_by_layer.11=5e-6",
        "study.trained_sets=[layer:1,mid:2]",
    ]
    config = load(recipe, [*overrides, "env={difficulty: 4}", "study.layer_lr=5e-6", "study.layer_lr=null"])
    assert (config.trainer.lr, config.trainer.lr_by_layer) == (1.0, {10: 1.0, 11: 5e-6})
    assert (config.study.trained_sets, config.study.seeds) == (["layer:1", "mid:2"], [0, 1])
    assert (config.env, config.study.layer_lr) == (MathConfig(difficulty=4), None)


SMALL: dict[str, Any] = {"steps": 25, "prompts_per_step": 32, "group_size": 8, "lr": 3e-4}
STUDY = {"trained_sets": ["layer:3"], "lr_grid": [3e-4], "layer_lr": 1e-3}
RECIPES: dict[str, dict[str, Any]] = {
    "math": {
        "env": {"id": "onelayer/Math-v0", "suite": "arithmetic", "difficulty": 3},
        "agent": {"max_tokens": 40},
        "trainer": SMALL,
        "eval": {"items": 256, "n": 4},
    },
    "code": {
        "env": {"id": "onelayer/Code-v0", "suite": "functions"},
        "agent": {"max_tokens": 48},
        "trainer": SMALL,
        "eval": {"items": 256, "n": 4},
    },
    "alfworld": {
        "model": {"path": "tiny-alfworld"},
        "env": {"id": "onelayer/ALFWorld-v0", "scene": "small", "max_steps": 15},
        "agent": {"max_tokens": 24, "max_prompt": 400},
        "trainer": SMALL | {"steps": 10, "prompts_per_step": 6},
        "eval": {"items": 96, "n": 2},
    },
}


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
@pytest.mark.parametrize("domain", list(RECIPES))
def test_a_domain_with_an_algorithm_is_the_recipe_it_was(domain: str, algorithm: str) -> None:
    recipe = copy.deepcopy(RECIPES[domain]) | {"name": f"{domain}-{algorithm}", "study": STUDY}
    recipe["trainer"] |= {"algorithm": {"name": algorithm}}
    if algorithm == "gigpo" and domain == "alfworld":
        recipe["trainer"] |= {"kl_coef": 0, "algorithm": {"name": algorithm, "invalid_penalty": 0}}
    elif algorithm == "gigpo":
        recipe["env"] |= {"max_turns": 2}
    assert load(domain, [f"trainer.algorithm={algorithm}"]) == Config.model_validate(recipe)
    with pytest.raises(UserError, match=f"the recipe {domain} now: {domain} trainer.algorithm={algorithm}"):
        load(f"{domain}/{algorithm}")


def test_what_an_algorithm_needs_in_a_recipe_gives_way_to_overrides(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: own-{algorithm}\nalgorithms: {gigpo: [env.max_turns=2, trainer.algorithm.gamma=0.5], 'a:b': [trainer.clip=0.1]}")
    assert load(str(path)) == Config(name="own-grpo")
    plain = load(str(path), ["trainer.algorithm=gigpo"])
    assert (plain.name, plain.env.model_dump()["max_turns"], plain.trainer.algorithm) == ("own-gigpo", 2, GiGPO(gamma=0.5))
    given = load(str(path), ["env.max_turns=3", "trainer.algorithm.gamma=0.9", "trainer.algorithm.name=gigpo", "name=mine"])
    assert (given.name, given.env.model_dump()["max_turns"], given.trainer.algorithm) == ("mine", 3, GiGPO(gamma=0.9))
    own = load(str(path), ["trainer.algorithm=a:b"])
    assert (own.name, own.trainer.clip) == ("own-a-b", 0.1)


def test_shipped_recipes_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "math").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of a recipe's name is no recipe
    assert load("quickstart").name == "quickstart"
    for domain in ("math", "code", "alfworld"):
        for algorithm in ("grpo", "dr_grpo", "gigpo"):
            config = load(domain, [f"trainer.algorithm={algorithm}"])
            assert (config.name, config.env.id.lower(), config.trainer.algorithm.name) == (
                f"{domain}-{algorithm}",
                f"onelayer/{domain}-v0",
                algorithm,
            )
            if algorithm == "gigpo":
                assert config.env.model_dump().get("max_turns", 15) > 1, "in a single turn GiGPO is GRPO"


def test_the_name_of_an_algorithm_stands_for_the_mapping_that_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("trainer: {algorithm: gigpo}")
    assert load(str(path)).trainer == load(None, ["trainer.algorithm={name: gigpo}"]).trainer
    assert load(str(path), ["trainer.algorithm.gamma=0.5"]).trainer.algorithm == GiGPO(gamma=0.5)
    assert load(None, ["trainer.algorithm.gamma=0.5", "trainer.algorithm.name=gigpo"]).trainer.algorithm == GiGPO(gamma=0.5)
    assert load(str(path), ["trainer.algorithm=grpo"]).trainer.algorithm == GRPO()
    own = load(None, ["trainer.algorithm=package.module:function", "trainer.algorithm.options.power=2"]).trainer.algorithm
    assert own == Own(name="package.module:function", options={"power": 2})


def test_shipped_suite_files_name_suites_that_there_are() -> None:
    for name in named():
        for suite in select(name).suites:
            if not suite.startswith(LM_EVAL):
                compose_suite(suite, select(name).overrides)


@given(
    st.fixed_dictionaries(
        {
            "trainer": st.fixed_dictionaries(
                {
                    "lr": st.floats(1e-30, 1e30),
                    "lr_by_layer": st.dictionaries(st.integers(0, 99), st.floats(1e-8, 1)),
                    "seed": st.integers(0),
                }
            ),
            "model": st.fixed_dictionaries({"path": st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"))}),
            "eval": st.fixed_dictionaries({"suite": st.none() | st.text()}),
        }
    ).map(Config.model_validate)
)
@example(Config.model_validate({"name": "1e5", "model": {"path": "0o7"}, "eval": {"suite": "2026-01-02"}}))
@example(Config.model_validate({"name": "null", "model": {"path": "yes"}, "eval": {"suite": "1_0"}}))
@example(Config.model_validate({"agent": {"prompt": "# {{}}: {observation}\n\t- 'a' \"b\""}}))
def test_a_dumped_configuration_loads_as_the_same(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.mktemp("dump") / "config.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(str(path)) == config


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("trainer:\n  lrr: 1", [], "c.yaml:2: unknown key trainer.lrr; did you mean trainer.lr? trainer takes: algorithm, "),
        ("name: a\nlr: 1", [], "c.yaml:2: unknown key lr; did you mean trainer.lr? the top level takes: name, model, "),
        ("trainer:\n\n  lr: fast", [], 'c.yaml:3: trainer.lr must be a finite number > 0, found "fast"'),
        ("trainer: {lr: true}", [], "c.yaml:1: trainer.lr must be a finite number > 0, found true"),
        ("trainer: {steps: '60'}", [], 'c.yaml:1: trainer.steps must be an integer >= 1, found "60"'),
        ("trainer: {steps: 1.5, seed: -1}", [], "c.yaml:1: trainer.seed must be an integer >= 0, found -1 (and 1 more)"),
        ("trainer: {tensorboard: yes}", [], 'c.yaml:1: trainer.tensorboard must be true or false, found "yes"'),
        ("trainer:", [], "c.yaml:1: trainer must be a mapping of keys, found null"),
        ("model:\n  dtype: float16", [], 'c.yaml:2: model.dtype must be one of float32, bfloat16, found "float16"'),
        (
            "study:\n  seeds:\n  - 0\n  - x",
            [],
            'c.yaml:4: study.seeds must be a list of integers >= 0 (at least 1), found "x" at study.seeds.1',
        ),
        (
            "study:\n  seeds:\n  - 0\n  - -1",
            [],
            "c.yaml:4: study.seeds must be a list of integers >= 0 (at least 1), found -1 at study.seeds.1",
        ),
        ("study: {seeds: [3, 0, 3]}", [], "c.yaml:1: study.seeds: 3 is named twice; name each once"),
        (
            "study: {lr_grid: [1e-4, 0]}",
            [],
            "c.yaml:1: study.lr_grid must be a list of finite numbers > 0 (at least 1), found 0 at study.lr_grid.1",
        ),
        ("study: {lr_grid: [1e-4, 0.0001]}", [], "c.yaml:1: study.lr_grid: 0.0001 is named twice; name each once"),
        ("study: {trained_sets: [layer:1, layer:1]}", [], "c.yaml:1: study.trained_sets: layer:1 is named twice; name each once"),
        ("study: {trained_sets: [layer:1, full]}", [], "c.yaml:1: study.trained_sets: full is part of every study; name only"),
        (
            "trainer: {lr_by_layer: {3: -1}}",
            [],
            "c.yaml:1: trainer.lr_by_layer must be a mapping of integers >= 0 to finite numbers > 0, found -1",
        ),
        (
            "trainer: {lr_by_layer: {x: 1}}",
            [],
            "c.yaml:1: trainer.lr_by_layer must be a mapping of integers >= 0 to finite numbers > 0, found 1",
        ),
        ("trainer: {prompts_per_step: 4, minibatches: 5}", [], "c.yaml:1: trainer.minibatches: 5 minibatches of 4 prompts_per_step: "),
        (
            "agent: {prompt: 'Solve {question}'}",
            [],
            "c.yaml:1: agent.prompt: only {observation}, {task}, {history}, {admissible} may stand in braces, and literal braces are ",
        ),
        ("agent: {prompt: Solve it}", [], "c.yaml:1: agent.prompt: without {observation}, where the question belongs"),
        ("trainer:\n  lr: .nan", [], "c.yaml:2: trainer.lr is .nan; every number must be finite"),
        ("study:\n  lr_grid: [1e-5, 1e999]", [], "c.yaml:2: study.lr_grid.1 is 1e999; every number must be finite"),
        ("trainer:\n  lr: 1\n  lr: 2", [], "c.yaml:3: duplicate key trainer.lr, already at c.yaml:2; keep one"),
        ("trainer:\n\tlr: 1", [], "c.yaml:2: not valid YAML: "),
        ("trainer: [", [], "c.yaml:1: not valid YAML: "),
        ("trainer: &t {lr: 1}\nstudy: *t", [], "c.yaml:2: not valid YAML: aliases (*name) are not understood here"),
        ("name: a\n---\nname: b", [], "c.yaml:2: not valid YAML: expected a single document"),
        ("trainer: {lr: !!python/name:os.system ''}", [], "c.yaml:1: trainer.lr: the tag python/name"),
        ("? [1]\n: 2", [], "c.yaml:1: a key must be a word"),
        ("# nothing\n", [], "c.yaml: empty; "),
        ("- name", [], "c.yaml: not a mapping of keys; "),
        ("trainer: {lr: 1}", ["trainer.lr=abc"], 'override trainer.lr=abc: trainer.lr must be a finite number > 0, found "abc"'),
        (
            "trainer: {lr: abc}",
            ["trainer.lr=1", "trainer.lr.x=1"],
            "override trainer.lr.x=1: trainer.lr must be a finite number > 0, found ",
        ),
        ("name: a", ["trainer.steps"], "override trainer.steps: write SECTION.KEY=VALUE, for example trainer.lr=1e-5"),
        ("name: a", ["trainer.=1"], "override trainer.=1: write SECTION.KEY=VALUE, for example "),
        ("name: a", ["study.seeds=[0"], "override study.seeds=[0: not valid YAML: "),
        (
            "trainer: {algorithm: gppo}",
            [],
            "c.yaml:1: trainer.algorithm: no algorithm 'gppo'; there are grpo, dr_grpo, gigpo",
        ),
        (
            "name: a",
            ["trainer.algorithm=3"],
            "override trainer.algorithm=3: trainer.algorithm: write a name, as gigpo, or a mapping",
        ),
        (
            "trainer: {algorithm: dr_grpo}",
            ["trainer.algorithm.gamma=1"],
            "override trainer.algorithm.gamma=1: unknown key trainer.algorithm.gamma; trainer.algorithm takes: name",
        ),
        (
            "name: a",
            ["trainer.algorithm.loss_weights=constant"],
            "override trainer.algorithm.loss_weights=constant: trainer.algorithm.loss_weights must be one of sequence_mean, ",
        ),
        (
            "trainer:\n  algorithm: gigpo\n  gamma: 0.9",
            [],
            "c.yaml:3: trainer.gamma is now trainer.algorithm.gamma (of gigpo); what an earlier release has begun is continued with that ",
        ),
        ("trainer: {scale_advantages: false}", [], "c.yaml:1: trainer.scale_advantages is now trainer.algorithm=dr_grpo where it is false"),
        ("algorithms: 3", [], "c.yaml:1: algorithms must map names of algorithms to lists of overrides, as in "),
        ("name: a\nalgorithms: {gigpoo: [lr=1]}", [], "c.yaml:2: algorithms.gigpoo: algorithms must map names of algorithms to lists "),
        ("algorithms: {gigpo: lr=1}", [], "c.yaml:1: algorithms.gigpo: algorithms must map names of algorithms to lists of overrides"),
        ("name: a", ["trainr.lr=1"], "override trainr.lr=1: unknown key trainr; did you mean trainer? the top level takes: "),
    ],
)
def test_a_mistake_is_answered_with_place_key_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load("c.yaml", overrides)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
