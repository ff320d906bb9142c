"""Builds the site of the documentation: copies the pages as they are, and calls Zensical in its strict mode.

    python docs/build_site.py [--to out/docs]

The site is in `site/` of that directory. Nothing is loaded from the network; a link without a target ends the build.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "docs" / "zensical.toml"
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.css", "examples/**/*.md")
_LINK = re.compile(r"\]\(([^)#:]+)")


def stage(target: Path) -> None:
    """Copy the pages, and the files that they show or link to, into `target`, which is replaced.

    All keep their places, so that a link works on a code host and on the site.
    """
    shutil.rmtree(target, ignore_errors=True)
    pages = [path for pattern in PAGES for path in ROOT.glob(pattern)]
    for path in {*pages, *(file for page in pages if page.suffix == ".md" for file in _linked(page))}:
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _linked(page: Path) -> Iterator[Path]:
    """Return the files of the checkout that a page links to."""
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / link).resolve()
        if path.is_file() and path.is_relative_to(ROOT):
            yield path


def build(directory: Path) -> int:
    """Write `directory/site` from `directory/pages`; return Zensical's exit code."""
    shutil.rmtree(directory / "site", ignore_errors=True)
    stage(directory / "pages")
    shutil.copyfile(CONFIG, directory / CONFIG.name)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", CONFIG.name]
    return subprocess.run(command, cwd=directory, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the site of the documentation.")
    parser.add_argument("--to", type=Path, default=ROOT / "out" / "docs", help="directory of the site and its sources")
    directory = parser.parse_args().to
    if importlib.util.find_spec("zensical") is None:
        sys.exit("docs: zensical is missing: pip install -e '.[docs]', with Python 3.11 or later")
    directory.mkdir(parents=True, exist_ok=True)
    sys.exit(build(directory))
