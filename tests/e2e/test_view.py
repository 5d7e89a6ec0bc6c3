"""`onelayer view` in a browser: Chromium, driven by Playwright."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
import viewed
from e2e.commands import start
from made_runs import make_evaluation, outcomes

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect  # noqa: E402

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
LAPTOP, PHONE = (1280, 900), (390, 844)
PATHS = ["", "curves", "profiles", "items", "run?run=grpo/layer-3-seed-0", "run?run=training", "episodes?run=base", "episodes?run=hostile"]


LISTENING = """
import signal
from onelayer.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return viewed.make_viewed(tmp_path_factory.mktemp("viewed"))


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """A server of its own process, as a user starts it; it ends quietly."""
    process = start("view", root, "--port", 0, program=("-c", LISTENING))
    yield address_of(process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, ""), stderr


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, line or process.communicate()
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as found:
        yield found


class opened:
    """A page that fails the test for an error on the console, and for a request to anywhere else."""

    def __init__(self, browser: Browser, address: str, size: tuple[int, int] = LAPTOP, scheme: str = "light"):
        width, height = size
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # pyright: ignore[reportArgumentType]
            base_url=address,
        )
        self.address, self.wrong = address, []

    def __enter__(self) -> Page:
        page = self.context.new_page()
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        page.on("console", lambda message: self.wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", self.look)
        return page

    def look(self, request: Request) -> None:
        if not request.url.startswith((self.address, "data:,")):
            self.wrong.append(f"asked {request.url}")

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_pages_fit_and_follow_the_theme(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> None:
    with opened(browser, address, size, scheme) as page:
        for path in PATHS:
            page.goto(path)
            expect(page.locator("h1")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", ground)[:3])) > 3 * 128
            assert light == (scheme == "light"), ground


def test_profiles_have_intervals_and_the_middle_third(page: Page) -> None:
    page.goto("profiles")
    expect(page.get_by_role("heading", name="tiny: gigpo on arithmetic/test")).to_be_visible()
    assert page.locator(".plot .dot").count() == 6
    assert page.locator(".plot .whisker").count() == 6
    band, plot = (page.locator(f".plot {name}").bounding_box() for name in ("rect.band", "svg.frame"))
    dots = [page.locator(".plot .dot").nth(layer).bounding_box() for layer in range(6)]
    assert band and plot and all(dots)
    inside = [band["x"] < dot["x"] + dot["width"] / 2 < band["x"] + band["width"] for dot in dots if dot]
    assert inside == [False, False, True, True, False, False]
    page.get_by_role("link", name="arithmetic/test").nth(1).click()
    expect(page.get_by_role("heading", name="tiny: grpo on arithmetic/test")).to_be_visible()
    page.get_by_text("gain over base", exact=True).click()
    expect(page).to_have_url(re.compile(r"measure=gain"))
    expect(page.get_by_role("heading", name="tiny: grpo on arithmetic/test")).to_be_visible()
    assert "middle third" in page.locator("#figures").inner_text()


def test_items_are_sorted_and_lead_to_their_episodes(page: Page) -> None:
    page.goto("items?q=base")
    rates = lambda: [int(text) for text in page.locator("table.items tbody td:nth-child(2)").all_inner_texts()]  # noqa: E731
    expect(page.locator("table.items")).to_be_visible()
    assert rates() == sorted(rates())
    page.get_by_text("the easiest").click()
    expect(page).to_have_url(re.compile("order=easiest"))
    expect(page.locator("table.items tbody td").first).not_to_have_text("0")
    assert rates() == sorted(rates(), reverse=True)
    item = page.locator("table.items tbody th").first.inner_text()
    page.locator("table.items tbody td a").first.click()
    expect(page.get_by_role("heading", name="Episodes of base")).to_be_visible()
    expect(page.locator("#lead")).to_contain_text("800")
    assert set(page.locator("#rows .id").all_inner_texts()) == {item}


def test_episodes_by_pages_filters_keys_and_permalink(page: Page, browser: Browser, address: str) -> None:
    page.goto("episodes?run=base")
    assert page.locator("#rows li").count() == 50
    page.keyboard.press("j")
    expect(page.locator(".episode .pager")).to_contain_text("2 of 800")
    page.keyboard.press("j")
    expect(page.locator(".episode .pager")).to_contain_text("3 of 800")
    page.keyboard.press("k")
    expect(page.locator(".episode .pager")).to_contain_text("2 of 800")
    page.keyboard.press("n")
    expect(page.locator(".list .pager").last).to_contain_text("page 2 of 16")
    page.keyboard.press("n")
    expect(page.locator(".list .pager").last).to_contain_text("page 3 of 16")
    page.keyboard.press("b")
    expect(page.locator(".list .pager").last).to_contain_text("page 2 of 16")
    page.get_by_label("verdict").select_option("wrong")
    expect(page).to_have_url(re.compile("verdict=wrong"))
    expect(page.locator("#rows .badge", has_text="correct")).to_have_count(0)
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("item-15")
    expect(page.locator("#rows .id").first).to_have_text("item-15")
    assert set(page.locator("#rows .id").all_inner_texts()) == {"item-15"}
    page.locator("#rows a").last.click()
    expect(page).to_have_url(re.compile("open="))
    expect(page.locator("#rows a").last).to_have_attribute("aria-current", "true")
    heading, response = page.locator(".episode h2").inner_text(), page.locator(".response").inner_text()
    with opened(browser, address) as other:
        other.goto(page.url)
        assert (other.locator(".episode h2").inner_text(), other.locator(".response").inner_text()) == (heading, response)
        assert other.get_by_label("verdict").input_value() == "wrong"
    page.go_back()
    expect(page).not_to_have_url(re.compile("open="))


def test_everything_is_reached_by_tab_and_opened_by_enter(page: Page) -> None:
    page.goto("episodes?run=grpo/layer-3-seed-0&page=4")
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.tagName, document.activeElement.innerText, getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    texts = " ".join(text for _, text, _ in reached)
    assert all(word in texts for word in ("Runs", "Learning curves", "train-37"))
    assert {"A", "SELECT", "INPUT"} <= {tag for tag, _, _ in reached}
    assert all(outline != "none" for tag, _, outline in reached if tag in ("A", "SELECT", "INPUT"))
    page.locator("#rows a").nth(3).focus()
    page.keyboard.press("Enter")
    expect(page.locator(".episode h2")).to_contain_text("train-38")
    expect(page.locator(".episode")).to_contain_text("advantage \u22121")
    assert "<|im_start|>" not in page.locator(".episode").inner_text()
    page.keyboard.press("p")
    expect(page.locator(".episode .prompt")).to_have_count(3)


def test_a_phone_shows_the_list_or_the_episode(browser: Browser, address: str) -> None:
    with opened(browser, address, PHONE) as page:
        page.goto("episodes?run=base")
        expect(page.locator(".list")).to_be_visible()
        expect(page.locator(".episode")).to_be_hidden()
        page.locator("#rows a").nth(2).click()
        expect(page.locator(".episode")).to_be_visible()
        expect(page.locator(".list")).to_be_hidden()
        page.get_by_role("link", name="list", exact=True).click()
        expect(page.locator(".list")).to_be_visible()


def test_texts_of_models_are_never_run(page: Page) -> None:
    for at, text in enumerate(viewed.HOSTILE):
        page.goto("episodes?run=hostile")
        page.locator("#rows a").nth(at).click()
        expect(page.locator(".episode h2")).to_contain_text(f"item {at} ")
        seen = page.locator(".episode .response").text_content()
        assert seen == (
            text if text.isprintable() or "\n" in text else "\\x1b[31mred\\x1b]0;owned\\x07 \\u202eDLROW\\u202c \\x00 \\U000e0041"
        )
        assert page.evaluate("window.owned") is None
        assert page.locator("h1").count() == 1 and "owned" not in page.title()
        assert page.locator("main img, main style, main script, .text *").count() == 0
        assert page.locator("a[href^='javascript:']").count() == 0
    for path in ("", "run?run=hostile", "items"):
        page.goto(path)
        assert page.evaluate("window.owned") is None


def test_pages_follow_a_run_that_trains(page: Page, root: Path) -> None:
    run = viewed.training(root / "live", 2, trained_set="layer:1")
    page.goto("curves?q=live")
    expect(page.locator("#curves")).to_contain_text("2 of 40 steps")
    before = page.locator(".plot polyline").get_attribute("points")
    viewed.metrics(run, 9)
    expect(page.locator("#curves")).to_contain_text("9 of 40 steps")
    assert page.locator(".plot polyline").get_attribute("points") != before
    page.goto("episodes?run=live")
    expect(page.locator("#viewer")).to_contain_text("No episodes here")
    viewed.kept_episodes(run, 0, 8)
    expect(page.locator("#rows li")).to_have_count(36)
    page.goto("")
    (root / "live" / "metrics.jsonl").unlink()
    make_evaluation(root / "new" / "one", outcomes(0.5, 3, items=4))
    expect(page.locator("#list")).to_contain_text("new/one")


def test_without_scripts_the_pages_work(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, base_url=address)
    page = context.new_page()
    page.goto("episodes?run=base&page=2")
    page.locator("#rows a").nth(5).click()
    assert "56 of 800" in page.locator(".episode .pager").inner_text()
    page.get_by_label("verdict").select_option("correct")
    page.get_by_role("button", name="show").click()
    assert "verdict=correct" in page.url and page.locator("#rows .badge", has_text="wrong").count() == 0
    context.close()
