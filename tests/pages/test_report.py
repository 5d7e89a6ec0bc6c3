"""The report: terminal, page and report.json say the same, and nothing in a text becomes markup."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from onelayer.common.errors import UserError
from onelayer.pages.report import contributions, differences, leaderboard, render_table, trainings, write_report
from onelayer.studies.study_report import StudyReport, build_report

WEAK = {"base": (0.26, 0.55), "full": (0.33, 0.57), "layer:1": (0.30, 0.56), "layer:3": (0.36, 0.60)}


class Page(HTMLParser):
    """Tables as lists of cell texts, scripts by id, and every URL that an element would load."""

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[tuple[str | None, str]] = []
        self.urls: list[str] = []
        self._rows: list[list[str]] = []
        self._cell = self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.urls += [value for key, value in attrs if key in ("src", "href") and value]
        if tag == "table":
            self._rows = self.tables[values["id"] or ""] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._cell = True
        elif tag == "small":
            self._rows[-1][-1] += "\n"
        elif tag == "script":
            self.scripts.append((values.get("id"), ""))
            self._script = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False
        elif tag == "script":
            self._script = False

    def handle_data(self, data):
        if self._script:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._cell:
            self._rows[-1][-1] += data


def terminal(report: StudyReport, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render_table(report))
    return out.getvalue()


@pytest.mark.parametrize("seeds", [1, 3])
def test_page_terminal_and_json_agree(tmp_path, study, seeds):
    report = study(seeds=seeds)
    write_report(report, tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text())
    page = Page((tmp_path / "report.html").read_text())
    assert StudyReport.model_validate(saved) == report
    assert json.loads(dict(page.scripts)["data"]) == saved  # the charts are drawn from this
    for id, table in {
        "leaderboard": leaderboard(report),
        "differences": differences(report),
        "layer-contribution": contributions(report),
        "training-runs": trainings(report),
    }.items():
        rows = [table.header, *table.rows]
        assert page.tables[id] == [[cell.figure + ("\n" + cell.detail if cell.detail else "") for cell in row] for row in rows]
    printed = terminal(report)
    for row in leaderboard(report).rows:
        for text in (line for cell in row for line in (cell.figure, *cell.detail.split("\n"))):
            assert text in printed  # nothing is cut at 80 columns
    for arm in saved["arms"]:
        for decoding in ("sampled", "greedy"):
            rate = arm[decoding]["pass_rate"]
            assert f"{rate['mean']:.3f}" in printed and f"[{rate['low']:.3f}, {rate['high']:.3f}]" in printed
            if arm[decoding]["contribution"]:
                found = arm[decoding]["contribution"]
                assert f"{found['point']:.2f}" in printed and "[{:.2f}, {:.2f}]".format(*found["fieller"]) in printed


def test_the_leaderboard_has_the_base_three_times_and_names_what_intervals_cover(study):
    table = leaderboard(study())
    assert [" ".join((row[0].figure, row[0].detail)).strip() for row in table.rows] == [
        "base temperature 1",
        "base greedy",
        "base maj@8",
        "full",
        "layer:3",
    ]
    assert all(cell.detail.endswith("over items") for cell in table.header[1:])
    assert "not for other training seeds" in table.notes[0]
    assert all("seeds\nand items" in cell.detail for cell in leaderboard(study(seeds=3)).header[1:])


def test_failing_environments_are_told_of(study):
    report = study()
    layer = report.arm("layer:3")
    curve = layer.curves[0]
    broken = [curve.model_copy(update={"steps": [step.model_copy(update={"dropped": 2.0}) for step in curve.steps]})]
    arm = layer.model_copy(update={"sampled": layer.sampled.model_copy(update={"errors": 3}), "curves": broken})
    told = leaderboard(report.model_copy(update={"arms": [*report.arms[:2], arm]})).notes
    assert "Environments failed in 3 samples of layer:3, counted as wrong." in told
    assert f"Environments failed in the training of layer:3: {2 * len(curve.steps)} episodes left out." in told
    assert not any("Environments" in note for note in leaderboard(report).notes)


def test_no_ratio_without_a_gain(study):
    report = study(WEAK, seeds=3, items=200)
    printed = re.sub(r"\s+", " ", terminal(report))
    found = report.arm("layer:1").sampled.contribution
    assert found is not None and found.fieller == "unbounded" and found.point is None
    assert "unbounded" in printed and "not shown" in printed and f"= {found.strength_text} < 4" in printed
    assert "looks better than it is" in printed
    assert all(arm.sampled.p_holm is not None for arm in report.arms[2:])


def test_text_stays_text_and_nothing_is_loaded(tmp_path, study):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)> [red]x[/red]"
    report = study({"base": (0.3, 0.5), "full": (0.7, 0.8), hostile: (0.6, 0.7)}, recipe=hostile)
    write_report(report, tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.urls == [] and len(page.scripts) == 3
    assert hostile not in text and hostile in page.tables["leaderboard"][-1][0]
    assert json.loads(dict(page.scripts)["data"])["recipe"] == hostile
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert "[red]x[/red]" in terminal(report, width=200)


def test_arms_that_are_not_comparable_are_refused(arms):
    meta = {"recipe": "r", "model": "tiny", "parameters": 1, "algorithm": "grpo", "versions": {}, "seconds": 0.0}
    base, full, layer = arms(items=50)
    with pytest.raises(ValueError, match="needs base and full"):
        build_report([base, layer], **meta)
    recorded = layer.evaluations[0]
    moved = replace(recorded, manifest=recorded.manifest.model_copy(update={"seed": 9}))
    with pytest.raises(UserError, match="layer:3 and base were measured with different evaluation seed"):
        build_report([base, full, replace(layer, evaluations=[moved])], **meta)
    reseeded = layer.training.model_copy(update={"seeds": [4]})
    with pytest.raises(ValueError, match=r"layer:3: trained with seeds \[4\], full with \[0\]"):
        build_report([base, full, replace(layer, training=reseeded)], **meta)
