"""From a recipe file and `section.key=value` overrides to a valid `Config`, or one line that says what to correct and where."""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..agents.config import prompt_fault
from ..agents.prompts import FOLDER as PROMPTS
from ..common.errors import UserError
from ..common.reading import DEEPEST_YAML, LARGEST_YAML, compose_yaml, read_bytes, yaml_scalar
from ..envs import parse_suite
from ..envs.config import OtherConfig, model_of
from ..trainers.algorithms import ALGORITHMS
from ..trainers.algorithms.earlier import MOVED, upgraded
from ..trainers.algorithms.grpo import GRPO
from ..trainers.algorithms.own import Own
from ..trainers.config import Config
from .reference import allowed, keys

RECIPES = Path(__file__).parent.parent / "configs"
FROM_FILES = ("prompt", "system", "chat_template")
"""Keys of `agent` that take the text of a file."""

ALGORITHM = ("trainer", "algorithm")
"""The section in whose place its name alone may stand."""
Model = TypeVar("Model", bound=BaseModel)
Key = tuple[str | int, ...]
"""Where a value sits: keys of mappings and positions in lists, from the top."""


def load_studies(recipes: Sequence[str | None], overrides: Sequence[str] = ()) -> dict[str, Config]:
    """The studies of some recipes, by name: one for each, or where `study.algorithms` names several, one for each of them.

    What `algorithms` in the recipe's file lists for one of these of the environment and the agent holds for all: otherwise their figures
    could not be compared. Raises UserError as `load` does, and for two studies of one name.
    """
    found: dict[str, Config] = {}
    for recipe in recipes:
        one = load(recipe, overrides)
        names = one.study.algorithms
        made = [load(recipe, [*overrides, f"trainer.algorithm={name}", "study.algorithms=[]"], beside=names) for name in names] or [one]
        alike = len({config.name for config in made}) < len(made)
        for config in made:
            name = f"{config.name}-{re.sub(r'[^A-Za-z0-9_.-]', '-', config.trainer.algorithm.name)}" if alike else config.name
            if name in found:
                raise UserError(f"{recipe}: two of these studies are called {name}; give the recipes different names")
            found[name] = config.model_copy(update={"name": name})
    return found


def load(recipe: str | None, overrides: Sequence[str] = (), earlier: bool = False, beside: Sequence[str] = ()) -> Config:
    """The configuration of `recipe`, a YAML file or the name of one that ships, with the overrides applied in order.

    Without a recipe, the defaults with the overrides. earlier: take the keys of earlier releases too, which recorded configurations have.
    beside: other algorithms that it is to be compared with.

    Raises UserError with file and line (or the override), the key, what was found and what is allowed.
    """
    if recipe is None:
        return compose(overrides)
    path = Path(recipe)
    if not path.is_file():
        path = RECIPES / f"{recipe}.yaml"
    if not path.is_file():
        shipped = ", ".join(
            sorted(
                file.relative_to(RECIPES).with_suffix("").as_posix()
                for file in RECIPES.rglob("*.yaml")
                if file.parent.name not in ("suites", "boards")
            )
        )
        domain, _, algorithm = recipe.partition("/")
        if algorithm in ALGORITHMS and (RECIPES / f"{domain}.yaml").is_file():
            raise UserError(f"{recipe}: the algorithm is an override of the recipe {domain} now: {domain} trainer.algorithm={algorithm}")
        key = f"; a key is written with its value: {recipe}=VALUE" if recipe in dict(keys()) else ""
        raise UserError(f"{recipe}: no such recipe file; give a YAML file or one that ships ({shipped}){key}")
    places: dict[Key, str] = {(): str(path)}
    tree = _parse(read_text(path, "a recipe"), str(path), (), places)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: {'empty' if tree is None else 'not a mapping of keys'}; write for example `trainer: {{lr: 1e-5}}`")
    _apply_needs(tree, overrides, places, beside)
    return _validated(upgraded(tree) if earlier else tree, overrides, places)


def _apply_needs(tree: dict[str, Any], overrides: Sequence[str], places: dict[Key, str], beside: Sequence[str]) -> None:
    """Take `algorithms` out of a recipe file, and apply what it lists for the algorithm that the recipe with all overrides names.

    `algorithms: {gigpo: [env.max_turns=2]}` says what an algorithm needs in this recipe; overrides from elsewhere win over it. In the
    recipe's name, `{algorithm}` stands for the algorithm's. Raises UserError for a list that is none, or of no algorithm.
    """
    needs = tree.pop("algorithms", {})
    trial = copy.deepcopy(tree)
    for override in overrides:
        _override(trial, override, {})
    name = _algorithm(trial)
    if isinstance(recipe := tree.get("name"), str):
        tree["name"] = recipe.replace("{algorithm}", re.sub(r"[^A-Za-z0-9_.-]", "-", name))
    wrong = "must map names of algorithms to lists of overrides, as in `algorithms: {gigpo: [env.max_turns=2]}`"
    if not isinstance(needs, dict):
        raise UserError(f"{places['algorithms',]}: algorithms {wrong}")
    for algorithm, listed in needs.items():
        known = algorithm in ALGORITHMS or ":" in algorithm
        if not known or not isinstance(listed, list) or not all(isinstance(override, str) for override in listed):
            raise UserError(f"{places['algorithms', algorithm]}: algorithms.{algorithm}: algorithms {wrong}")
    for override in (override for other in beside for override in needs.get(other, [])):
        if override.startswith(("env.", "agent.")):
            _override(tree, override, places)
    if name in needs:
        for override in (f"trainer.algorithm={name}", *needs[name]):
            _override(tree, override, places)


def _algorithm(tree: dict[str, Any]) -> str:
    """The name of the algorithm in a recipe; empty where what stands there is none."""
    trainer = tree.get("trainer")
    found = trainer.get("algorithm", {}) if isinstance(trainer, dict) else {}
    found = found.get("name", GRPO().name) if isinstance(found, dict) else found
    return found if isinstance(found, str) else ""


def compose(overrides: Sequence[str]) -> Config:
    """The default configuration with the overrides applied in order. Raises UserError as `load` does."""
    return _validated({}, overrides, {})


def compose_suite(suite: str, overrides: Sequence[str]) -> tuple[Config, str]:
    """The default configuration with the environment that a suite names, and its split; overrides count from there."""
    env, split = parse_suite(suite)
    return compose([f"env={json.dumps(env.model_dump(mode='json'))}", *overrides]), split


def _validated(tree: dict[str, Any], overrides: Sequence[str], places: dict[Key, str]) -> Config:
    for override in overrides:
        _override(tree, override, places)
    _read_texts(tree, places)
    try:
        # Through JSON, because there strict mode takes mappings for sections and text for integer keys, and nothing else.
        return Config.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(_explain(problems[0], tree, places) + more) from error


def read_file(path: Path, what: str, model: type[Model], example: str) -> tuple[Model, dict[Key, str]]:
    """A YAML file that is no recipe, and the place (file and line) of everything in it.

    what: it is, as "a leaderboard run". Raises UserError with file and line, the key, what was found and what is allowed.
    """
    places: dict[Key, str] = {(): str(path)}
    tree = _parse(read_text(path, what), str(path), (), places)
    try:
        return model.model_validate_json(json.dumps(tree), strict=True), places
    except ValidationError as error:
        problem = min(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is missing, too
        key, found = _resolve(problem["loc"], tree)
        place = next(places[key[:depth]] for depth in range(len(key), -1, -1) if key[:depth] in places)
        if problem["type"] == "extra_forbidden":
            raise UserError(f"{place}: unknown key {_dotted(key)}; {what} has {example}") from error
        where = ".".join(map(str, problem["loc"])) if problem["type"] == "missing" else _dotted(key)
        message = "is missing" if problem["type"] == "missing" else f"is wrong ({problem['msg']}), found {_short(found)}"
        raise UserError(f"{place}: {where or what} {message}; {what} has {example}") from error


def _override(tree: dict[str, Any], override: str, places: dict[Key, str]) -> None:
    dotted, equals, text = override.partition("=")
    where = f"override {override if len(override) <= 100 else override[:97] + '...'}"
    if not equals or not all(dotted.split(".")) or dotted.count(".") > DEEPEST_YAML:
        raise UserError(f"{where}: write SECTION.KEY=VALUE, for example trainer.lr=1e-5")
    *sections, last = key = tuple(dotted.split("."))
    for place in [place for place in places if place[: len(key)] == key]:
        del places[place]
    for depth, section in enumerate(sections, 1):
        if key[:depth] == ALGORITHM and isinstance(tree.get(section), str):
            tree[section] = {"name": tree[section]}
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
            places[key[:depth]] = where
        tree = tree[section]
    value = _parse(text, where, key, places, lines=False)
    if key == ALGORITHM and isinstance(value, str) and isinstance(tree.get(last), dict) and tree[last].get("name") == value:
        return  # named already, with some of its keys
    tree[last] = value


def _read_texts(tree: dict[str, Any], places: dict[Key, str]) -> None:
    """Put the text of a file in the place of `{file: PATH}`, where a key takes one: what is resolved does not depend on the file any more.

    Raises UserError with the file and, where a brace is wrong in a prompt, the line.
    """
    agent = tree.get("agent")
    if not isinstance(agent, dict):
        return
    for name in FROM_FILES:
        if isinstance(found := agent.get(name), dict):
            agent[name] = _read_file(found, ("agent", name), places)


def _read_file(found: dict[str, Any], key: Key, places: dict[Key, str]) -> str:
    dotted = _dotted(key)
    if list(found) != ["file"] or not isinstance(found["file"], str):
        wrong = (*key, next((name for name in found if name != "file"), "file"))
        raise UserError(f"{places.get(wrong, places[key])}: {dotted} must be text, {{file: PATH}} or null, found {_short(found)}")
    place, path = places[*key, "file"], Path(found["file"])
    if not path.is_file() and (shipped := PROMPTS / f"{found['file']}.txt").is_file() and key[-1] == "prompt":
        path = shipped
    if not path.is_file():
        raise UserError(f"{place}: {dotted}.file: no file {path}; a path counts from the working directory, {Path.cwd()}")
    text = read_text(path, "a prompt" if key[-1] == "prompt" else "it").removesuffix("\n")
    fault = prompt_fault(text) if key[-1] == "prompt" else None
    places[key] = f"{path}:{fault[0]}" if fault else str(path)
    return text


def read_text(path: Path, what: str) -> str:
    """A short text file. Raises UserError for another, calling it `what`."""
    try:
        return read_bytes(path, LARGEST_YAML).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; {what} is a text file") from error


def _parse(text: str, where: str, key: Key, places: dict[Key, str], lines: bool = True) -> Any:
    try:
        node = compose_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark and lines else where
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        hint = "; YAML indents with spaces, never tabs" if "'\\t'" in reason else ""
        raise UserError(f"{place}: not valid YAML: {reason}{hint}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {error}") from error
    return None if node is None else _value(node, where, key, places, lines)


def _value(node: yaml.Node, where: str, key: Key, places: dict[Key, str], lines: bool) -> Any:
    """The node as plain Python; notes the place of everything in it."""
    place = f"{where}:{node.start_mark.line + 1}" if lines else where
    if key:
        places.setdefault(key, place)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, where, (*key, index), places, lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for name, item in node.value:
            place = f"{where}:{name.start_mark.line + 1}" if lines else where
            if not isinstance(name, yaml.ScalarNode):
                raise UserError(f"{place}: a key must be a word")
            if name.value in mapping:
                raise UserError(f"{place}: duplicate key {_dotted((*key, name.value))}, already at {places[*key, name.value]}; keep one")
            places[*key, name.value] = place
            mapping[name.value] = _value(item, where, (*key, name.value), places, lines)
        return mapping
    return _scalar(node, f"{place}: {_dotted(key)}")


def _scalar(node: yaml.Node, where: str) -> Any:
    assert isinstance(node, yaml.ScalarNode)
    try:
        found = yaml_scalar(node)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if isinstance(found, float) and not math.isfinite(found):
        raise UserError(f"{where} is {node.value}; every number must be finite")
    return found


# Saying what is wrong.


def _explain(problem: Any, tree: dict[str, Any], places: dict[Key, str]) -> str:
    """One line for a pydantic error: place, key, what was found, what is allowed."""
    key, found = _resolve(problem["loc"], tree)
    place = next((places[key[:depth]] for depth in range(len(key), -1, -1) if key[:depth] in places), "")
    known = dict(keys(chosen={model_of(tree.get("env", {})), ALGORITHMS.get(_algorithm(tree), Own)}))
    dotted = _dotted(key)
    if problem["type"] == "extra_forbidden" and dotted in MOVED:
        return f"{place}: {dotted} is now {MOVED[dotted]}; what an earlier release has begun is continued with that release"
    env = tree.get("env")
    if problem["type"] == "extra_forbidden" and key[:-1] == ("env",) and isinstance(env, dict) and model_of(env) is OtherConfig:
        remedy = f"env={{id: {_short(env['id'])}}} leaves out the recipe's other keys of env"
        return f"{place}: {dotted} is not a key of the environment {env['id']}; {remedy}"
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key {dotted}; {_alternatives(dotted, known)}"
    field = next((name for depth in range(len(key), 0, -1) if (name := _dotted(key[:depth])) in known), None)
    if problem["type"] in ("value_error", "assertion_error") or field is None:
        message = str(problem.get("ctx", {}).get("error", problem["msg"]))
        return ": ".join(part for part in (place, dotted, message) if part)
    where = "" if field == dotted else f" at {dotted}"
    return f"{place}: {field} must be {allowed(known[field])}, found {_short(found)}{where}"


def _resolve(loc: Iterable[str | int], tree: Any) -> tuple[Key, Any]:
    """Where in `tree` a pydantic location points, without the names that it adds for members of a union, and what is there."""
    key: list[str | int] = []
    for part in loc:
        try:
            tree = tree[part]
        except (KeyError, IndexError, TypeError):
            continue
        key.append(part)
    return tuple(key), tree


def _alternatives(dotted: str, known: Iterable[str]) -> str:
    section, _, name = dotted.rpartition(".")
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    everywhere = {key.rpartition(".")[2]: key for key in known}
    near = [names[match] for names in (siblings, everywhere) for match in difflib.get_close_matches(name, names, n=1)]
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}{section or 'the top level'} takes: {', '.join(siblings)}" if siblings else f"{guess}{section} takes no keys"


def _dotted(key: Key) -> str:
    return ".".join(map(str, key))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
