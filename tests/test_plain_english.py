"""Docstrings, comments, messages and pages are in plain English: this module lists phrases that are not.

The first line of a docstring says what a function returns or does; it begins with a verb or a noun.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("annotators", "shards", "pipeline", "trainer", "benchmarks", "examples", "tests")
FILES = sorted(
    [*(ROOT / "colophon").glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
)
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "recipes").glob("*.toml"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "Makefile",
    ]
)
FIRST_WORDS = re.compile(r"(Of|What|Who)\b")
PHRASES = {
    r"(un)?paid( for)?": "has loss weight, or is masked (loss weight 0)",
    r"pays for": "has loss weight",
    r"anew": "again; rebuilt",
    r"told|tells?(?!( \w+)? apart)": "reports, raises, returns, logs, states",
    r"stands? (before|behind|under|beside)": "is before, after, in, beside",
    r"lies? (in|under|on|beside)": "is in, is stored in",
    r"looks? whether": "checks",
    r"comes? along": "is bundled",
    r"in the making": "temporary",
    r"tried again": "retried",
    r"in vain": "retries exhausted",
    r"for a person": "human-readable",
    r"go(es)? on": "resumes, continues",
    r"hands? back|handed back": "returns",
    r"whoever": "name the actor",
    r"less the first": "Δ against the first",
    r"makes? no sense": "is invalid: expected ..., got ...",
}
BANNED = {re.compile(rf"\b({phrase})\b", re.IGNORECASE): instead for phrase, instead in PHRASES.items()}


class Text(NamedTuple):
    """A text that a reader meets."""

    line: int
    is_docstring: bool
    content: str


def texts_of(source: str) -> Iterator[Text]:
    """Docstrings, also those of attributes, the other strings, and comments of a module."""
    tree = ast.parse(source)
    docstrings = {
        statement.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node in docstrings, node.value)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], False, token.string)


def problems_of(text: Text) -> Iterator[str]:
    if text.is_docstring and (first := FIRST_WORDS.match(text.content.strip())):
        yield f"a docstring begins with {first[0]!r}"
    yield from banned_in(text.content)


def banned_in(content: str) -> Iterator[str]:
    joined = " ".join(content.split())
    for pattern, instead in BANNED.items():
        for found in pattern.finditer(joined):
            yield f"{found[0]!r}: write {instead!r}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != Path(__file__)], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_a_module_is_in_plain_english(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert [f"line {text.line}: {problem}" for text in texts_of(source) for problem in problems_of(text)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_is_in_plain_english(path: Path) -> None:
    assert list(banned_in(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ('"""Of the weights."""', ["a docstring begins with 'Of'"]),
        ('class A:\n    rate: float\n    """What it is."""', ["a docstring begins with 'What'"]),
        ('def f():\n    """Who reads it."""', ["a docstring begins with 'Who'"]),
        ('def f():\n    """Officers: whole words only."""', []),
        ('x = "Of the weights"', []),
        ("x = 1  # the run goes on", ["'goes on': write 'resumes, continues'"]),
        (
            "x = 1  # this tells them apart; it tells them",
            ["'tells': write 'reports, raises, returns, logs, states'"],
        ),
        ("x = f'{1} is handed\\nback'", ["'handed back': write 'returns'"]),
        ("masked_unpaid_ids = 1", []),
    ],
)
def test_the_phrases_are_found(source: str, problems: list[str]) -> None:
    assert [problem for text in texts_of(source) for problem in problems_of(text)] == problems
