"""The machine's own Chromium, without a window. Where there is none, tests are skipped; `make browser` fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
_MILLISECONDS = 60_000
"""The longest wait for what a test expects, on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        message = f"needs Chromium: none of {', '.join(NAMES)} is on the PATH"
        if os.environ.get("COLOPHON_NEEDS_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=_MILLISECONDS)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()
