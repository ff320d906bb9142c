"""The site of the documentation: it builds, strictly; it has every page; and it loads nothing from another host."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("zensical", reason="needs Python 3.11")
tomllib = pytest.importorskip("tomllib")

ROOT = Path(__file__).parents[1]
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))
PAGES = {path.relative_to(ROOT).as_posix() for pattern in ("*.md", "docs/**/*.md") for path in ROOT.glob(pattern)}


def targets(entries: Any) -> Iterator[str]:
    """The pages of a navigation, at any depth."""
    if isinstance(entries, str):
        yield entries
        return
    for entry in entries.values() if isinstance(entries, dict) else entries:
        yield from targets(entry)


def build(directory: Path, *, root: Path = ROOT) -> tuple[int, str]:
    """Run the script of the checkout `root`; return its exit code and what it printed."""
    command = [sys.executable, "docs/build_site.py", "--to", str(directory)]
    done = subprocess.run(
        command, cwd=root, text=True, capture_output=True, check=False, timeout=120, env={**os.environ, "NO_COLOR": "1"}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    directory = tmp_path_factory.mktemp("docs")
    code, printed = build(directory)
    assert code == 0, printed
    return directory / "site"


def test_the_reference_of_python_is_up_to_date() -> None:
    """In a process of its own: `colophon.torch` is imported nowhere else."""
    command = [sys.executable, "docs/python_reference.py"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True, timeout=120)
    page = (ROOT / "docs" / "python-reference.md").read_text(encoding="utf-8")
    assert page == done.stdout, "docs/python-reference.md is out of date: run `make docs`"


def test_every_page_is_in_the_navigation() -> None:
    listed = list(targets(CONFIG["project"]["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) >= PAGES, f"docs/zensical.toml: nav lacks {sorted(PAGES - set(listed))}"
    assert [page for page in listed if not (ROOT / page).is_file()] == []


def test_the_site_has_every_page(site: Path) -> None:
    expected = {page.removesuffix(".md") + ".html" for page in PAGES - {"README.md"}} | {"index.html"}
    assert expected <= {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert "search.json" in {path.name for path in site.iterdir()}


def test_every_file_that_a_page_shows_or_links_to_is_on_the_site(site: Path) -> None:
    """Zensical checks links between pages; this checks pictures, styles, scripts, and links to other files."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its addresses begin at the root of a host
            continue
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:src|href)=\"([^\"#?]+)", text):
            if "://" not in target and not target.startswith(("data:", "mailto:")):
                path = page.parent / unquote(html.unescape(target))
                assert path.exists(), f"{page.relative_to(site)}: {target}"


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    """Links (`<a href>`) may lead outside; scripts, styles, images, fonts and frames may not."""
    for page in [*site.rglob("*.html"), *(ROOT / "docs").glob("*.css")]:
        text = page.read_text(encoding="utf-8")
        elements = re.findall(r"<(?!a\s)[a-z]+\s[^>]*\s(?:src|href)=\"?(?:https?:)?//[^>]*>", text)
        imports = re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^\s)]*", text)
        assert not elements + imports, f"{page.name} loads {elements + imports}"


def test_a_link_without_a_target_ends_the_build(tmp_path: Path) -> None:
    """The build of a page with a broken link, by the same script and settings."""
    root = tmp_path / "checkout"
    (root / "docs").mkdir(parents=True)
    for name in ("build_site.py", "zensical.toml"):
        (root / "docs" / name).write_bytes((ROOT / "docs" / name).read_bytes())
    for page in targets(CONFIG["project"]["nav"]):
        (root / page).parent.mkdir(parents=True, exist_ok=True)
        (root / page).write_text("# A page\n\nText.\n")
    assert build(tmp_path / "sound", root=root)[0] == 0
    (root / "docs" / "faq.md").write_text("# A page\n\n[a heading](running.md#nothing)\n")
    code, printed = build(tmp_path / "broken", root=root)
    assert code != 0
    assert "docs/faq.md:3" in printed and "anchor does not exist" in printed
