"""The pages of the documentation, and the code blocks in them.

A block whose command cannot run in a test has a comment above it, which neither a code host nor the site shows:
`<!-- not run: needs a cluster -->`; `<!-- not run below: ... -->` holds for the rest of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(ROOT / "docs").with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").rglob("*.md"))
}
"""The pages of `docs/`, by their paths in it without `.md`."""
TOP = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
"""The pages beside the README, which is one of them."""
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"<!-- not run(?P<below> below)?: (?P<reason>[^>]+) -->\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    """Empty: what a command prints, or a picture."""
    code: str
    not_run: str | None
    """Why tests do not run it."""


def place(page: str) -> Path:
    """The file of a page, by its name in `TOP` or `PAGES`."""
    return ROOT / f"{page}.md" if page in TOP else ROOT / "docs" / f"{page}.md"


def code_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return list(_blocks(page, {**TOP, **PAGES}[page]))


def _blocks(page: str, text: str) -> Iterator[Block]:
    below: str | None = None
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        rest = [marker["reason"] for marker in _MARKER.finditer(before) if marker["below"]]
        above = re.search(rf"{_MARKER.pattern}\Z", before)
        below = rest[-1] if rest else None
        yield Block(
            page=page,
            line=before.count("\n") + 1,
            language=fence["language"],
            code=re.sub(rf"^{fence['indent']}", "", fence["code"], flags=re.MULTILINE),
            not_run=above["reason"] if above else below,
        )
