"""Templates of user messages: a file for each built-in environment, and what puts an observation in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def default_prompt(env_id: str) -> str:
    """The template for an environment: its file in agents/prompts, else the observation alone."""
    path = FOLDER / f"{env_id.rpartition('/')[2]}.txt"
    return path.read_text(encoding="utf-8") if path.exists() else "{observation}"


def fill(prompt: str, observation: str, info: Mapping[str, Any], task: str, past: Iterable[tuple[str, str]] = ()) -> str:
    """The prompt template with everything in its place; `past` are the pairs of observation and action to show."""
    history = "".join(f"Observation: {seen}\nAction: {done}\n" for seen, done in past)
    return prompt.format(observation=observation, task=task, history=history, admissible=listed(info))


def listed(info: Mapping[str, Any]) -> str:
    """The admissible actions in one line."""
    return ", ".join(info.get("admissible", ()))
