"""A study's report for people: tables in the terminal, report.json, and one HTML page that needs no network.

Terminal and page print the same tables: both are made of the strings that `leaderboard`, `differences` and the others return, and
the page's charts are drawn in the browser from the very JSON that report.json holds.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Group
from rich.text import Text

from ..common.files import write_atomically
from ..common.text import counted
from ..evals.records import Decoding, Evaluation
from ..evals.replies import STATISTICS
from ..evals.statistics import Rate
from ..studies.contribution import FEWEST_ITEMS, SHOWN_FROM
from ..studies.store import REPORT
from ..studies.study_report import Arm, StudyReport
from .findings_tables import agreements, best_points, folded, in_words, ratio_detail, render_words, solved_sets, weight_changes
from .limits import limits_tables
from .page import Cell, Table, difference_cell, interval, rate_cell, render_html, render_tables, replies_table, share_cell


def write_report(report: StudyReport, directory: Path) -> None:
    """Write report.json and report.html. Raises UserError where the directory cannot be written."""
    write_atomically(directory / REPORT, report.model_dump_json(indent=2) + "\n")
    write_atomically(directory / "report.html", render_page(report))


def render_evaluation(evaluation: Evaluation) -> Group:
    """The figures of one policy for a terminal."""
    return render_tables(evaluation_tables(evaluation))


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """The figures of one policy under both decodings; those of its replies, and by task type, where there are any."""
    names = {Decoding.SAMPLED: f"temperature {evaluation.temperature:g}", Decoding.GREEDY: "greedy"}
    by_decoding = {name: evaluation.scores(decoding) for decoding, name in names.items() if decoding is not evaluation.repeats}
    header = ["decoding", "n", "pass@1", "95%", "pass@k", "majority"]
    rows = []
    for name, scores in by_decoding.items():
        k, majority = max(scores.pass_at_k), f"{scores.majority.mean:.3f}" if scores.majority else "-"
        rows.append([name, str(scores.samples), *_mean_and_interval(scores.pass_rate), f"{scores.pass_at_k[k]:.3f} ({k})", majority])
    # Columns for those whom they concern: most environments pay 1 or nothing, and none of them should fail.
    extra = {"reward": [f"{scores.mean_reward:.3f}" for scores in by_decoding.values()]}
    if extra["reward"] == [f"{scores.pass_rate.mean:.3f}" for scores in by_decoding.values()]:
        extra = {}
    if any(scores.corrected for scores in by_decoding.values()):
        extra["corrected"] = [f"{scores.corrected or 0:.1%}" for scores in by_decoding.values()]
    if evaluation.errors:
        extra["errors"] = [str(scores.errors) for scores in by_decoding.values()]
    header += extra
    rows = [row + [column[at] for column in extra.values()] for at, row in enumerate(rows)]
    tables = [_table(f"{evaluation.policy} on {evaluation.split}, {evaluation.size_text}", header, rows)]
    if any(getattr(scores, key) is not None for scores in by_decoding.values() for key in STATISTICS):
        header = ["decoding", *(one.label for one in STATISTICS.values())]
        rows = [[name, *(one.text(getattr(scores, key)) for key, one in STATISTICS.items())] for name, scores in by_decoding.items()]
        tables.append(_table("Replies", header, rows))
    if own := dict.fromkeys(name for scores in by_decoding.values() for name in scores.metrics):
        rows = [
            [drawn, *(f"{scores.metrics[name]:.3f}" if name in scores.metrics else "-" for name in own)]
            for drawn, scores in by_decoding.items()
        ]
        tables.append(_table("Environment", ["decoding", *own], rows))
    if len(evaluation.sampled.by_type) > 1:
        header = ["task type", "items", *(f"{name} [95%]" for name in by_decoding)]
        rows = []
        for kind, score in evaluation.sampled.by_type.items():
            rates = [scores.by_type[kind].pass_rate for scores in by_decoding.values()]
            rows.append([kind, str(score.items), *(" ".join(_mean_and_interval(rate, 2)) for rate in rates)])
        tables.append(_table("By task type", header, rows))
    tables[-1].notes.extend(evaluation.warnings())
    return tables


def _mean_and_interval(rate: Rate, digits: int = 3) -> tuple[str, str]:
    return f"{rate.mean:.{digits}f}", f"[{rate.low:.{digits}f}, {rate.high:.{digits}f}]"


def _table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    return Table(title, [*map(Cell, header)], [[*map(Cell, row)] for row in rows])


def render_table(report: StudyReport) -> Group:
    """The leaderboard with C(k), the paired differences, and what they come to, for a terminal of 80 columns or more."""
    return Group(
        render_tables([leaderboard(report), differences(report), *best_points(report), *agreements(report)]), Text(render_words(report))
    )


def render_page(report: StudyReport) -> str:
    """The page, as `render_html` makes it."""
    tables = details(report)
    return render_html(
        "report.html.j2",
        report,
        report=report,
        leaderboard=leaderboard(report),
        words=in_words(report),
        details=tables,
        folded=folded(tables),
        protocol=protocol(report),
    )


def details(report: StudyReport) -> list[Table]:
    """The tables below the leaderboard."""
    found = [differences(report), contributions(report), *best_points(report), *agreements(report)]
    found += [*solved_sets(report), *weight_changes(report), replies(report), *limits_tables(report.limits, report.temperature)]
    return [*found, *held_out(report), trainings(report)]


def leaderboard(report: StudyReport) -> Table:
    """Base sampled, base greedy, base majority vote, full, and each other trained set with its C(k)."""
    over = _over(report)
    warm = f"temperature {report.temperature:g}"
    base, rest = report.arm("base"), [arm for arm in report.arms if arm.name != "base"]
    none = Cell("")
    rows = [
        [Cell("base", warm), rate_cell(base.sampled.pass_rate), none, Cell("0"), none],
        [Cell("base greedy"), none, rate_cell(base.greedy.pass_rate), none, Cell("0")],
    ]
    if base.majority:
        rows.append([Cell(f"base maj@{report.majority}"), rate_cell(base.majority), none, none, none])
    for arm in rest:
        shares = [rate_cell(arm.measured(decoding).pass_rate) for decoding in Decoding]
        rows.append([Cell(arm.name), *shares, *(_contribution(arm, decoding) for decoding in Decoding)])
    header = [Cell(figure, f"{drawn}\n{over}") for figure in ("pass@1", "C(k)") for drawn in (warm, "greedy")]
    return Table(f"{report.recipe}: {report.size_text} of {report.split}", [Cell("policy"), *header], rows, _notes(report))


def differences(report: StudyReport) -> Table:
    """Each trained arm minus base and minus full, paired on the same items."""
    header = [Cell("policy")]
    for other in ("base", "full"):
        header += [Cell(f"minus {other}", f"temperature {report.temperature:g}"), Cell(f"minus {other}", "greedy")]
    rows = []
    for arm in report.arms:
        if arm.name == "base":
            continue
        to_base = [difference_cell(arm.measured(decoding).to_base) for decoding in Decoding]
        contributions = [arm.measured(decoding).contribution for decoding in Decoding]
        rows.append([Cell(arm.name), *to_base, *(difference_cell(found.to_full if found else None) for found in contributions)])
    note = f"Differences of pass@1, paired on the same items, {report.level:.0%} over {report.interval_over}, p of the paired t test."
    return Table("Differences", header, rows, [note])


def contributions(report: StudyReport) -> Table:
    """What C(k) is made of: numerator, denominator, both intervals."""
    over = _over(report)
    header = [Cell("policy"), Cell("decoding"), Cell("N", "S(k) - S(base)"), Cell("D", "S(full) - S(base)"), Cell("|D| / SE(D)")]
    header += [Cell("C(k)", "N / D"), Cell("Fieller", over), Cell("paired bootstrap", over)]
    rows = []
    for arm in report.arms:
        for decoding in Decoding:
            found = arm.measured(decoding).contribution
            if found is None:
                continue
            name = f"temperature {report.temperature:g}" if decoding is Decoding.SAMPLED else "greedy"
            fieller = "unbounded" if found.fieller == "unbounded" else interval(found.fieller)
            bootstrap = interval(found.bootstrap) if found.bootstrap else "unbounded"
            cells = (found.strength_text, "not shown" if found.point is None else f"{found.point:.2f}", fieller, bootstrap)
            rows.append([Cell(arm.name), Cell(name), difference_cell(found.gain), difference_cell(found.gain_full), *map(Cell, cells)])
    return Table(
        "Layer contribution",
        header,
        rows,
        [
            "C(k) is the share of the full run's gain over base that training k alone reaches; 1 is all of it. N and D share the base and "
            f"the items, which both intervals allow for. C(k) is a figure only where |D| / SE(D) is at least {SHOWN_FROM:g}, on "
            f"{FEWEST_ITEMS} items or more; Fieller's set is unbounded where D cannot be told from zero."
        ],
    )


def replies(report: StudyReport) -> Table:
    """What is known of the replies besides whether they are right."""
    names = {Decoding.SAMPLED: f"temperature {report.temperature:g}", Decoding.GREEDY: "greedy"}
    return replies_table("Replies", [(arm.name, name, arm.measured(drawn)) for arm in report.arms for drawn, name in names.items()])


def held_out(report: StudyReport) -> list[Table]:
    """The held-out curves as a table, a row for each point; none without them."""
    rows = []
    for arm in report.arms:
        for point in arm.held_out:
            shares = [rate_cell(point.measured(decoding).pass_rate) for decoding in Decoding]
            spent = [Cell(f"{point.episodes:.0f}"), Cell(f"{point.tokens:,.0f}"), Cell(f"{point.seconds:.0f} s")]
            length = Cell(f"{point.sampled.mean_tokens:.1f}", f"{point.sampled.truncated:.1%} cut off")
            gain, share = difference_cell(point.sampled.gain), share_cell(point.sampled.contribution)
            rows.append([Cell(arm.name, f"step {point.step}"), *shares, gain, share, length, *spent])
    header = [Cell("policy"), Cell("pass@1", f"temperature {report.temperature:g}"), Cell("pass@1", "greedy")]
    header += [Cell("gain", "over step 0"), Cell("C(k)", _over(report))]
    header += [Cell("tokens", "of an episode"), Cell("episodes", "learnt from"), Cell("tokens", "learnt from"), Cell("time", "of training")]
    note = (
        "The policies in training on the same items of the validation split, with the same starting states and seeds at every step: gains "
        f"are paired. Gain and C(k) are at temperature {report.temperature:g}; C(k) is the gain over that of full after as many steps."
    )
    return [Table("Held-out curves", header, rows, [note])] if rows else []


def trainings(report: StudyReport) -> Table:
    """What was trained, which learning rate was chosen from which, and what it cost beside full."""
    rows, full = [], report.arm("full").training
    for arm in report.arms:
        run = arm.training
        if run is None:
            continue
        tried = "\n".join(f"{trial.lr:g}: {trial.score:.3f}" for trial in run.lr_tried) or "fixed"
        by_seed = "\n".join(f"seed {seed}: {rate:.3f}" for seed, rate in zip(run.seeds, arm.sampled.by_seed, strict=True))
        share = Cell(f"{run.parameters:,}", f"{run.share:.1%} of all")
        rate = Cell(f"{run.lr:g}", tried)
        cost = [
            Cell("" if spent is None else f"{spent:{form}}", ratio_detail(spent, of_full))
            for spent, of_full, form in (
                (run.seconds, full and full.seconds, ",.1f"),
                (run.tokens, full and full.tokens, ",.0f"),
                (run.flops, full and full.flops, ".2g"),
            )
        ]
        rows.append([Cell(arm.name), share, rate, Cell(f"{arm.sampled.pass_rate.mean:.3f}", by_seed), *cost])
    header = [Cell("policy"), Cell("trained parameters"), Cell("learning rate", "tried: validation pass@1")]
    header += [Cell("pass@1", f"temperature {report.temperature:g}"), Cell("seconds", "of training")]
    header += [Cell("tokens", "sampled"), Cell("operations", "estimated")]
    notes = ["Seconds, tokens and operations: all training seeds together."]
    if report.validation:
        notes.insert(0, f"Learning rates were chosen on {report.validation}, not on the items above.")
    return Table("Training runs", header, rows, notes)


def protocol(report: StudyReport) -> dict[str, str]:
    """How it was measured, as label and text."""
    rows = {
        "model": f"{report.model}, {report.parameters:,} parameters",
        "base fingerprint": report.base,
        "algorithm": report.algorithm,
        "items": f"{report.size_text} of {report.split}",
        "items SHA-256": report.digest,
        "samples of each item": f"{report.samples} (base {report.base_samples}) at temperature {report.temperature:g}, and 1 greedy",
        "most tokens of a reply": str(report.max_tokens),
        "prompt": report.prompt,
        "evaluation seed": str(report.eval_seed),
        **{name: str(value) for name, value in report.settings.items() if "." in name},
        "intervals": f"{report.level:.0%}, over {report.interval_over}",
        "study took": f"{report.seconds:.0f} s",
    }
    return rows | {f"version of {name}": version for name, version in report.versions.items()}


def _notes(report: StudyReport) -> list[str]:
    notes = []
    if report.interval_over == "items":
        notes.append("One training seed: the intervals allow for other items, and not for other training seeds.")
    else:
        notes.append("Base is not trained: its intervals are over items only.")
    if len(report.arms) > 3:
        notes.append("The best of several trained sets, picked from these figures, looks better than it is: confirm it elsewhere.")
    for decoding in Decoding:
        gain = report.arm("full").measured(decoding).to_base
        if gain and gain.difference < 0:
            notes.append(f"Full-parameter training lost ({decoding.value}): C(k) compares losses there.")
    for arm in report.arms:
        if errors := arm.sampled.errors + arm.greedy.errors:
            notes.append(f"Environments failed in {counted(errors, 'sample')} of {arm.name}, counted as wrong.")
        if dropped := sum(step.dropped or 0 for curve in arm.curves for step in curve.steps):
            notes.append(f"Environments failed in the training of {arm.name}: {counted(round(dropped), 'episode')} left out.")
    return notes + report.warnings


def _over(report: StudyReport) -> str:
    """What a column's intervals allow for, on lines no wider than an interval."""
    return f"{report.level:.0%} over {report.interval_over}".replace(" and", "\nand")


def _contribution(arm: Arm, decoding: Decoding) -> Cell:
    measured = arm.measured(decoding)
    if measured.contribution is None:  # full
        gain = measured.to_base
        return Cell("1", f"|D|/SE(D)\n= {abs(gain.difference) / gain.se:.1f}" if gain and gain.se else "")
    return share_cell(measured.contribution)
