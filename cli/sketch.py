"""What a plan and an estimate are made from: a recipe, and as much of what it names as is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

from ..agents.agent import agent_on
from ..agents.config import PLAIN
from ..agents.engine import TransformersEngine, in_model
from ..agents.length import UNLIMITED
from ..agents.openai_engine import TextTokenizer
from ..agents.policy import Base
from ..agents.shapes import Outline, outline
from ..agents.trained_sets import select_all
from ..common.errors import NotAtHand, UserError
from ..envs import check_disjoint, load, most_turns
from ..envs.items import Split
from ..envs.pool import open_pool
from ..envs.pool_env import InfrastructureError
from ..trainers.config import Config
from ..trainers.train import Prepared, evaluation_suite, settle

ASSUMED_PROMPT = 1024
"""Tokens of a prompt that cannot be tokenised here, where `agent.max_prompt` does not bound it."""


@dataclass(frozen=True)
class Prompt:
    """The first prompt of a run."""

    tokens: int
    item: str | None = None
    """None: the items are not at hand."""
    text: str | None = None
    """As the model is given it, or without the chat template where the tokenizer is not at hand."""


@dataclass(frozen=True)
class Sketch:
    """A recipe as far as it can be looked into."""

    config: Config
    """With everything in it that a model decides."""
    shape: PreTrainedConfig
    sets: list[str]
    items: dict[str, str]
    """Those of each use, in words."""
    prompt: Prompt
    turns: int
    """Replies of an episode, at most."""
    missing: list[str] = field(default_factory=list)
    """What is not at hand, and what stands in its place."""


def of_prepared(found: Prepared) -> Sketch:
    """Of a recipe whose model and items are loaded. Raises UserError where the first item cannot be begun."""
    config, base = found.config, found.base
    evaluation, most = load(*evaluation_suite(config)), config.eval.items
    prompt = _prompt(config, found.split, in_model(base, config.agent), base.tokenizer)
    sets = [trained.spec for trained in found.sets]
    return Sketch(config, base.model.config, sets, _items(found.split, evaluation, most), prompt, most_turns(config.env))


def of_outline(config: Config, sets: Sequence[str], with_items: bool = True) -> Sketch:
    """Of a recipe whose model is not loaded: its weights are neither read nor fetched, and items may be missing.

    with_items: load the items as far as they are at hand; else prompts are as long as they may be.

    Raises UserError for a model without a known shape, for a set that it does not have, and for whatever is wrong in the recipe.
    """
    found = outline(config.model)
    names = [trained.spec for trained in select_all(found.model, sets)]
    config = settle(config, found.model)
    missing = [f"The model is not loaded: its shape is that of {found.source}"]
    items: dict[str, str] = {}
    split = None
    try:
        if with_items:
            split, evaluation = load(config.env, "train"), load(*evaluation_suite(config))
            check_disjoint(split, evaluation)
            items = _items(split, evaluation, config.eval.items)
    except NotAtHand as error:
        missing.append(f"The items are not at hand: {error}")
    prompt = _outlined_prompt(config, split, found, missing)
    return Sketch(config, found.model.config, names, items, prompt, most_turns(config.env), missing)


def _items(split: Split, evaluation: Split, most: int | None) -> dict[str, str]:
    first = f"the first {most} of " if most else ""
    return {
        "Training": f"{split.name}, {split.size_text}, sha256 {split.digest}",
        "Evaluation": f"{evaluation.name}, {first}{evaluation.size_text}, sha256 {evaluation.digest}",
    }


def _outlined_prompt(config: Config, split: Split | None, found: Outline, missing: list[str]) -> Prompt:
    """The first prompt as far as it is known; what is not is added to `missing`."""
    if split and found.tokenizer:
        base = Base(found.model, found.tokenizer, {})
        return _prompt(config, split, in_model(base, config.agent), found.tokenizer)
    bound = config.agent.max_prompt
    counted = f"agent.max_prompt, {bound} tokens" if bound else f"{ASSUMED_PROMPT} tokens; agent.max_prompt bounds it"
    why = "the tokenizer is not at hand" if split else "no items are loaded"
    missing.append(f"The prompt is not tokenised, since {why}: it is taken to be as long as {counted}")
    tokens = bound or ASSUMED_PROMPT
    if split is None:
        return Prompt(tokens)
    template = PLAIN if config.agent.chat_template == PLAIN else None
    agent = config.agent.model_copy(update={"max_prompt": None, "chat_template": template})  # whose tokens are characters here
    engine = TransformersEngine(found.model, ())
    engine.context = UNLIMITED
    shown = _prompt(config.model_copy(update={"agent": agent}), split, engine, TextTokenizer())
    return Prompt(tokens, shown.item, shown.text)


def _prompt(config: Config, split: Split, engine: TransformersEngine, tokenizer: Any) -> Prompt:
    """The prompt that the first item of the training split begins with. Raises UserError where the item cannot be begun."""
    item = split.items[0].id
    agent = agent_on(engine, tokenizer, config.agent, config.env)
    with open_pool(config.env, "train", config.pool) as pool:
        env = pool.env()
        try:
            turn = env.reset(item, 0).result()
        except InfrastructureError as error:
            raise UserError(f"{split.name}: item {item} cannot be begun: {error}") from error
        finally:
            env.close()
    ids = agent.begin(item, 0).hear(turn.observation, turn.info)
    if ids is None:
        raise UserError(f"{split.name}: the prompt of item {item} is longer than {agent.prompt_limit}")
    return Prompt(len(ids), item, str(tokenizer.decode(ids)))
