"""How many tokens a reply may have where the recipe does not say (`agent.max_tokens: null`), and how many remain for the prompt.

The rule knows the model and the suite. Whatever is measured or trained under it holds the number: the run's config.yaml and the manifests.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from ..common.errors import UserError
from ..envs.config import EnvConfig
from .config import AgentConfig

SMALL_MODEL = 10_000_000
"""Parameters below which a model is one like the tiny bases, whose replies are a line long."""
SMALL_LENGTH = 40
MATH_LENGTH = 2048  # the default of `--max_tokens_per_call` in evaluation/math_eval.py of QwenLM/Qwen2.5-Math
CODE_LENGTH = 768  # the default of `max_new_tokens` in evalplus/provider/base.py, EvalPlus 0.3.1
LENGTHS = {
    **dict.fromkeys(("math", "math500", "aime24", "aime25", "amc23"), MATH_LENGTH),
    **dict.fromkeys(("humaneval+", "mbpp+"), CODE_LENGTH),
}
"""By suite, for larger models; any other has OTHER_LENGTH."""
OTHER_LENGTH = 512

UNLIMITED = 1 << 30
"""Tokens that no prompt has."""
TOKENLESS = AgentConfig(max_tokens=40)
"""The configuration of a player that samples no tokens; the number stands in the keys of its samples."""


def with_length(config: AgentConfig, model: PreTrainedModel | None, *envs: EnvConfig) -> AgentConfig:
    """The configuration with `max_tokens` as a number: the one given, else the longest that the rule has for the environments.

    model: null where it is not here, but behind an endpoint. Raises UserError where such a reply leaves no token for the prompt.
    """
    found = config if config.max_tokens is not None else config.model_copy(update={"max_tokens": _default(model, *envs)})
    if model is not None:
        left_for_prompts(context_of(model), found.reply_length)
    return found


def left_for_prompts(context: int, reply_length: int) -> int:
    """Most tokens of a prompt, beside a reply as long. Raises UserError where there are none."""
    if context >= UNLIMITED:
        return UNLIMITED
    if reply_length >= context:
        raise UserError(
            f"agent.max_tokens is {reply_length}, and the model takes {context} tokens, prompt and reply together, which leaves no token "
            f"for the prompt; set it to {max(1, context // 2)} or less, or take a model with a longer context"
        )
    return context - reply_length


def context_of(model: PreTrainedModel) -> int:
    """Tokens that the model takes, prompt and reply together."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", UNLIMITED)


def _default(model: PreTrainedModel | None, *envs: EnvConfig) -> int:
    if model is None:
        return max(_by_suite(env) for env in envs)
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL
    length = SMALL_LENGTH if small else max(_by_suite(env) for env in envs)
    return max(1, min(length, context_of(model) // 2))  # as much is left for the prompt


def _by_suite(env: EnvConfig) -> int:
    return LENGTHS.get(getattr(env, "suite", ""), OTHER_LENGTH)
