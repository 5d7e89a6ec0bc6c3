"""The leaderboard in a browser: sorted, filtered, linked to, in both themes, with nothing asked of the network and nothing executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_evaluation, make_run, make_runs, outcomes

from onelayer.cli.main import main

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")

LAPTOP, PHONE = {"width": 1366, "height": 850}, {"width": 390, "height": 844}
TABLE = "table=math:arithmetic/test:dddddddd"
EVIL = [
    "<script>window.evil = 1</script>",
    "<img src=x onerror='window.evil = 1'>",
    "<svg onload='window.evil = 1'>",
    "</script><script>window.evil = 1</script>",
    "[click](javascript:window.evil=1) **bold**",
    "\x1b[31mred\x1b]8;;http://127.0.0.1:9/\x07\u202egnp.exe",
    "{{ 7 * 7 }}",
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make_runs(root / "runs")
    make_evaluation(root / "runs/<b>broken</b>", outcomes(0.3, 1))
    (root / "runs/<b>broken</b>/evaluation.json").write_text("{")
    assert main(["leaderboard", str(root / "runs"), "--output", str(root / "site")]) == 0
    return root / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


TABLE = "#table=math:arithmetic/test:dddddddd"


class Tab:
    """A page under watch: what it asks for, and what it complains of."""

    def __init__(self, browser: Any, site: Path, fragment: str = TABLE, **context: Any):
        self.context = browser.new_context(**{"viewport": LAPTOP} | context)
        self.page = self.context.new_page()
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.address = (site / "index.html").as_uri()
        self.page.goto(self.address + fragment)

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.said == [] and {url.partition("#")[0] for url in self.asked} == {self.address}
        self.context.close()

    def column(self, number: int) -> list[str]:
        """The first lines of a column's cells, from 1."""
        cells = self.page.locator(f"#entries tbody tr:not(.details) > :nth-child({number})").all_inner_texts()
        return [cell.split("\n")[0].strip() for cell in cells]

    @property
    def sets(self) -> list[str]:
        return self.column(2)

    @property
    def fragment(self) -> str:
        return self.page.evaluate("decodeURIComponent(location.hash)")


def test_the_overview_has_every_policy_on_every_suite_and_leads_to_the_tables(browser: Any, site: Path) -> None:
    board = json.loads((site / "leaderboard.json").read_text())
    with Tab(browser, site, "") as tab:
        page = tab.page
        assert page.locator("#entries").is_hidden() and page.locator("#q").is_hidden()
        assert [text.split("\n")[0] for text in page.locator("#policies thead th").all_inner_texts()][3:] == ["math", "math"]
        for decoding in ("sampled", "greedy"):
            page.get_by_text(decoding, exact=True).click()
            seen = {tuple(row.split("\t")[:2]): row.replace("\n", " ") for row in page.locator("#policies tbody tr").all_inner_texts()}
            for entry in board["tables"][0]["entries"]:
                (low, high), rate = entry[decoding]["interval"], entry[decoding]["pass_rate"]
                assert f"{rate:.3f} [{low:.3f}, {high:.3f}]" in seen[entry["trained_set"], entry["algorithm"] or ""]
            assert len(seen) == 6
            (pair,), difference = board["tables"][0]["algorithms"], board["tables"][0]["algorithms"][0][decoding]["difference"]
            (row,) = page.locator("#pairs tbody tr").all_inner_texts()
            assert row.startswith(f"{pair['trained_set']}\t{pair['algorithm']} minus {pair['minus']}\t")
            assert f"{difference['difference']:+.3f}".replace("-", "\u2212") in row
        page.locator("#policies thead a").first.click()
        assert "6 of 6 entries" in page.inner_text("#count") and page.locator("#overview").is_hidden()
        page.goto("about:blank")
        page.goto(tab.address)
        assert "6 of 6 entries" in page.inner_text("#count")  # it remembers
        page.select_option("#table", label="overview")
        page.select_option("#table", label="math500/test, 160 items")
        page.go_back()
        assert page.locator("#overview").is_visible()


def test_entries_of_one_name_say_what_sets_them_apart(browser: Any, tmp_path: Path) -> None:
    for at, config in enumerate(({"lr": 1e-3}, {"lr": 1e-4}, {"lr": 1e-4, "clip": 0.1})):
        make_run(tmp_path / "runs" / str(at), 0.4, config=config, domain="other", split="me:me/Mine-v0/test")
    assert main(["leaderboard", str(tmp_path / "runs"), "--output", str(tmp_path / "site")]) == 0
    with Tab(browser, tmp_path / "site", "") as tab:
        assert "me:me/Mine-v0" in tab.page.inner_text("#policies thead")
        tab.page.locator("#policies thead a").first.click()
        rows = [" ".join(row.split()) for row in tab.page.locator("#entries tbody th").all_inner_texts()]
        assert len(set(rows)) == 3 and sum("lr 0.0001" in row for row in rows) == 2 and sum("lr 0.001" in row for row in rows) == 1
        assert tab.column(5) == ["1", "1", "1"]


def test_the_first_table_is_sorted_by_pass_rate_with_shared_ranks(browser: Any, site: Path) -> None:
    board = json.loads((site / "leaderboard.json").read_text())
    with Tab(browser, site) as tab:
        entries = board["tables"][0]["entries"]
        assert tab.sets == [entry["trained_set"] for entry in entries] and tab.sets[0] == "full"
        assert tab.column(1) == [str(entry["sampled"]["rank"]) for entry in entries]
        assert tab.column(6)[0] == f"{entries[0]['sampled']['pass_rate']:.3f}"
        assert "6 of 6 entries on 160 items of arithmetic/test" in tab.page.inner_text("#count")
        assert "<b>broken</b>" in tab.page.inner_text("#left-out")


def test_sorting_by_mouse_and_by_keyboard(browser: Any, site: Path) -> None:
    with Tab(browser, site) as tab:
        tab.page.get_by_role("button", name="trained set").click()
        assert tab.sets == sorted(tab.sets) and tab.fragment == f"{TABLE}&sort=set"
        tab.page.keyboard.press("Enter")
        assert tab.sets == sorted(tab.sets, reverse=True)
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Tab")
        tab.page.keyboard.press("Enter")  # the heading two further on: algorithm
        assert tab.column(4) == ["gigpo", "grpo", "grpo", "grpo", "", ""]
        tab.page.get_by_role("button", name="C(k)").click()
        assert [cell != "" for cell in tab.column(9)] == [True, True, False, False, False, False]
        assert tab.page.locator("th[aria-sort=descending]").inner_text().startswith("C(k)")


def test_filters_tables_and_decoding(browser: Any, site: Path) -> None:
    with Tab(browser, site) as tab:
        tab.page.select_option("#algorithm", "grpo")
        assert tab.sets == ["full", "layer:3", "layer:0"]
        tab.page.fill("#q", "layer:3")
        assert tab.sets == ["layer:3"] and "1 of 6" in tab.page.inner_text("#count")
        tab.page.fill("#q", "nothing is called so")
        assert tab.sets == []
        tab.page.fill("#q", "")
        tab.page.select_option("#algorithm", "")
        sampled = tab.column(6)
        tab.page.get_by_text("greedy", exact=True).click()
        assert tab.column(6) != sampled and "decoding=greedy" in tab.fragment
        tab.page.select_option("#table", label="math500/test, 160 items")
        assert {"published", "unverified"} == set(tab.column(13))
        tab.page.select_option("#mark", "published")
        assert set(tab.column(1)) == {"\u2013"} and "single run" in tab.column(5)
        assert not tab.page.locator(".range").count()


def test_a_link_shows_what_it_was_copied_from(browser: Any, site: Path) -> None:
    with Tab(browser, site) as tab:
        tab.page.select_option("#algorithm", "grpo")
        tab.page.get_by_role("button", name="minus full").click()
        tab.page.get_by_role("link", name="layer:0").click()
        told = tab.page.inner_text("tr.details")
        assert "pass@1 by seed" in told and "layer-0-1/test" in told and "Holm" in told
        link, sets = tab.page.evaluate("location.hash"), tab.sets
    with Tab(browser, site, link) as tab:
        assert tab.sets == sets == ["layer:3", "layer:0", "full"]
        assert tab.page.inner_text("tr.details") == told
        tab.page.get_by_role("link", name="layer:0").click()
        assert not tab.page.locator("tr.details").count()
        tab.page.go_back()
        assert tab.page.inner_text("tr.details") == told
    entry = next(part for part in link.split("&") if part.startswith("entry="))
    with Tab(browser, site, f"#{entry}") as tab:
        assert len(tab.sets) == 6 and tab.page.locator("tr.details").count() == 1
    for broken in ("#sort=constructor&decoding=x&table=none&entry=none", "#%E0%A4%A"):
        with Tab(browser, site, broken) as tab:
            assert tab.page.locator("#policies tbody tr").count() == 6


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read_and_nothing_is_cut_off(browser: Any, site: Path, scheme: str, size: dict[str, int]) -> None:
    """Text and ground differ by 4.5 : 1 or more, everywhere; the page itself never scrolls sideways."""
    with Tab(browser, site, "", color_scheme=scheme, viewport=size) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.page.evaluate(CONTRAST) == []
    with Tab(browser, site, color_scheme=scheme, viewport=size) as tab:
        tab.page.get_by_role("link", name="layer:0").click()
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert tab.page.evaluate(CONTRAST) == []
        ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(json.loads("[" + ground[4:-1] + "]")) > 380) is (scheme == "light")
        if size is PHONE:
            tab.page.select_option("#sort", "set")
            assert tab.sets == sorted(tab.sets)


CONTRAST = """() => {
  const parse = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = element => { const c = parse(getComputedStyle(element).backgroundColor);
    return c.length === 3 || c[3] === 1 ? c : element.parentElement ? ground(element.parentElement) : [255, 255, 255]; };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()) || !element.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.className} ${ratio.toFixed(2)} ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""


def test_text_of_others_is_shown_and_never_obeyed(browser: Any, tmp_path: Path) -> None:
    """Names of policies and models, prompts, splits, recipes, directories: what a submission can fill with anything."""
    runs, rate = tmp_path / "runs", outcomes(0.4, 3)
    for number, text in enumerate(EVIL):
        fields: dict[str, Any] = {"policy": text, "model": text, "prompt": text, "split": f"{text}/test", "domain": text}
        make_evaluation(runs / f"evil-{number}", rate, **fields)
    make_run(runs / "<img src=x onerror=alert(1)>", 0.5, prompt=EVIL[0])
    assert main(["leaderboard", str(runs), "--output", str(tmp_path / "site")]) == 0
    raw = (tmp_path / "site/index.html").read_text()
    assert "window.evil = 1</script>" not in raw and "\x1b" not in raw and raw.count("<script") == 2
    keys = [f"{text}:{text}/test:dddddddd" for text in EVIL]
    with Tab(browser, tmp_path / "site") as tab:
        options = tab.page.locator("#table option").evaluate_all("options => options.map(option => option.value)")
        for text, key in zip(EVIL, keys, strict=True):
            shown = key if "\x1b" not in text else next(option for option in options if "x1b" in option)
            tab.page.select_option("#table", shown)
            (name,) = tab.sets
            assert name == text or ("\\x1b[31mred" in name and "\\u202e" in name)
            tab.page.get_by_role("link", name=name, exact=True).click()
            assert "directory" not in tab.page.inner_text("tr.details") and "evil-" in tab.page.inner_text("tr.details")
        assert tab.page.evaluate("window.evil") is None
        assert tab.page.locator("main :is(img, svg, script, b:not(.range b), strong)").count() == 0
