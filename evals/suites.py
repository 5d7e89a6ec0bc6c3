"""Several suites at once: named on the command line, or in a file that puts them in groups, as the paper's averages do."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError, first_problem
from ..common.files import write_atomically
from ..common.reading import LARGEST_YAML, parse_yaml, read_bytes
from .records import Decoding, Evaluation
from .statistics import Rate, share

FOLDER = Path(__file__).parent.parent / "configs" / "suites"
SUITES = "suites.json"
LM_EVAL = "lm-eval:"
"""What a task of lm-evaluation-harness begins with."""


class SuiteFile(BaseModel):
    """configs/suites/NAME.yaml"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: dict[str, list[str]] = Field(min_length=1, description="suites by group; a group's score is the mean of its suites")
    overrides: list[str] = Field(default=[], description="SECTION.KEY=VALUE for all of them; the command line's come after")


@dataclass(frozen=True)
class Selection:
    """What `--suite` names."""

    suites: list[str]
    groups: dict[str, list[str]] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


class SuiteMean(BaseModel):
    """The mean of several suites, each with the same weight; the interval is over their items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suites: list[str]
    sampled: Rate
    greedy: Rate


class Member(BaseModel):
    """One of the evaluations."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    directory: str = Field(description="below the directory of the group")


class Suites(BaseModel):
    """suites.json"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    suites: list[Member]
    groups: dict[str, SuiteMean]


def select(text: str) -> Selection:
    """The suites in a list with commas. A name of a file in configs/suites, or a .yaml file, stands for those in it.

    Raises UserError for a file that is no such list, and where nothing is named, or something twice.
    """
    suites: list[str] = []
    groups: dict[str, list[str]] = {}
    overrides: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        path = Path(part) if part.endswith((".yaml", ".yml")) else FOLDER / f"{part}.yaml"
        if part.startswith(LM_EVAL):
            suites.append(part)
        elif path.is_file():
            found = read_suite_file(path)
            groups |= found.groups
            overrides += found.overrides
            suites += dict.fromkeys(suite for group in found.groups.values() for suite in group)
        elif path == Path(part):
            raise UserError(f"--suite {part}: no such file; there are {', '.join(named())}")
        else:
            suites.append(part)
    if not suites:
        raise UserError("--suite names nothing; write for example math500 or math500,humaneval+")
    if twice := next((suite for at, suite in enumerate(suites) if suite in suites[:at]), None):
        raise UserError(f"--suite: {twice} is named twice; name each once")
    return Selection(suites, groups, overrides)


def named() -> list[str]:
    """The names of the files that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite_file(path: Path) -> SuiteFile:
    """Raises UserError where it is no such file."""
    try:
        return SuiteFile.model_validate(parse_yaml(read_bytes(path, LARGEST_YAML)))
    except UserError:
        raise
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}; write groups: {{NAME: [SUITE, ...]}}") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML ({error}); write groups: {{NAME: [SUITE, ...]}}") from error


def directory_name(suite: str) -> str:
    """A suite's name as that of a directory."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", suite).strip("-.") or "suite"


def write_suites(directory: Path, found: Mapping[str, Evaluation], selection: Selection) -> Suites:
    """Write suites.json. found: the evaluation of each suite."""
    groups = {}
    for name, suites in selection.groups.items():
        sampled, greedy = (mean([found[suite] for suite in suites], decoding) for decoding in Decoding)
        groups[name] = SuiteMean(suites=suites, sampled=sampled, greedy=greedy)
    result = Suites(suites=[Member(suite=suite, directory=directory_name(suite)) for suite in found], groups=groups)
    write_atomically(directory / SUITES, result.model_dump_json(indent=2) + "\n")
    return result


def mean(suites: Sequence[Evaluation], decoding: Decoding) -> Rate:
    """Mean of independent suites, each with the same weight; Wilson's interval at the effective number of trials."""
    rates = [one.scores(decoding).pass_rate for one in suites]
    centre, se = sum(rate.mean for rate in rates) / len(rates), math.sqrt(sum(rate.se**2 for rate in rates)) / len(rates)
    return share(centre, se, sum(one.items for one in suites), math.inf)


def table(result: Suites) -> Any:
    """The groups, for a terminal."""
    from rich.text import Text

    from ..common.console import Table

    shown = Table("group", "suites", "sampled", "greedy", title="Means over suites")
    for name, group in result.groups.items():
        rates = [f"{rate.mean:.3f} [{rate.low:.3f}, {rate.high:.3f}]" for rate in (group.sampled, group.greedy)]
        shown.add_row(Text(name), str(len(group.suites)), *rates)
    return shown
