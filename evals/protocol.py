"""How a policy was measured: what two measurements must agree in before they are pooled, paired or subtracted.

Everything that an outcome rests on besides the policy is one hash, made of what an evaluation's manifest and its configuration record, so
every evaluation has it, those of earlier versions too. The base is compared apart, by its fingerprint and its tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import JsonValue

from ..agents.config import SERVER, engine_row, history
from ..common.text import counted
from .records import Decoding, Evaluation, Source

UNTRAINED = "none"
"""Base fingerprint of policies without a model here: endpoints, rules, responses made elsewhere."""
OUTSIDE = {
    "name": "it names directories",
    "model.path": "it names the base, whose fingerprint is compared apart",
    "model.trust_remote_code": "whose code ran is part of the base, whose fingerprint is compared apart",
    "model.device": "a sample's seed fixes its tokens, wherever they are computed",
    "env.suite": "it names items, and the digest of the items is in the protocol",
    "env.size": "as env.suite",
    "env.fields": "as env.suite",
    "env.unreadable": "as env.suite: what is skipped is no item",
    "pool": "where environments run, and when one counts as failed: failures are counted and shown",
    "agent.temperature": "of training; an evaluation samples at eval.temperature",
    "agent.max_batch": "a sample's seed fixes its tokens, whatever is decoded beside it",
    "agent.kv_cache_gib": "memory; where it shortens the longest prompt, the recorded tokenizer and prompt limit differ",
    "trainer": "it makes the policy",
    "study": "it says which policies are made, and how many samples the base gets",
    "eval.suite": "as env.suite",
    "eval.items": "as env.suite",
    "eval.n": "the n-th sample of an item has the same seed in every evaluation, so more samples are more of the same",
    "eval.max_tokens": "the agent.max_tokens of an evaluation's configuration is this one where it is given",
    "eval.every": "of the curve of a training run, which has a panel of its own",
    "eval.panel_items": "as eval.every",
    "eval.panel_n": "as eval.every",
    "eval.keep_best": "as eval.every",
    "eval.endpoint": "it names the policy",
}
"""Keys and sections of a recipe that are no part of the protocol, with the reason. Every other key of env, agent and model is."""
EVERYTHING = {"top_p": 1.0, "top_k": 0}
"""What of `eval` keeps replies to some tokens, with the value that leaves them all."""
SECTIONS = ("env.", "agent.", "model.")
"""Sections of a recipe that episodes may rest on."""
NOUNS = {"max_tokens": "token", "env.max_turns": "turn", "env.max_steps": "step"}
"""What a number counts, in labels."""
LONGEST = 32
"""Characters of a value in a label: of a longer one, and of one with line breaks, a label has a hash."""
TOKENIZER, UNRECORDED = "tokenizer or longest prompt", "settings"

Settings = Mapping[str, JsonValue]


@dataclass(frozen=True)
class Protocol:
    """How one policy was measured under one decoding."""

    levels: Sequence[Settings]
    """Names and values: what bears on every policy; what bears on one that reads prompts; what bears on a model here."""
    base: str
    """Fingerprint of the base."""
    tokenizer: str
    """How the base reads prompts; empty: not recorded, or there is no base."""

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all levels: measurements with the same one are measured alike."""
        return fingerprint(*self.levels)

    def differing(self, other: Protocol) -> list[str]:
        """Names of what the two were measured with differently, as far as it bears on both; empty: they may be compared."""
        found = []
        for mine, theirs in zip(self.levels, other.levels, strict=False):
            found += [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if self.base == other.base and self.tokenizer and other.tokenizer and self.tokenizer != other.tokenizer:
            found.append(TOKENIZER)
        return found

    @property
    def settings(self) -> Settings:
        """All that the hash is made of, by name."""
        return {name: value for level in self.levels for name, value in level.items()}


def protocol(seen: Evaluation, decoding: Decoding = Decoding.SAMPLED) -> Protocol:
    """Of an evaluation. Greedy replies have no temperature; a policy that reads no prompt has no settings of prompts, and one that is no
    model here none of its engine. An evaluation whose settings are not recorded is measured like no other one."""
    recorded = recipe_settings(flatten(seen.config))
    everybody: dict[str, JsonValue] = {"split": seen.split, "items": [seen.items, seen.digest], "evaluation seed": seen.seed}
    everybody |= {name: value for name, value in recorded.items() if name.startswith("env.")}
    if "env.id" not in recorded:
        everybody[UNRECORDED] = seen.samples_sha256 or seen.finished  # equal to those of no other evaluation
    reading = {name: value for name, value in recorded.items() if name.startswith("agent.") and name != "agent.engine"}
    reading |= {"prompt": seen.prompt, "max_tokens": seen.max_tokens}
    if decoding is Decoding.SAMPLED:
        reading |= {"temperature": seen.temperature} | _restrictions(flatten(seen.config))
    engine = {name: value for name, value in recorded.items() if name == "agent.engine" or name.startswith("model.")}
    known = 2 if seen.source is Source.ENDPOINT else 1 if seen.base == UNTRAINED else 3
    return Protocol((everybody, reading, engine)[:known], seen.base, "" if seen.base == UNTRAINED else seen.tokenizer)


def recipe_settings(recipe: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Of a recipe with dotted keys those that episodes rest on. What is null or empty, or did not exist then, is left out."""
    given = {key: value for key, value in recipe.items() if value not in (None, [], {}) and key.startswith(SECTIONS)}
    found = {key: value for key, value in given.items() if not is_outside(key)}
    if any(key.startswith("agent.") for key in recipe):
        found["agent.history"] = history(found.get("agent.history"), str(found.get("env.id")))
    if engine_row(str(found.get("agent.engine"))) == SERVER:
        found["agent.engine"] = "vllm"  # the same wherever it runs
    return {key.removeprefix("agent.") if key in ("agent.prompt", "agent.max_tokens") else key: value for key, value in found.items()}


def _restrictions(recipe: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Of a recipe with dotted keys what keeps its sampled replies to some tokens."""
    found = {name: recipe.get(f"eval.{name}", all_tokens) for name, all_tokens in EVERYTHING.items()}
    return {name: value for name, value in found.items() if value != EVERYTHING[name]}


def training_settings(recipe: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The same for the episodes of a training run, which are sampled at a temperature of their own."""
    return recipe_settings(recipe) | {"temperature": recipe.get("agent.temperature")}


def is_outside(key: str) -> bool:
    """Whether a key, or a section that it is in, is one of `OUTSIDE`."""
    parts = key.split(".")
    return any(".".join(parts[:length]) in OUTSIDE for length in range(1, len(parts) + 1))


def who(seen: Evaluation) -> tuple[object, ...]:
    """The policy that was measured. One without a base is told from others of its name by the protocol that its samples' keys rest on,
    which holds an endpoint's address and the hash of a file of responses."""
    return (seen.source, seen.policy, seen.base, *seen.patches, seen.protocol if seen.base == UNTRAINED else "")


def labels(measured: Sequence[Sequence[Settings]]) -> list[str]:
    """What sets each apart from the others that have the same levels, as "2 turns"; empty where nothing does."""
    found: list[list[str]] = [[] for _ in measured]
    for depth in range(max(map(len, measured), default=0)):
        there = {at: levels[depth] for at, levels in enumerate(measured) if depth < len(levels)}
        for name in dict.fromkeys(name for settings in there.values() for name in settings):
            if len({_text(settings.get(name)) for settings in there.values()}) > 1:
                for at, settings in there.items():
                    found[at].append(_label(name, settings.get(name)))
    return [", ".join(filter(None, texts)) for texts in found]


def _label(name: str, value: JsonValue) -> str:
    if name == UNRECORDED:
        return "" if value is None else f"{name} not recorded"
    if name == "items" and isinstance(value, list):
        return f"{value[0]} items {str(value[1])[:8]}"
    if value is None:
        return f"no {name}"
    if name in NOUNS and isinstance(value, int):
        return counted(value, NOUNS[name])
    text = _text(value)
    return f"{name} {text if len(text) <= LONGEST and text.isprintable() else fingerprint(text)[:8]}"


def _text(value: JsonValue) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def algorithm_of(trainer: Mapping[str, Any]) -> str | None:
    """The algorithm's name in the section `trainer` of a recipe as files hold it: alone, or among the algorithm's keys."""
    found = trainer.get("algorithm")
    found = found.get("name") if isinstance(found, Mapping) else found
    return found if isinstance(found, str) else None


def section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration or manifest; empty where it is not there, or no mapping: files may hold anything."""
    found = tree.get(name)
    return found if isinstance(found, Mapping) else {}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def fingerprint(*parts: object) -> str:
    """SHA-256 of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
