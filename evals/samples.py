"""A sample with its whole episode, and the parquet files that hold samples: of an evaluation, and of a training run.

docs/run-store.md describes every column.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator

from ..agents.verdicts import CORRECT
from ..common.errors import UserError, first_problem
from ..common.files import write_atomically
from ..common.reading import open_regular
from ..envs.pool_env import ACTION_ERROR

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..agents.agent import Player
    from ..agents.episodes import Episode

SAMPLES = "samples.parquet"
ROWS_PER_GROUP = 4096
LARGEST_TABLE = 1 << 22
"""Rows of a file of samples. A file of half a megabyte can hold ten million empty ones, which take gigabytes as records."""
Reader = Callable[[Sequence[int]], str]
"""Turns a prompt's tokens into text."""


class SampleStep(BaseModel):
    """One turn of an episode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    observation: str = Field(description="what the environment said, which this step answers")
    prompt: str = Field(description="all that the model read, special tokens included")
    response: str = Field(description="what it wrote, without special tokens")
    action: str = Field(description="what the environment played of it")
    reward: float = Field(description="what the environment paid")
    truncated: bool | None = Field(description="the response reached max_tokens without an end; null: not measured")
    valid: bool | None = Field(description="the environment took the action for one of its own; null: not measured")
    corrected: bool | None = Field(
        default=False,
        description="it was spelled otherwise than the environment has it, and played as what it stands for; null: not measured",
    )
    token_ids: list[int] | None = Field(description="the sampled tokens; null where only text came back")
    advantage: float | None = Field(default=None, description="in training, where anything was learned from it; else null")


class Sample(BaseModel):
    """One reply to one item."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(description="what the sample depends on, as a hash: equal keys are the same sample")
    decoding: str = Field(description="sampled or greedy")
    item: str = Field(description="id of the item in the split")
    type: str | None = Field(description="kind of task, where items have one")
    sample: int = Field(ge=0, description="index of the sample within its item")
    seed: int = Field(ge=0, description="seed that fixed its tokens: the same for every policy")
    env_seed: int = Field(ge=0, description="seed of the environment: the same for all samples of an item")
    verdict: str = Field(
        description="the environment's last one; where it gives none, correct for a reward of 1 and wrong for less; error: it was lost"
    )
    reward: float = Field(description="what the environment paid, the sum over the steps: 1 is solved; 0 where it was lost")
    answer: str | None = Field(description="the answer found in the response; null where none was")
    tokens: int | None = Field(ge=0, description="tokens of the response; null: not counted")
    truncated: bool | None = Field(description="a response reached max_tokens without an end; null: not measured")
    error: str | None = Field(description="how the sample was lost, where the environment or an endpoint failed")
    ending: str = Field(description="what the environment said last")
    gold: str | None = Field(default=None, description="the right answer, where the environment tells it after a step; never in a prompt")
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = Field(
        default=None,
        description="the environment's own figures by name (parts of the reward), summed over the steps; null: it has none",
    )
    steps: Annotated[list[SampleStep], FailFast()] = Field(description="the episode")

    @field_validator("metrics", mode="before")
    @classmethod
    def _of_pairs(cls, found: Any) -> Any:
        """Parquet holds a mapping as a list of pairs."""
        return dict(found) if isinstance(found, list) else found

    @property
    def correct(self) -> bool:
        return self.verdict == CORRECT

    @property
    def failed(self) -> bool:
        """Whether the environment (or the endpoint) failed, and with it the sample or, where the action is to blame, the step."""
        return self.error is not None or self.verdict == ACTION_ERROR


def prompt_reader(agent: Player) -> Reader:
    """Prompts as text, each that comes again decoded once; empty for who reads none."""
    tokenizer = getattr(agent, "tokenizer", None)
    if tokenizer is None:
        return lambda token_ids: ""

    @lru_cache(maxsize=1024)
    def read(token_ids: tuple[int, ...]) -> str:
        return str(tokenizer.decode(list(token_ids), skip_special_tokens=False))

    return lambda token_ids: read(tuple(token_ids))


def columns_of(episode: Episode, read: Reader, has_tokens: bool, advantages: Sequence[float] | None = None) -> dict[str, Any]:
    """What both kinds of files hold of an episode. advantages: one for each step; null: nothing was learned from it.

    The answer and the gold are those in the `info` of its last step (an environment may name none).
    """
    steps = [
        {
            "observation": step.observation,
            "prompt": read(step.prompt_ids),
            "response": step.response,
            "action": step.action,
            "reward": step.reward,
            "truncated": step.truncated,
            "valid": step.valid,
            "corrected": step.corrected,
            "token_ids": step.token_ids if has_tokens else None,
            "advantage": None if advantages is None else advantages[number],
        }
        for number, step in enumerate(episode.steps)
    ]
    last = episode.steps[-1].info if episode.steps else {}
    answer, gold = last.get("answer"), last.get("gold")
    columns = {
        "item": episode.play.item,
        "seed": episode.play.seed,
        "env_seed": episode.play.env_seed,
        "verdict": episode.verdict,
        "reward": 0.0 if episode.error else episode.reward,
        "answer": None if answer is None else str(answer),
        "tokens": episode.tokens,
        "truncated": episode.truncated,
        "error": episode.error,
        "ending": episode.ending,
        "gold": None if gold is None else str(gold),
        "metrics": episode.metrics,
        "steps": steps,
    }
    return {name: _clean(value) for name, value in columns.items()}


def samples_schema() -> pa.Schema:
    """Columns of samples.parquet."""
    import pyarrow as pa

    head = [("key", pa.string()), ("decoding", pa.string()), ("item", pa.string()), ("type", pa.string())]
    return pa.schema([*head, ("sample", pa.int32()), *_episode_fields()])


def training_schema() -> pa.Schema:
    """Columns of a training run's episodes."""
    import pyarrow as pa

    head = [("step", pa.int32()), ("group", pa.int32()), ("item", pa.string()), ("sample", pa.int32())]
    return pa.schema([*head, *_episode_fields()])


def _episode_fields() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    text, number, truth, count = pa.string(), pa.float64(), pa.bool_(), pa.int32()
    step = {"observation": text, "prompt": text, "response": text, "action": text, "reward": number, "truncated": truth, "valid": truth}
    step |= {"corrected": truth, "token_ids": pa.list_(count), "advantage": number}
    fields = {"seed": pa.int64(), "env_seed": pa.int64(), "verdict": text, "reward": number, "answer": text, "tokens": count}
    fields |= {"truncated": truth, "error": text, "ending": text, "gold": text, "metrics": pa.map_(text, number)}
    fields |= {"steps": pa.list_(pa.struct(list(step.items())))}
    return list(fields.items())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Write a parquet file, whole or not at all; returns its bytes. The same rows give the same bytes under one version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    table = pa.Table.from_pylist(list(rows), schema=schema)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROWS_PER_GROUP, write_page_checksum=True)
    write_atomically(path, data := sink.getvalue())
    return data


def write_samples(path: Path, samples: Sequence[Sample]) -> bytes:
    """Raises UserError where the file cannot be written."""
    return write_rows(path, [sample.model_dump() for sample in samples], samples_schema())


def read_table(path: Path, columns: Sequence[str] = ()) -> pa.Table:
    """The named columns (none named: all). Raises UserError where the file cannot be read, has too many rows, or has other columns."""
    with open_samples(path, columns=columns) as file:
        return file.read(columns=list(columns) or None)


def read_columns(path: Path, columns: Sequence[str], sha256: str = "") -> dict[str, list[Any]]:
    """Columns as lists. Equal texts are one object: a small file can hold a long text many times.

    sha256: of the file, where a manifest names it. Raises UserError as `read_table`, and where the file is another one.
    """
    with open_samples(path, sha256, columns, coded=True) as file:
        table = file.read(columns=list(columns))
        return {name: [value for chunk in table.column(name).chunks for value in _values(chunk)] for name in columns}


def _values(chunk: pa.Array) -> list[Any]:
    import pyarrow as pa

    if not isinstance(chunk, pa.DictionaryArray):
        return chunk.to_pylist()
    values = [*chunk.dictionary.to_pylist(), None]
    return [values[code] for code in chunk.indices.fill_null(-1).to_numpy()]


def read_rows(path: Path, item: str) -> list[dict[str, Any]]:
    """The rows of one item. Raises UserError as `read_table`."""
    import pyarrow as pa

    rows = []
    with open_samples(path, columns=["item"]) as file:
        for group in range(file.num_row_groups):
            wanted = [name == item for name in file.read_row_group(group, columns=["item"]).column("item").to_pylist()]
            if any(wanted):
                rows += file.read_row_group(group).filter(pa.array(wanted)).to_pylist()
    return rows


@contextmanager
def open_samples(path: Path, sha256: str = "", columns: Sequence[str] = (), coded: bool = False) -> Iterator[pq.ParquetFile]:
    """Open a file of samples: this file alone, whatever the names of its directories look like. coded: `columns` keep equal texts once.

    Raises UserError where it cannot be read, also from within the `with`, is another file than the one named, has too many rows, or has
    other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_regular(path) as file:
            if sha256 and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise UserError(f"{path}: not the records that the manifest beside it names by SHA-256; run this evaluation again")
            opened = pq.ParquetFile(file, read_dictionary=list(columns) if coded else None, page_checksum_verification=True)
            if (rows := opened.metadata.num_rows) > LARGEST_TABLE:
                raise UserError(f"{path}: {rows} rows, more than the {LARGEST_TABLE} that are read; evaluate fewer items or samples")
            if problem := _other_columns(opened.schema_arrow, columns):
                raise UserError(f"{path}: {problem}; run this evaluation again")
            yield opened
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}); run this evaluation again") from error


def _other_columns(there: pa.Schema, columns: Sequence[str]) -> str:
    """What is wrong with the columns of a file; empty where nothing is."""
    import pyarrow as pa

    types = {field.name: field.type for field in (*training_schema(), *samples_schema())}
    for name in columns or there.names:
        if name not in there.names:
            return f"without the column {name}"
        found = there.field(name).type
        found = found.value_type if pa.types.is_dictionary(found) else found
        if name in types and not pa.types.is_nested(types[name]) and found != types[name]:
            return f"its column {name} is of type {found}, not {types[name]}"
    return ""


def read_samples(path: Path, sha256: str = "") -> list[Sample]:
    """Raises UserError where the file cannot be read."""
    return [sample for batch in iter_samples(path, ROWS_PER_GROUP, sha256) for sample in batch]


def iter_samples(path: Path, rows: int, sha256: str = "") -> Iterator[list[Sample]]:
    """All samples, `rows` at a time. Raises UserError where the file cannot be read."""
    try:
        with open_samples(path, sha256) as file:
            for batch in file.iter_batches(batch_size=rows):
                yield [Sample.model_validate(row) for row in batch.to_pylist()]
    except ValidationError as error:
        raise UserError(f"{path}: broken record ({first_problem(error)}); run this evaluation again") from error


def _clean(value: Any) -> Any:
    """Text that UTF-8 can hold: an environment may leave half a surrogate pair."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_clean(name): item for name, item in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [{name: _clean(item) for name, item in step.items()} for step in value]
    return value
