"""`onelayer grade`"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common.documentation import page
from .grade_code import grade_code
from .grade_cut import grade_cut

if TYPE_CHECKING:
    from ..envs.math.gold import Gold

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
CHUNK = 256  # responses between two updates of the progress bar


@app.callback()
def grade() -> None:
    """Grade responses that are already there."""


app.command("code", epilog=f"How a verdict comes about: {page('code-grading')}")(grade_code)
app.command("cut", epilog=f"What that shows: {page('evaluation')}")(grade_cut)


@app.command("math", epilog=f"How a verdict comes about: {page('math-grading')}")
def grade_math(
    input: Annotated[Path, typer.Option(metavar="FILE.jsonl", help='lines {"response": ..., "gold": ...}')],
    output: Annotated[Path | None, typer.Option(metavar="OUT.jsonl", help='the same lines with "verdict" added')] = None,
) -> None:
    """Grade math responses against gold answers and print the pass rate with its 95% interval (Wilson).

    A line may hold what its benchmark allows: "precision" (absolute) or "relative", the error within which a number is right,
    and "unit", one that an answer may leave out. Other fields pass through. Verdicts are correct, wrong, unparsed and timeout.
    The output is written whole or not at all.

    \b
    Example:
      onelayer grade math --input responses.jsonl --output graded.jsonl
    """
    from rich.progress import track

    from ..common.console import Console
    from ..common.errors import UserError
    from ..common.files import make_writable, write_atomically
    from ..envs.data_files import read_lines
    from ..envs.math.golds import unreadable_golds
    from ..envs.math.grader import Verdict, grade_many
    from ..evals.statistics import wilson

    if output is not None:
        make_writable(output.parent)
    records = read_lines(input)
    pairs = [(_text(input, r.number, r.values, "response"), _gold(input, r.number, r.values)) for r in records]
    for at in unreadable_golds([gold for _, gold in pairs]):
        raise UserError(f"{input}:{records[at].number}: the gold answer {pairs[at][1].text!r} cannot be read by the grader; correct it")
    verdicts: list[Verdict] = []
    for start in track(range(0, len(pairs), CHUNK), "grading", console=Console(stderr=True), transient=True):
        verdicts += grade_many(pairs[start : start + CHUNK])
    if output is not None:
        lines = [json.dumps({**r.values, "verdict": str(v)}, ensure_ascii=False) for r, v in zip(records, verdicts, strict=True)]
        write_atomically(output, ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"))
    counts = Counter(verdicts)
    low, high = wilson(counts[Verdict.CORRECT], len(verdicts))
    print(f"pass rate {counts[Verdict.CORRECT] / len(verdicts):.4f} (95% interval {low:.4f} to {high:.4f})")
    print(", ".join(f"{verdict} {counts[verdict]}" for verdict in Verdict) + f", of {len(verdicts)}")


def _gold(path: Path, number: int, values: Any) -> Gold:
    from ..common.errors import UserError
    from ..envs.math.gold import Gold

    allowed: dict[str, Any] = {key: value for key in ("precision", "relative", "unit") if (value := values.get(key)) is not None}
    for key, value in allowed.items():
        if key == "unit" and not isinstance(value, str):
            raise UserError(f"{path}:{number}: 'unit' is not text")
        if key != "unit" and (isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf):
            raise UserError(f"{path}:{number}: {key!r} is {value!r}; it is a number above 0")
    return Gold(_text(path, number, values, "gold"), **allowed)


def _text(path: Path, number: int, values: Any, key: str) -> str:
    from ..common.errors import UserError

    value = values.get(key)
    if key == "gold" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        problem = f"{key!r} is not text" if key in values else f"no key {key!r}"
        raise UserError(f'{path}:{number}: {problem}; a line is {{"response": "...", "gold": "..."}}')
    return value
