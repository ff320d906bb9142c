"""Builds the site of the documentation: copies the pages as they are, and calls Zensical in its strict mode.

    python docs/build_site.py [--to out/docs]

The site is in `site/` of that directory. Nothing is loaded from the network; a link without a target ends the build.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "docs" / "zensical.toml"
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.css", "docs/**/*.svg", "docs/**/*.webp", "examples/**/*.md")
LINKED = (
    "LICENSE",
    "CITATION.cff",
    "benchmarks/results/*.json",
    "benchmarks/results/*.png",
    "examples/**/*.py",
    "examples/**/*.toml",
)
"""Files that pages show or link to. All keep their places, so that a link works on a code host and on the site."""


def stage(target: Path) -> None:
    """Copy the pages and the files that they link to into `target`, which is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    for pattern in (*PAGES, *LINKED):
        for path in ROOT.glob(pattern):
            copy = target / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


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
