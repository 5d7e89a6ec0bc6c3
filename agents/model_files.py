"""What others made of a model's directory, looked at before it is used: sizes before memory is taken for them, and the chat template, which
is a program, in a process of its own."""

from __future__ import annotations

import functools
import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from ..common.errors import UserError
from ..common.reading import read_json_object, safetensors_header
from .config import AgentConfig

JSON_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "chat_template.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
LARGEST_JSON = 256 << 20  # bytes; a tokenizer of 250,000 tokens has some 30 MiB
LARGEST_SIZES = {
    "vocab_size": 1 << 24,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 22,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 14,
    "num_key_value_heads": 1 << 14,
    "head_dim": 1 << 16,
    "max_position_embeddings": 1 << 30,
}
"""The sizes of a configuration, and the most that each may be."""
LARGEST_TOKEN = 1 << 31
LONGEST_REPLACEMENT = 1000  # characters that a tokenizer puts in the place of others
RESERVED = frozenset(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters) | {"messages"}
"""Names that a variable of a template cannot have."""
TEMPLATE_SECONDS = 60.0
"""Wall clock; the process limits its own processor time, which does not depend on how busy the machine is."""


def check_device(name: str) -> str:
    """The device that `model.device` stands for. Raises UserError where there is none."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
            raise ValueError("this program takes no such device")
        torch.empty(0, device=name)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:100]
        raise UserError(f"model.device: no device {name!r} here ({reason}); give auto, cpu, cuda or cuda:N") from error
    return name


def check_files(path: Path, has_code: bool = False) -> None:
    """Look at the files of a directory that hold sizes. Whatever else they hold is for transformers to refuse.

    Raises UserError with the file for what is damaged, cut, too large or nested too deeply, is no regular file or named outside of the
    directory, and for a configuration that asks for more than twice the weights that are there.
    """
    if not (path / "config.json").exists():
        raise UserError(f"model.path: {path} has no config.json; name a directory that a model was saved in")
    if odd := next((file for file in sorted(path.iterdir()) if not file.is_file() and not file.is_dir()), None):
        raise UserError(f"{odd}: no regular file; remove it")
    found = {name: read_json_object(path / name, LARGEST_JSON) for name in JSON_FILES if (path / name).exists()}
    for name in ("config.json", "generation_config.json"):
        _check_numbers(path / name, found.get(name, {}))
    for name in (name for name in found if name.endswith(".index.json")):
        _check_index(path / name, found[name].get("weight_map"))
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        _check_replacements(path / "tokenizer.json", found.get("tokenizer.json", {}).get(name))
    headers = [safetensors_header(file) for file in sorted(path.glob("*.safetensors"))]
    if (
        headers and not has_code and "quantization_config" not in found.get("config.json", {})
    ):  # which packs several weights into one number
        there = sum(math.prod(entry["shape"]) for header in headers for name, entry in header.items() if name != "__metadata__")
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        with torch.device("meta"):
            wanted = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config, trust_remote_code=False).parameters())
        if wanted > 2 * there:
            raise UserError(f"{path}: config.json describes {wanted} weights, and {there} are in its files; fetch the directory again")


def _check_index(path: Path, parts: object) -> None:
    """The files that an index names lie beside it."""
    names = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
    wrong = [name for name in sorted(names) if Path(name).name != name or not (path.parent / name).is_file()]
    if wrong:
        raise UserError(f"{path}: names {wrong[0][:100]!r}, and no such file is beside it; fetch the directory again")


def _check_replacements(path: Path, section: object) -> None:
    """What a part of a tokenizer puts into every text is short."""
    if isinstance(section, dict) and any(len(str(section.get(key, ""))) > LONGEST_REPLACEMENT for key in ("content", "prepend")):
        raise UserError(f"{path}: puts more than {LONGEST_REPLACEMENT} characters in the place of some; fetch the file again")
    for part in section.values() if isinstance(section, dict) else section if isinstance(section, list) else ():
        _check_replacements(path, part)


def _check_numbers(path: Path, found: dict[str, Any]) -> None:
    for section in (found, *(part for part in found.values() if isinstance(part, dict))):
        for name, largest in LARGEST_SIZES.items():
            _check_number(path, section, name, 1, largest)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            _check_number(path, section, name, -1, LARGEST_TOKEN)


def _check_number(path: Path, section: dict[str, Any], name: str, least: int, most: int) -> None:
    value = section.get(name)
    for one in value if isinstance(value, list) else [value]:
        if one is not None and (not isinstance(one, int) or isinstance(one, bool) or not least <= one <= most):
            raise UserError(f"{path}: {name} is {str(one)[:40]!r}, and must be an integer from {least} to {most}; fetch the file again")


def check_template(tokenizer: PreTrainedTokenizerBase, config: AgentConfig | None = None) -> None:
    """Render two short conversations with the chat template, in a process of its own with little time and memory.

    config: with the template, the system message and the options that it names; null: the model's own template alone.

    Raises UserError where that fails. A template that misbehaves with some texts alone is not found out.
    """
    given = config or AgentConfig()
    if given.chat_template is None and tokenizer.chat_template is None:
        return
    if taken := sorted(RESERVED & given.template_options.keys()):
        raise UserError(f"agent.template_options: {taken[0]} is not a variable of a template, but the program's own; leave it out")
    try:
        template = given.chat_template or tokenizer.get_chat_template()
    except ValueError as error:
        raise UserError(f"model.path: the model has no chat template that could be chosen ({str(error)[:200]})") from error
    special = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    told = {"template": template, "special": special, "system": given.system, "options": given.template_options}
    _render(json.dumps(told), "agent.chat_template: it" if given.chat_template else "model.path: the chat template of the model")


@functools.lru_cache(maxsize=64)
def _render(told: str, what: str) -> None:
    command = [sys.executable, "-m", f"{__package__}.template_process"]
    try:
        done = subprocess.run(command, input=told.encode(), capture_output=True, timeout=TEMPLATE_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{what} does not end; take another template") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200] if done.returncode == 1 else "it took too long"
        raise UserError(f"{what} cannot be used ({reason}); take another template")
