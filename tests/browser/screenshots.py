"""Write the pictures of the pages, `docs/images/*.webp`: `python -m tests.browser.screenshots`.

They show the run of `example`, so that no text of others is published. They are drawn by the machine's Chromium.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from rich.console import Console
from rich.terminal_theme import MONOKAI

from colophon.pipeline.cli.options import load_and_check
from colophon.pipeline.reports.inspection import sequence_at, show_sequence
from colophon.pipeline.reports.view.calls import Calls
from colophon.pipeline.runs.calibration import calibrated
from colophon.shards.run_output import open_run
from tests.browser.conftest import NAMES
from tests.browser.example import write_example_run
from tests.pipeline.project import colophon
from tests.view_server import served

IMAGES = Path(__file__).parents[2] / "docs/images"
_LARGEST = 150_000
"""Bytes of a picture."""


def main() -> None:
    """Make the run and write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        sys.exit(f"needs Chromium: none of {', '.join(NAMES)} is on the PATH")
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        os.chdir(directory)
        recipe = write_example_run()
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        _report(browser, recipe)
        _inspect(browser, recipe)
        with _served(recipe) as url:
            _view(browser, url)
        browser.close()


def _report(browser: Browser, recipe: Path) -> None:
    called = colophon("report", str(recipe))
    assert called.code == 0, called.err
    url = (Path.cwd() / "out/example/report/report.html").as_uri()
    page = browser.new_page(viewport={"width": 1180, "height": 760})
    page.goto(url)
    expect(page.locator(".chart svg.marks")).to_have_count(page.locator(".chart").count())
    page.locator("#layouts").evaluate("one => one.scrollIntoView()")
    _save(page.screenshot, "report")


def _inspect(browser: Browser, recipe: Path) -> None:
    resolved = calibrated(load_and_check(str(recipe), None), write=False, log=lambda line: None)
    console = Console(record=True, width=108, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    show_sequence(sequence_at(resolved, layout="prepend-url", row=2), console=console)
    page = browser.new_page(viewport={"width": 960, "height": 420}, device_scale_factor=1.5)
    page.set_content(console.export_html(theme=MONOKAI, inline_styles=True))
    page.add_style_tag(
        content="body { margin: 0; padding: 16px; } pre { margin: 0; line-height: 1.35; font-size: 14px; }"
    )
    _save(page.locator("body").screenshot, "inspect")


@contextmanager
def _served(recipe: Path) -> Iterator[str]:
    resolved = load_and_check(str(recipe), None)
    with served(Calls(open_run(resolved.store.files.path), load_tokenizer=lambda: resolved.tokenizer)) as server:
        yield server.url


def _view(browser: Browser, url: str) -> None:
    page = browser.new_page(viewport={"width": 1180, "height": 760})
    _search(page, url, topic="Science")
    _save(page.screenshot, "view")
    page.set_viewport_size({"width": 1080, "height": 700})
    page.locator("#list h2 button").first.click()
    page.get_by_label("Layout").select_option("prepend-url")
    sequence = page.locator("#sequence")
    expect(sequence.locator(".run.role-metadata").first).to_be_visible()
    page.locator("#sequence-part").scroll_into_view_if_needed()
    page.locator("#document-content").evaluate("one => one.scrollTo(0, one.scrollHeight)")
    _save(page.locator("dialog").screenshot, "view-document")


def _search(page: Page, url: str, *, topic: str) -> None:
    page.goto(url)
    expect(page.locator(".histogram").first).to_be_attached()
    page.get_by_role("searchbox", name="Search the texts").fill("tide")
    page.get_by_role("group", name="topic").get_by_role("checkbox", name=topic).check()
    expect(page.locator("mark").first).to_be_visible()
    page.locator("#more-documents").wait_for()
    page.locator("#text").blur()


def _save(shoot: Callable[[], bytes], name: str) -> None:
    """Write a picture; lossless WebP takes half the bytes of PNG."""
    image = Image.open(io.BytesIO(shoot())).convert("RGB")
    path = IMAGES / f"{name}.webp"
    image.save(path, lossless=True, method=6)
    size = path.stat().st_size
    sys.stdout.write(f"{path}: {size / 1000:.0f} kB\n")
    assert size < _LARGEST


if __name__ == "__main__":
    main()
