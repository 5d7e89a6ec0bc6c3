"""What reports are made of: tables as text, which terminal and page both show, and HTML pages that need no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs
from pydantic import BaseModel
from rich import box
from rich.console import Group
from rich.text import Text

from ..common.console import Table as RichTable
from ..common.text import shown
from ..evals.replies import STATISTICS, ReplyStatistics
from ..evals.statistics import Difference, Rate
from ..studies.contribution import FEWEST_ITEMS, SHOWN_FROM, Contribution

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A figure and, below it, its interval or what else it needs."""

    figure: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table as text; the first column names the row."""

    title: str
    header: list[Cell]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def templates(**known: object) -> jinja2.Environment:
    """The pages' templates, which escape every text and refuse a name that is not there. known: what all of them find by name."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.globals |= known
    environment.filters["shown"] = shown
    return environment


def render_html(template: str, data: BaseModel, **texts: object) -> str:
    """A page from a template that extends `page.html.j2`: every text escaped, charts and JSON inside, nothing loaded from elsewhere.

    data: what its script finds as `data`. texts: what the template shows.
    """
    # Nothing in a text may end the script element or a line of script.
    embedded = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", data.model_dump_json())
    return templates().get_template(template).render(**texts, embedded=embedded, plotly=get_plotlyjs())


def render_tables(tables: Iterable[Table]) -> Group:
    """Tables and their notes for a terminal of 80 columns or more."""
    return Group(*(part for table in tables for part in (_rich(table), *map(Text, table.notes), Text())))


def rate_cell(rate: Rate) -> Cell:
    """Mean, and the interval below it."""
    return Cell(f"{rate.mean:.3f}", f"[{rate.low:.3f}, {rate.high:.3f}]")


def replies_table(title: str, rows: Sequence[tuple[str, str, ReplyStatistics]]) -> Table:
    """Every statistic of the replies that is known. rows: policy, decoding, and what was measured so."""
    known = {name: one for name, one in STATISTICS.items() if any(getattr(row[-1], name) is not None for row in rows)}
    header = [Cell("policy"), Cell("decoding"), *(Cell(one.label) for one in known.values())]
    cells = [
        [Cell(policy), Cell(drawn), *(Cell(one.text(getattr(found, name))) for name, one in known.items())] for policy, drawn, found in rows
    ]
    return Table(title, header, cells)


def difference_cell(found: Difference | None) -> Cell:
    """Signed difference, and half its interval and p below it; nothing where there is none."""
    if found is None:
        return Cell("")
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return Cell(f"{found.difference:+.3f}", f"\u00b1 {found.high - found.difference:.3f}\n{p}")


def share_cell(found: Contribution | None) -> Cell:
    """C(k) and its interval, or why it is no figure."""
    if found is None:
        return Cell("")
    if found.point is not None:
        return Cell(f"{found.point:.2f}", "unbounded" if found.fieller == "unbounded" else interval(found.fieller))
    if found.items is not None and found.items < FEWEST_ITEMS:
        return Cell("not shown", f"{found.items} items < {FEWEST_ITEMS}")
    reason = "D = 0" if found.strength is None else f"|D|/SE(D)\n= {found.strength_text} < {SHOWN_FROM:g}"
    return Cell("unbounded" if found.fieller == "unbounded" else "not shown", reason)


def interval(ends: tuple[float, float]) -> str:
    """As tables show it."""
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def _rich(table: Table) -> RichTable:
    rich = RichTable(title=Text(table.title), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for index, column in enumerate(table.header):
        rich.add_column(_rich_cell(column, bold=False), justify="left" if index == 0 else "right", vertical="top", no_wrap=index > 0)
    for row in table.rows:
        rich.add_row(*(_rich_cell(cell, bold=index > 0) for index, cell in enumerate(row)))
    return rich


def _rich_cell(cell: Cell, *, bold: bool) -> Text:
    text = Text(cell.figure, style="bold" if bold else "")
    return text.append(f"\n{cell.detail}", style="not bold dim") if cell.detail else text
