"""What a study's figures come to, as tables and texts: the page and the terminal show the same."""

from __future__ import annotations

from collections.abc import Sequence

from ..evals.records import Decoding
from ..evals.statistics import Difference
from ..studies.contribution import Contribution
from ..studies.study_findings import BestSet, Findings
from ..studies.study_report import Arm, StudyReport
from .page import Cell, Table, difference_cell, interval, rate_cell, share_cell


def in_words(report: StudyReport) -> dict[str, list[str]]:
    """Labels, and what the figures come to under each; the minimum detectable difference comes first."""
    found = report.findings
    if found is None:
        return {}
    rows: dict[str, list[str]] = {}
    if sizes := sorted((size, name) for name, size in found.detectable.items()):
        (least, easiest), (most, hardest) = sizes[0], sizes[-1]
        told = f"{least:.3f}" if len(sizes) == 1 else f"{least:.3f} ({easiest}) to {most:.3f} ({hardest})"
        rows["minimum detectable difference"] = [
            f"{told} of pass@1 at temperature {report.temperature:g}, set minus full. A study like this one misses a smaller true "
            "difference more than one time in five."
        ]
    if found.best:
        rows["best single layer"] = [_best_layer(found.best)]
    if text := _middle(found):
        rows["middle third of the layers"] = [text]
    rows["supported statement"] = [found.quote]
    rows["not supported"] = found.unsaid
    return {label: texts for label, texts in rows.items() if texts}


def render_words(report: StudyReport) -> str:
    """The same for a terminal; empty where there is nothing."""
    return "\n".join(f"{label}: {text}" for label, texts in in_words(report).items() for text in texts)


def _best_layer(best: BestSet) -> str:
    apart = best.chosen_by != best.reported_by
    chosen, rest = (_and_seeds(part) if apart else "" for part in (best.chosen_by, best.reported_by))
    share = best.contribution
    return (
        f"{best.trained_set}, chosen from {best.of} layers on a random half of the items{chosen}. On the other half{rest}, which had no "
        f"part in the choice: C(k) {_share(share)}, minus base {_signed(share.gain)}, minus full {_signed(share.to_full)}."
    )


def _and_seeds(seeds: Sequence[int]) -> str:
    return f" and training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _middle(found: Findings) -> str:
    if found.middle is None:
        return f"No share of the total contribution: {found.no_middle}." if found.best else ""
    middle = found.middle
    alike = f"{len(middle.layers)} of {middle.of} layers; equal layers would contribute {len(middle.layers) / middle.of:.0%}"
    if middle.point is None or middle.fieller is None:
        return f"No share of the total contribution: the sum over all layers is too uncertain to divide by ({alike})."
    return f"{middle.point:.0%} [{middle.fieller[0]:.0%}, {middle.fieller[1]:.0%}] of the total contribution ({alike})."


def _share(found: Contribution) -> str:
    ends = "unbounded" if found.fieller == "unbounded" else interval(found.fieller)
    return f"no figure, {ends}" if found.point is None else f"{found.point:.2f} {ends}"


def _signed(found: Difference) -> str:
    return f"{found.difference:+.3f} \u00b1 {found.high - found.difference:.3f}"


def best_points(report: StudyReport) -> list[Table]:
    """The checkpoints that were best on the panel beside the last ones; none without them."""
    warm = f"temperature {report.temperature:g}"
    rows = [row for arm in report.arms for row in _best_rows(arm, warm)]
    header = [Cell("policy", "best step"), Cell("decoding"), Cell("pass@1", "last"), Cell("pass@1", "best"), Cell("best minus last")]
    header += [Cell("best minus base"), Cell("C(k)", "at the best of both")]
    note = (
        "The checkpoint with the highest pass@1 on the panel, which belongs to the validation split, beside the last one. The panel's own "
        "figure of it is too high, because it is the highest of several noisy ones (the winner's curse); the figures in this table come "
        "from the items of this report, which had no part in the choice."
    )
    return [Table("Best checkpoints", header, rows, [note])] if rows else []


def _best_rows(arm: Arm, warm: str) -> list[list[Cell]]:
    if arm.best is None:
        return []
    rows, name = [], Cell(arm.name, f"step {', '.join(map(str, arm.best.steps))}")
    for decoding, drawn in ((Decoding.SAMPLED, warm), (Decoding.GREEDY, "greedy")):
        best, last = arm.best.measured(decoding), arm.measured(decoding).pass_rate
        cells = [rate_cell(last), rate_cell(best.pass_rate), difference_cell(best.to_last), difference_cell(best.to_base)]
        rows.append([name, Cell(drawn), *cells, share_cell(best.contribution)])
    return rows


def solved_sets(report: StudyReport) -> list[Table]:
    """What each set solves that base does not, and how far these are the items of full."""
    found = report.findings
    if found is None or not found.solved:
        return []
    rows = []
    for name, one in found.solved.items():
        shared = "" if one.shared is None else str(one.shared)
        figures = [Cell(str(len(one.gained))), Cell(str(len(one.lost))), Cell(shared)]
        rows.append([Cell(name), *figures, rate_cell(one.overlap) if one.overlap else Cell("")])
    header = [Cell("policy"), Cell("gained", "base does not"), Cell("lost", "base does"), Cell("gained", "full as well")]
    header.append(Cell("overlap", "Jaccard"))
    note = (
        "Gained: items that the greedy replies of a set solve and those of base do not; lost: the other way round. First training seed; "
        "report.json names the items. Overlap: of the items that the set or full gains, the share that both gain."
    )
    if again := found.full_again:
        note += f" In comparison full with the second training seed overlaps by {again.mean:.3f} {interval((again.low, again.high))}."
    else:
        note += " Two trainings of the same set do not gain the same items either; a second training seed would tell by how much."
    return [Table("Solved sets", header, rows, [note])]


def weight_changes(report: StudyReport) -> list[Table]:
    """How far each set moved the weights of each layer, beside its C(k); none where that was not kept."""
    rows = []
    for arm in report.arms:
        for part in arm.training.weight_changes if arm.training else []:
            place = "other weights" if part.layer is None else f"layer {part.layer}"
            relative = "" if part.relative is None else f"{part.relative:.2%}"
            cells = [Cell(f"{part.l2:.3f}"), Cell(relative), Cell(f"{part.share:.1%}", f"of {part.entries:,}")]
            rows.append([Cell(arm.name, place), *cells, share_cell(arm.sampled.contribution)])
    header = [Cell("policy"), Cell("change", "L2"), Cell("relative", "to the weights"), Cell("changed", "share of entries")]
    header.append(Cell("C(k)", f"temperature {report.temperature:g}"))
    note = (
        "Trained minus base, in the number format of the model, over the weights of each layer that the set trains; means over the "
        "training seeds. Other weights: embeddings, last norm and head."
    )
    return [Table("Weight changes", header, rows, [note])] if rows else []


def agreements(report: StudyReport) -> list[Table]:
    """How far the profile of the layers agrees with those of other studies; none where none was named."""
    rows = []
    for one in report.agreements:
        names = [Cell(one.study, one.split), Cell(str(len(one.layers)), "same items" if one.same_items else "other items")]
        cells = [
            cell
            for found in (one.spearman, one.pearson)
            for cell in (Cell(f"{found.measured:.2f}"), Cell(f"{found.corrected:.2f}", interval((found.low, found.high))))
        ]
        rows.append([*names, *cells])
    header = [Cell("study"), Cell("layers", "of both")]
    for name in ("Spearman", "Pearson"):
        header += [Cell(name, "measured"), Cell(name, f"true profiles, {report.level:.0%}")]
    note = (
        "Correlation of the pass rates of the layers in this study and in the other one (that of C(k) is the same), of their ranks by "
        "Spearman. Noise makes the measured correlation smaller; beside it stands that of the true profiles, given the measured ones."
    )
    return [Table("Agreement with other studies", header, rows, [note])] if rows else []


def ratio_detail(value: float | None, of_full: float | None) -> str:
    """A cost over that of full; empty where there is none."""
    return f"{value / of_full:.2f} of full" if value is not None and of_full else ""


def folded(tables: Sequence[Table]) -> set[str]:
    """Titles of the tables that are too long to stand open on the page."""
    return {table.title for table in tables if len(table.rows) > 12}
