"""Configuration of who acts: the model, its numeric format, the prompt and the sampling."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from string import Formatter
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from ..envs.config import model_of

PLACES = ("observation", "task", "history", "admissible")
PLAIN = "none"
"""The value of `agent.chat_template` for prompts without one."""
SERVER = "URL"
ENGINES = {
    "transformers": "engine:in_model",
    "vllm": "vllm_engine:in_process",
    SERVER: "vllm_engine:on_server",
}
"""The module beside this one and the function in it that makes an engine of a base and an `AgentConfig`."""
OWN_ENGINE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def sees_gpu() -> bool:
    """Whether there is an NVIDIA GPU. Asks the driver's own library: importing torch takes seconds, and a recipe is read first."""
    count = ctypes.c_uint()
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
        counted = driver.nvmlInit_v2() == 0 and driver.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    except (OSError, AttributeError):  # no driver, or one without these functions
        return False
    return counted and count.value > 0 and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def default_dtype(fields: Mapping[str, Any]) -> Literal["float32", "bfloat16"]:
    """Of a model, by the fields before it."""
    device = fields.get("device", "auto")
    return "bfloat16" if device.startswith("cuda") or (device == "auto" and sees_gpu()) else "float32"


class ModelConfig(BaseModel):
    """The base model. `tiny` ships with the package, and so does `tiny-alfworld`, which is better at ALFWorld and knows little else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(default="tiny", description="tiny, tiny-alfworld, a directory, or a Hugging Face hub name")
    device: str = Field(default="auto", description="auto (cuda if there is one, else cpu), cpu, cuda or cuda:N")
    dtype: Literal["float32", "bfloat16"] = Field(
        default_factory=default_dtype,
        description="numeric format of the forward pass; trained weights keep a float32 master. On a GPU the default is bfloat16",
    )
    quantization: Literal["int8", "nf4", "gguf"] | None = Field(
        default=None,
        description="how frozen weights are kept in memory: int8, nf4 (linear maps and embeddings, quantised when the model is loaded; nf4 "
        "needs the extra [quantized]), or gguf, the blocks of a .gguf file as it stores them; what is trained is unpacked (null: in "
        "model.dtype)",
    )
    trust_remote_code: bool = Field(
        default=False, description="run the Python code that comes with the model; only for a model whose authors you trust"
    )


class AgentConfig(BaseModel):
    """How an observation becomes a prompt, and how long a reply may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(
        default=None,
        description="user message; {observation} is replaced by what the environment says, and where there are such {task}, {history} "
        "and {admissible}; {file: PATH} takes the text of that file, from the working directory or of agents/prompts (no, r1, qwen_math), "
        "without a last line break; a run's config.yaml holds the text (null: the environment's file in agents/prompts)",
    )
    system: str | None = Field(
        default=None, min_length=1, description="system message before the user's; {file: PATH} as in agent.prompt (null: none)"
    )
    chat_template: str | None = Field(
        default=None,
        min_length=1,
        description="Jinja chat template, as text or {file: PATH}; none: prompts are plain text (null: the model's own)",
    )
    template_options: dict[str, JsonValue] = Field(
        default={}, description="variables that the chat template is given, for example {enable_thinking: false}"
    )
    stop: list[Annotated[str, Field(min_length=1)] | Annotated[int, Field(ge=0)]] = Field(
        default=[],
        description="what ends a reply besides the model's own end tokens: texts, which the reply's text does not hold any more, "
        "and numbers of tokens",
    )
    history: Annotated[int, Field(ge=0)] | Literal["full"] | None = Field(
        default=None,
        description="past turns that a prompt shows, each step a prompt of its own; full: one conversation that grows "
        "(null: 2 for ALFWorld, 0 for math and code, whose observations repeat what is needed, else full)",
    )
    max_prompt: int | None = Field(
        default=None,
        ge=1,
        description="most tokens of a prompt (null: what the model takes); a longer one loses its oldest turns, "
        "and where that is not enough the episode ends",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="most new tokens of one reply (null: by model and suite, docs/evaluation.md; config.yaml and manifests hold it)",
    )
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="sampling temperature while training")
    max_batch: int = Field(default=256, ge=1, description="most sequences decoded together")
    engine: str = Field(
        default="transformers",
        description="what makes the tokens: transformers (the model in training itself), vllm (in this process), a vLLM server's URL, or "
        "package.module:Class, an engine of your own (docs/adding-an-engine.md)",
    )
    kv_cache_gib: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="memory for keys and values of vllm in this process")

    @property
    def reply_length(self) -> int:
        """`max_tokens`, once it is a number (`length.with_length`)."""
        if self.max_tokens is None:
            raise ValueError("agent.max_tokens is null, and no model has been asked for its number")
        return self.max_tokens

    @field_validator("engine")
    @classmethod
    def _is_an_engine(cls, engine: str) -> str:
        if engine_row(engine) is None and not OWN_ENGINE.fullmatch(engine):
            names = ", ".join(name for name in ENGINES if name != SERVER)
            raise ValueError(f"no engine {engine[:60]!r}; give {names}, the URL of a vLLM server or package.module:Class")
        return engine

    @field_validator("prompt")
    @classmethod
    def _names_the_observation(cls, prompt: str | None) -> str | None:
        if prompt is not None and (fault := prompt_fault(prompt)):
            raise ValueError(fault[1])
        return prompt


class EndpointConfig(BaseModel):
    """A server of OpenAI's chat completions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="address up to and with /v1; the requests go to URL/chat/completions")
    key_variable: str | None = Field(
        default=None,
        description="environment variable that holds the API key (null: none is sent); the key is never written",
    )
    concurrency: int = Field(default=16, ge=1, description="most requests at once")
    timeout_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False, description="of one request")
    attempts: int = Field(
        default=8, ge=1, description="times that a request is sent before the evaluation stops; the same command continues it"
    )
    body: dict[str, JsonValue] = Field(
        default={}, description="further keys of every request, for example {top_k: -1}; null leaves one of ours out"
    )

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be http://HOST/v1 or https://HOST/v1")
        if parts.username or parts.password:
            raise ValueError("holds a password, which would be written to the manifest; name a variable with key_variable")
        return url.rstrip("/")


def prompt_fault(prompt: str) -> tuple[int, str] | None:
    """Line (from 1) and reason why a template cannot be used; None where it can."""
    named = ", ".join(f"{{{place}}}" for place in PLACES)
    shows = False
    for number, line in enumerate(prompt.split("\n"), 1):
        try:
            for _, field, form, conversion in Formatter().parse(line):
                if field is not None and (field not in PLACES or form or conversion):  # a form may ask for any width
                    raise ValueError(field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else ""))
            one, two = (line.format(**dict.fromkeys(PLACES, "one") | {"observation": seen}) for seen in ("one", "two"))
        except ValueError as error:
            return number, f"only {named} may stand in braces, and literal braces are written twice ({error!r})"
        shows = shows or one != two
    remedy = f"; to take the text of a file, give agent.prompt.file={prompt[:60]}" if re.fullmatch(r"\S*[/.]\S+", prompt) else ""
    return None if shows else (1, f"without {{observation}}, where the question belongs{remedy}")


def engine_row(engine: str) -> str | None:
    """The row of `ENGINES` that makes it; None: it is a user's own."""
    if engine.startswith(("http://", "https://")):
        return SERVER
    return engine if engine in ENGINES and engine != SERVER else None


def history(wanted: int | Literal["full"] | None, env_id: str) -> int | Literal["full"]:
    """What `agent.history` stands for in an environment: as it is, and where it is null the environment's own."""
    return model_of({"id": env_id}).HISTORY if wanted is None else wanted
