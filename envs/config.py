"""Configuration of the environments: which problems, from where, how hard; and of the processes that step them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field, JsonValue, Tag, field_validator


class FieldMapping(BaseModel, extra="forbid", frozen=True):
    """Which keys of a JSON line or data-set row hold what, nested ones joined by dots; null tries the usual names in turn."""

    question: str | None = Field(default=None, description="key of the problem's text (tries question, problem, prompt)")
    answer: str | None = Field(
        default=None, description="key of the gold answer (tries answer, final_answer, gold, reward_model.ground_truth, solution)"
    )
    several: Literal["all", "any"] | None = Field(
        default=None,
        description="what a list under the answer's key means: a response must give all of them, or any one (null: all of final_answer, "
        "any of a ground_truth or of a built-in suite's, else refused)",
    )
    unit: str | None = Field(
        default=None, description="key of the unit that an answer may carry or leave out (tries unit beside final_answer)"
    )
    precision: str | None = Field(
        default=None, description="key of the absolute error within which a number is right (tries error beside final_answer)"
    )
    id: str | None = Field(default=None, description="key of the item's id (default: the file's name and the line number)")


class MathConfig(BaseModel, extra="forbid", frozen=True):
    """`onelayer/Math-v0`: a question, an answer, graded by value."""

    id: Literal["onelayer/Math-v0"] = Field(default="onelayer/Math-v0", description="the Gymnasium id")
    suite: str = Field(
        default="arithmetic",
        description="a built-in suite (arithmetic, gsm8k, math, math500, aime24, aime25, amc23, minerva, olympiadbench, numinamath, "
        "deepscaler, skywork), "
        "a .jsonl file, or hub:OWNER/NAME for a Hugging Face data set; built-in data is found under ONELAYER_DATA, else on the hub",
    )
    size: int | None = Field(default=None, ge=1, description="take the first N items (null: all; arithmetic: 4096 to train, 512 else)")
    difficulty: int = Field(default=3, ge=1, le=12, description="arithmetic: operations in a problem")
    seed: int = Field(default=0, ge=0, description="arithmetic: seed of the generator")
    max_turns: int = Field(default=1, ge=1, description="responses an episode may take; after a wrong one its answer is shown")
    unreadable: Literal["skip", "refuse"] = Field(
        default="skip", description="items whose answer cannot be graded: left out, named and counted, or an error"
    )
    fields: FieldMapping = FieldMapping()


class CodeFields(BaseModel, extra="forbid", frozen=True):
    """Which keys of a JSON line or data-set row hold what; null tries the usual names in turn."""

    prompt: str | None = Field(default=None, description="key of the task's text (tries prompt, question, text, problem, question_content)")
    tests: str | None = Field(
        default=None, description="key of the tests (tries tests, test_list, test, test_code, input_output, private_test_cases)"
    )
    entry_point: str | None = Field(default=None, description="key of the name of the function to write (tries entry_point)")
    solution: str | None = Field(
        default=None, description="key of a solution that passes (tries canonical_solution, solution, code, solutions)"
    )
    id: str | None = Field(
        default=None,
        description="key of the item's id (default: task_id, question_id or problem_id, else the file's name and the line number)",
    )


class CodeConfig(BaseModel, extra="forbid", frozen=True):
    """`onelayer/Code-v0`: write a Python function or program, graded by running it in a sandbox."""

    id: Literal["onelayer/Code-v0"] = Field(default="onelayer/Code-v0", description="the Gymnasium id")
    suite: str = Field(
        default="functions",
        description="a built-in suite (functions, humaneval+, mbpp+), a .jsonl file, or hub:OWNER/NAME or hub:OWNER/NAME:CONFIG for a "
        "Hugging Face data set; the suites of EvalPlus are found under ONELAYER_DATA, else where it releases them",
    )
    size: int | None = Field(default=None, ge=1, description="take the first N items (null: all; functions: 4096 to train, 512 else)")
    seed: int = Field(default=0, ge=0, description="functions: seed of the generator")
    max_turns: int = Field(default=1, ge=1, description="replies an episode may take; after a failing one its first failing test is shown")
    unreadable: Literal["skip", "refuse"] = Field(
        default="skip", description="tasks whose tests cannot be run: left out, named and counted, or an error"
    )
    fields: CodeFields = CodeFields()


class ALFWorldConfig(BaseModel, extra="forbid", frozen=True):
    """`onelayer/ALFWorld-v0`: household tasks as text games."""

    id: Literal["onelayer/ALFWorld-v0"] = Field(default="onelayer/ALFWorld-v0", description="the Gymnasium id")
    suite: Literal["generated", "official"] = Field(
        default="generated", description="games that this package generates, or the official ones under ALFWORLD_DATA"
    )
    size: int | None = Field(default=None, ge=1, description="take the first N games (null: all; generated: 512 to train, 128 else)")
    scene: Literal["full", "small"] = Field(
        default="full", description="generated: all receptacles of a floor plan, or few, for prompts half as long"
    )
    seed: int = Field(default=0, ge=0, description="generated: seed of the generator")
    max_steps: int = Field(default=50, ge=1, description="commands an episode may take")
    strict: bool = Field(
        default=False,
        description="take a command letter by letter, as alfworld does; else one that is spelled otherwise, as in `Go to shelf 1`, is "
        "taken for the possible command that it comes to, where there is exactly one",
    )


class OtherConfig(BaseModel, extra="forbid", frozen=True):
    """Any other environment: one of your own, or a task of reasoning-gym."""

    id: str = Field(description="package.module:namespace/Name-v0 (the module that registers it, and its id), or reasoning_gym:TASK")
    options: dict[str, JsonValue] = Field(default={}, description="further keywords of its constructor, besides split")

    @field_validator("id")
    @classmethod
    def _names_a_module(cls, id: str) -> str:
        module, colon, name = id.partition(":")
        if not (module and colon and name):
            raise ValueError(
                f"no environment {id!r}; there are {', '.join(BUILT_IN)}, package.module:namespace/Name-v0 and reasoning_gym:TASK"
            )
        return id


BUILT_IN: dict[str, type[BaseModel]] = {
    "onelayer/Math-v0": MathConfig,
    "onelayer/Code-v0": CodeConfig,
    "onelayer/ALFWorld-v0": ALFWorldConfig,
}


def model_of(env: object) -> type[BaseModel]:
    """The class that describes an environment, by the `id` in its mapping; without one it is MathConfig."""
    name = env.get("id", "onelayer/Math-v0") if isinstance(env, dict) else getattr(env, "id", None)
    return BUILT_IN.get(name, OtherConfig) if isinstance(name, str) else OtherConfig


EnvConfig = Annotated[
    Annotated[MathConfig, Tag("MathConfig")]
    | Annotated[CodeConfig, Tag("CodeConfig")]
    | Annotated[ALFWorldConfig, Tag("ALFWorldConfig")]
    | Annotated[OtherConfig, Tag("OtherConfig")],
    Discriminator(lambda env: model_of(env).__name__),
]
"""What `env` in a recipe may be; its `id` says which."""


class PoolConfig(BaseModel, extra="forbid", frozen=True):
    """The processes that step environments, and when one counts as broken."""

    workers: int | None = Field(
        default=None, ge=0, le=1024, description="worker processes; 0 steps in this process; null: 0 for onelayer/Math-v0, else one a core"
    )
    step_seconds: float = Field(default=120.0, gt=0, allow_inf_nan=False, description="a reset or step that takes longer has hung")
    memory_gib: float = Field(default=4.0, gt=0, allow_inf_nan=False, description="a worker that takes more memory has a leak")
