"""A comparison for people: tables in the terminal, compare.json, and one HTML page that needs no network.

Terminal and page print the same tables, and the page's learning curves are drawn from the very JSON that compare.json holds.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Group

from ..common.files import write_atomically
from ..common.text import counted
from ..envs.items import size_text
from ..evals.records import Decoding
from ..studies.compare_records import Compared, ComparedPolicy, Comparison, ComparisonRow, Figures, Section
from .page import Cell, Table, difference_cell, rate_cell, render_html, render_tables, replies_table, share_cell


def write_comparison(comparison: Comparison, directory: Path) -> Path:
    """Write compare.json and compare.html; returns the page's path. Raises UserError where the directory cannot be written."""
    page = directory / "compare.html"
    write_atomically(directory / "compare.json", comparison.model_dump_json(indent=2) + "\n")
    write_atomically(page, render_page(comparison))
    return page


def render_terminal(comparison: Comparison) -> Group:
    """All tables for a terminal of 80 columns or more."""
    return render_tables(table for suite in comparison.suites for table in tables(comparison, suite))


def render_page(comparison: Comparison) -> str:
    """The page, as `render_html` makes it."""
    return render_html(
        "compare.html.j2",
        comparison,
        policies=[policy.name for policy in comparison.policies],
        suites={suite: tables(comparison, suite) for suite in comparison.suites},
        protocols=[(section.split, protocol(section)) for section in comparison.sections],
    )


def tables(comparison: Comparison, suite: str) -> list[Table]:
    """What was measured on a suite, split by split, then what was trained there."""
    found = []
    for section in comparison.sections:
        if section.domain == suite:
            found += [results(section, comparison.level), differences(section, comparison.level)]
            found += [contributions(section, comparison.level), algorithms(section, comparison.level), replies(section)]
    found.append(trainings(suite, [policy for policy in comparison.policies if policy.domain == suite]))
    return [table for table in found if table.rows]


def results(section: Section, level: float) -> Table:
    """pass@1 of every policy under both decodings."""
    over = _over(section.rows, level)
    sizes = {size_text(row.items, row.skipped) for row in section.rows}
    decodings = _decodings(section)
    header = [Cell("policy"), Cell("seeds", "" if over else "interval over")]
    header += [Cell("pass@1", f"{name}\n{over or f'{level:.0%}'}") for name in decodings]
    rows = []
    for row in section.rows:
        rates = [rate_cell(row.figures(decoding).pass_rate) for decoding in Decoding]
        seeds = Cell(_seeds(row.seeds), "" if over else row.interval_over.replace(" and", "\nand"))
        rows.append([_name(row, section), seeds, *rates])
    items = f"{sizes.pop()} of " if len(sizes) == 1 else ""
    return Table(f"{items}{section.split}", header, rows, _result_notes(section))


def differences(section: Section, level: float) -> Table:
    """Every policy minus its base and minus the first, paired on the same items; empty where there is nothing to compare."""
    columns, header = [], [Cell("policy")]
    for heading, find in (("minus base", _to_base), (f"minus {_first(section)}", _to_first)):
        if any(find(row.figures(decoding)) for row in section.rows for decoding in Decoding):
            columns += [(find, decoding) for decoding in Decoding]
            lines = [heading] if len(heading) <= 15 else ["minus", *textwrap.wrap(heading.removeprefix("minus "), 15)]
            header += [Cell(lines[0], "\n".join([*lines[1:], name])) for name in _decodings(section)]
    rows = []
    for row in section.rows:
        found = [find(row.figures(decoding)) for find, decoding in columns]
        if any(found):
            rows.append([_name(row, section), *map(_compared, found)])
    return Table(f"Differences on {section.split}", header, rows, _difference_notes(section, level))


def contributions(section: Section, level: float) -> Table:
    """C(k) of every policy that has a base and a full-parameter run to be compared with; empty where none has."""
    header = [Cell("policy"), *(Cell("C(k)", f"{name}\n{level:.0%}") for name in _decodings(section))]
    rows = [
        [_name(row, section), *(share_cell(row.figures(decoding).contribution) for decoding in Decoding)]
        for row in section.rows
        if any(row.figures(decoding).contribution for decoding in Decoding)
    ]
    note = (
        "C(k): the share of the gain of full-parameter training over the base that a policy reaches, with Fieller's set; the "
        "full-parameter run is of the same recipe but for the trained set and the learning rate."
    )
    return Table(f"Contribution on {section.split}", header, rows, [note])


def algorithms(section: Section, level: float) -> Table:
    """Each trained set under each two algorithms; empty where there is just one."""
    header = [Cell("policy"), Cell("minus"), *(Cell("difference", name) for name in _decodings(section))]
    rows = [
        [Cell(found.policy), Cell(found.sampled.other), *(_compared(found.figures(decoding)) for decoding in Decoding)]
        for found in sorted(section.algorithms, key=lambda found: found.trained_set != "full")
    ]
    note = (
        f"The same set trained by two algorithms on the same kind of episodes: pass@1, paired on the same items and training seeds, \u00b1 "
        f"{level:.0%}. Holm: p corrected over all pairs of this table, where that changes it."
    )
    return Table(f"Algorithms on {section.split}", header, rows, [note])


def replies(section: Section) -> Table:
    """What is known of the replies besides whether they are right."""
    names = dict(zip(Decoding, _decodings(section), strict=True))
    rows = [(row.label, name, row.figures(decoding)) for row in section.rows for decoding, name in names.items()]
    return replies_table(f"Replies on {section.split}", rows)


def trainings(suite: str, policies: Sequence[ComparedPolicy]) -> Table:
    """What was trained, and what it cost."""
    header = [Cell("policy"), Cell("seeds"), Cell("trained", "parameters"), Cell("steps")]
    header += [Cell(figure, "a run") for figure in ("episodes", "tokens", "seconds")]
    rows = []
    for policy in policies:
        done = [run for run in policy.runs if run.finished] or policy.runs
        costs = [[run.curve.episodes for run in done], [run.curve.tokens for run in done], [run.seconds for run in done]]
        share = "" if policy.share is None else f"{policy.share:.1%} of all"
        parameters = Cell("?" if policy.parameters is None else f"{policy.parameters:,}", share)
        steps = Cell(_joined(str(run.steps) for run in policy.runs), "" if done[0].finished else "not finished")
        row = [Cell(policy.name), Cell(_seeds([run.seed for run in policy.runs])), parameters, steps]
        rows.append(row + [Cell(f"{sum(values) / len(values):,.0f}") for values in costs])
    return Table(f"Training on {suite}", header, rows, _training_notes(policies))


def protocol(section: Section) -> dict[str, str]:
    """How a split was measured, as label and text; where rows differ, each value with its rows."""
    texts: dict[str, Callable[[ComparisonRow], str]] = {
        "items": lambda row: size_text(row.items, row.skipped),
        "items SHA-256": lambda row: row.digest,
        "samples of each item": lambda row: f"{row.samples} at temperature {row.temperature:g}, and 1 greedy",
        "most tokens of a reply": lambda row: str(row.max_tokens),
        "prompt": lambda row: row.prompt,
        "evaluation seed": lambda row: str(row.seed),
        "base fingerprint": lambda row: row.base,
    }
    for name in dict.fromkeys(name for row in section.rows for name in row.settings if "." in name):
        texts[name] = partial(_setting, name)
    labels = {}
    for label, text in texts.items():
        values: dict[str, list[str]] = {}
        for row in section.rows:
            values.setdefault(text(row), []).append(row.label)
        labels[label] = (
            next(iter(values)) if len(values) == 1 else "\n".join(f"{', '.join(names)}: {value}" for value, names in values.items())
        )
    return labels


def _setting(name: str, row: ComparisonRow) -> str:
    value = row.settings.get(name)
    return "not set" if value is None else str(value)


def _name(row: ComparisonRow, section: Section) -> Cell:
    """A policy says what sets its protocol apart, and where it was trained, if elsewhere: names are unique within a suite only."""
    elsewhere = f"trained on {row.trained_on}" if row.trained_on not in (None, section.domain) else ""
    return Cell(row.policy, "\n".join(text for text in (row.apart, elsewhere) if text))


def _decodings(section: Section) -> list[str]:
    temperatures = {f"temperature {row.temperature:g}" for row in section.rows if row.seeds or not row.prompt.startswith("(")}
    return [temperatures.pop() if len(temperatures) == 1 else "sampled", "greedy"]


def _over(rows: Iterable[ComparisonRow], level: float) -> str:
    """What all intervals of trained policies allow for, on lines no wider than an interval; empty where rows must tell each their own."""
    kinds = {row.interval_over for row in rows if row.seeds} or {"items"}
    return f"{level:.0%} over {kinds.pop()}".replace(" and", "\nand") if len(kinds) == 1 else ""


def _seeds(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _joined(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _first(section: Section) -> str:
    return next((found.other for row in section.rows if (found := row.sampled.to_first)), "")


def _to_base(figures: Figures) -> Compared | None:
    return figures.to_base


def _to_first(figures: Figures) -> Compared | None:
    return figures.to_first


def _compared(found: Compared | None) -> Cell:
    if found is None:
        return Cell("")
    if found.difference is None:
        return Cell("-", "not\ncomparable")
    cell = difference_cell(found.difference)
    others = {"Holm": None if found.p_holm == found.difference.p else found.p_holm, "McNemar": found.mcnemar}
    lines = [f"{name} {'< 0.001' if p < 0.001 else f'{p:.3f}'}" for name, p in others.items() if p is not None]
    return Cell(cell.figure, "\n".join([cell.detail, *lines]))


def _result_notes(section: Section) -> list[str]:
    notes = []
    single = [row.label for row in section.rows if len(row.seeds) == 1]
    if single:
        notes.append(f"One training seed ({_joined(single)}): the interval allows for other items, and not for other training seeds.")
    if any(len(row.seeds) > 1 for row in section.rows):
        notes.append("Several training seeds are pooled; their interval allows for other seeds and other items.")
        if untrained := [row.label for row in section.rows if not row.seeds]:
            notes.append(f"No training seed is known of {_joined(untrained)}: the interval is over items only.")
    for row in section.rows:
        if errors := row.sampled.errors + row.greedy.errors:
            notes.append(f"Environments failed in {counted(errors, 'sample')} of {row.label}, counted as wrong.")
    return notes + _numbered((row.policy, row.directories) for row in section.rows)


def _difference_notes(section: Section, level: float) -> list[str]:
    found = [(row, decoding, pair) for row in section.rows for decoding in Decoding for pair in _pairs(row.figures(decoding))]
    notes = [f"Differences of pass@1, paired on the same items and training seeds, \u00b1 {level:.0%}, p of the paired t test."]
    if any(pair.difference and pair.p_holm != pair.difference.p for _, _, pair in found):
        notes.append("Holm: p corrected for the comparisons with the same policy in its column, where that changes it.")
    greedy = [pair for _, decoding, pair in found if decoding is Decoding.GREEDY and pair.difference]
    if any(pair.mcnemar is not None for pair in greedy):
        notes.append("McNemar: exact p, not corrected, of the items that just one of the two solves; to be preferred where these are few.")
    if any(pair.mcnemar is None for pair in greedy):
        notes.append("Over several training seeds there is no one greedy answer to an item, so McNemar's exact test does not apply.")
    apart: dict[tuple[str, str, str], list[str]] = {}
    for row, decoding, pair in found:
        if pair.not_comparable:
            apart.setdefault((row.label, pair.other, ", ".join(pair.not_comparable)), []).append(decoding.value)
        elif pair.difference and pair.seeds < len(row.seeds) and decoding is Decoding.SAMPLED:
            notes.append(f"{row.label} minus {pair.other} is over {pair.seeds} of its seeds: the other has no more of them.")
    for (policy, other, reasons), decodings in apart.items():
        drawn = "" if len(decodings) == len(Decoding) else f" ({decodings[0]})"
        notes.append(f"{policy} and {other} are not comparable{drawn}: they were measured with different {reasons}.")
    return notes


def _pairs(figures: Figures) -> list[Compared]:
    return [pair for pair in (figures.to_base, figures.to_first) if pair]


def _training_notes(policies: Sequence[ComparedPolicy]) -> list[str]:
    notes = []
    for policy in policies:
        for run in policy.runs:
            if not run.finished:
                notes.append(f"{policy.name}, seed {run.seed}: not finished, {len(run.curve.points)} of {run.steps} steps done.")
    if any(len({run.finished for run in policy.runs}) > 1 for policy in policies):
        notes.append("Episodes, tokens and seconds are those of the finished runs, their mean.")
    elif any(len(policy.runs) > 1 for policy in policies):
        notes.append("Episodes, tokens and seconds of a run are means over the seeds.")
    return notes + _numbered((policy.name, [run.directory for run in policy.runs]) for policy in policies)


def _numbered(named: Iterable[tuple[str, list[str]]]) -> list[str]:
    """Where policies lie that only a number tells apart."""
    return [f"{name}: {', '.join(directories)}" for name, directories in named if re.search(r" #\d+$", name)]
