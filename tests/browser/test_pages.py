"""The report and the live page in a browser, of a run whose data attacks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.view.calls import Calls
from colophon.pipeline.reports.view.listing import LONGEST_TEXT
from colophon.pipeline.reports.view.server import ViewServer
from colophon.shards.run_output import open_run
from colophon.shards.tokenizer.tokenizer import TokenizerConfig, load_tokenizer
from tests.hostile import LONG_TEXT, NUM_DOCUMENTS, STRINGS, text_of, write_hostile_run
from tests.pipeline.project import colophon
from tests.view_server import served

pytestmark = pytest.mark.xdist_group("browser")
WIDE: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 320, "height": 640}
IMAGE = STRINGS[1]


@dataclass
class Watched:
    """A page, and what a hostile text could make it do."""

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def root(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the hostile run, with its report; it is made if there is a browser."""
    root = tmp_path_factory.mktemp("browser")
    recipe = write_hostile_run(root)
    called = colophon("report", str(recipe))
    assert (called.code, called.err) == (0, "")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[ViewServer]:
    config = TokenizerConfig(path=str(root / "bytes.tiktoken"), pattern="gpt2")
    calls = Calls(open_run(root / "out"), load_tokenizer=lambda: load_tokenizer(config))
    with served(calls) as server:
        yield server


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """A function that opens an address. At the end no page has run a text, logged an error or asked others."""
    opened: list[tuple[Watched, str]] = []

    def watch(url: str, **options: Any) -> Watched:
        page = browser.new_context(**{"viewport": WIDE, **options}).new_page()
        watched = Watched(page)
        page.on("console", lambda message: watched.problems.append(message.text))
        page.on("pageerror", lambda error: watched.problems.append(str(error)))
        page.on("dialog", lambda dialog: watched.problems.append(dialog.message))
        page.on("request", lambda request: watched.requests.append(request.url))
        opened.append((watched, url))
        page.goto(url)
        return watched

    yield watch
    for watched, url in opened:
        assert watched.problems == []
        assert all(request.startswith((url.partition("#")[0], "data:", "blob:")) for request in watched.requests)
        assert "owned" not in watched.page.title()
        assert watched.page.locator("img, b > script, iframe, object, [onerror], [onmouseover]").count() == 0
        assert watched.page.locator("a:not([href^='#'])").count() == 0
        text = watched.page.locator("body").inner_text()
        assert printable(text) == text
        watched.page.context.close()


def is_dark(page: Page) -> bool:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(int(part) for part in colour[4:-1].split(",")) < 100


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


# the report


@pytest.fixture(scope="module")
def report(root: Path) -> str:
    return (root / "out/report/report.html").as_uri()


def test_the_report_draws_every_chart(report: str, watch: Callable[..., Watched]) -> None:
    page = watch(report).page
    charts = page.locator(".chart")
    assert charts.count() > 5
    expect(page.locator(".chart svg.marks")).to_have_count(charts.count())
    assert not is_dark(page)
    expect(page).to_have_title("Report of " + report.removeprefix("file://").removesuffix("/report/report.html"))


def test_the_report_searches_its_tables(report: str, watch: Callable[..., Watched]) -> None:
    page = watch(report).page
    box = page.locator(".searchable").first
    rows = box.locator("tbody tr")
    num_rows = rows.count()
    box.get_by_role("searchbox").fill("ONERROR")
    expect(box.locator("output")).to_have_text(f"{box.locator('tbody tr:visible').count()} of {num_rows}")
    assert 0 < box.locator("tbody tr:visible").count() < num_rows
    box.get_by_role("searchbox").fill("")
    expect(box.locator("tbody tr:visible")).to_have_count(num_rows)


def test_the_report_is_dark_narrow_and_reached_by_keys(report: str, watch: Callable[..., Watched]) -> None:
    page = watch(report, color_scheme="dark", viewport=PHONE).page
    assert is_dark(page)
    assert page.locator(".chart svg text").first.get_attribute("fill") == "#e7e9ec"
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("navigation").get_by_role("link").first).to_be_focused()
    assert overflow(page) == 0


# the live page


def documents(page: Page) -> Any:
    return page.locator("#list > li")


def test_the_live_page_filters(server: ViewServer, root: Path, watch: Callable[..., Watched]) -> None:
    page = watch(server.url).page
    expect(page.get_by_role("status").first).to_have_text(f"{NUM_DOCUMENTS} documents")
    expect(documents(page)).to_have_count(25)
    page.get_by_role("button", name="Show more").click()
    expect(documents(page)).to_have_count(50)
    labels = page.get_by_role("group", name="label")
    labels.get_by_role("checkbox", name=IMAGE[:10]).check()
    labels.get_by_role("checkbox", name="no value").check()
    columns = open_run(root / "out").annotations().select("label", "url_host").collect().rows()
    chosen = [host for label, host in columns if label in (IMAGE, None)]
    assert 0 < len(chosen) < NUM_DOCUMENTS
    expect(page.get_by_role("status").first).to_have_text(
        f"{len(chosen)} of {NUM_DOCUMENTS} documents meet the filters"
    )
    page.get_by_label("url", exact=True).fill("A.example.ORG")
    chosen = [host for host in chosen if host == "a.example.org"]
    assert chosen
    expect(documents(page)).to_have_count(len(chosen))
    page.reload()
    expect(page.get_by_role("status").first).to_have_text(
        f"{len(chosen)} of {NUM_DOCUMENTS} documents meet the filters"
    )
    expect(labels.get_by_role("checkbox", name="no value")).to_be_checked()
    page.get_by_role("button", name="Clear all").click()
    expect(page.get_by_role("status").first).to_have_text(f"{NUM_DOCUMENTS} documents")


def test_the_live_page_searches_texts(server: ViewServer, watch: Callable[..., Watched]) -> None:
    page = watch(server.url).page
    box = page.get_by_role("searchbox", name="Search the texts")
    box.fill("no text has this")
    box.fill("<IMG SRC")
    found = [i for i in range(NUM_DOCUMENTS) if "<img src" in text_of(i)]
    state = f"{len(found)} documents with this text; searched all {NUM_DOCUMENTS}"
    expect(page.get_by_role("status").first).to_have_text(state)
    assert documents(page).locator("mark").all_inner_texts() == ["<img src"] * len(found)
    box.fill("right to left")
    expect(documents(page).first.locator(".snippet")).to_contain_text("\\u202eright to left\\u2066")


def test_a_document_of_5_mb_is_shown_in_parts(server: ViewServer, watch: Callable[..., Watched]) -> None:
    page = watch(server.url).page
    documents(page).first.get_by_role("button").click()
    text = page.locator("#document-text")
    expect(text).to_have_text("x" * LONGEST_TEXT)
    page.get_by_role("button", name=f"Show more ({len(LONG_TEXT) - LONGEST_TEXT:,} more characters)").click()
    expect(text).to_have_text("x" * (2 * LONGEST_TEXT))
    expect(page.locator("#sequence-state")).to_contain_text("with a part of this document")


def test_a_document_has_its_annotations_and_sequences(server: ViewServer, watch: Callable[..., Watched]) -> None:
    page = watch(server.url).page
    documents(page).nth(7).get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("row", name="label").first).to_contain_text("long long")
    for label in ("\\u2028\\u2029\\ufeff", "\\u202eright to left\\u2066"):
        dialog.get_by_role("button", name="Previous", exact=True).click()
        expect(dialog.get_by_role("row", name="label").first).to_contain_text(label)
    dialog.get_by_label("Layout").select_option("label")
    metadata = dialog.locator(".run.own.role-metadata").first
    expect(metadata).to_have_attribute("title", "metadata, loss weight 1, document 5, 28 tokens")
    dialog.get_by_label("Layout").select_option("meta-tokens")
    masked = dialog.locator(".run.own.role-meta_token").first
    expect(masked).to_have_attribute("title", "meta_token, loss weight 0, document 5, 5 tokens")
    assert float(masked.evaluate("one => getComputedStyle(one).opacity")) < 1
    dialog.locator("summary", has_text="Parts").click()
    expect(dialog.get_by_role("row", name="meta_token").first).to_contain_text("0")


def test_the_live_page_is_used_by_keys(server: ViewServer, watch: Callable[..., Watched]) -> None:
    page = watch(server.url).page
    expect(documents(page)).to_have_count(25)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the documents")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = documents(page).first.get_by_role("button")
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(first).to_be_focused()


def test_the_live_page_is_dark_and_narrow(server: ViewServer, watch: Callable[..., Watched]) -> None:
    page = watch(server.url, color_scheme="dark", viewport=PHONE).page
    expect(documents(page)).to_have_count(25)
    assert is_dark(page)
    page.get_by_text("Filters", exact=True).click()
    expect(page.locator(".histogram, .choices").first).to_be_visible()
    assert overflow(page) == 0
    documents(page).first.get_by_role("button").click()
    expect(page.locator("#sequence .run").first).to_be_attached()
    assert overflow(page) == 0
    widths = page.locator("#document-content").evaluate("one => [one.scrollWidth, one.clientWidth]")
    assert widths[0] == widths[1]


def test_a_command_that_has_ended_is_a_message(root: Path, watch: Callable[..., Watched]) -> None:
    with served(Calls(open_run(root / "out"), load_tokenizer=_no_tokenizer)) as server:
        watched = watch(server.url)
        page = watched.page
        expect(page.get_by_text("No texts are shown: the vocabulary is missing")).to_be_visible()
        expect(page.get_by_role("searchbox", name="Search the texts")).to_be_hidden()
        expect(page.get_by_role("group", name="label")).to_be_visible()
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("status").first).to_contain_text("Failed: ")
    assert [problem for problem in watched.problems if not problem.startswith("Failed to load resource")] == []
    watched.problems.clear()


def _no_tokenizer() -> Any:
    from colophon.shards.common.errors import TokenizerError

    raise TokenizerError("the vocabulary is missing")
