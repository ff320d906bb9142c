"""Spans of personal data: where each finder's matches are, without overlaps, and texts in which they are replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

Kind = Literal["email", "ip", "iban", "phone"]
KINDS: tuple[Kind, ...] = ("email", "ip", "iban", "phone")

PLACEHOLDERS: dict[Kind, str] = {kind: f"<{kind}-pii>" for kind in KINDS}
"""The replacements of Apertus (arXiv 2509.14233), and `<phone-pii>`."""


class Span(NamedTuple):
    """A part of a text."""

    start: int
    """The first character (code point), from 0."""
    end: int
    """The character after the last one."""
    kind: Kind


Finder = Callable[[str], Iterable[tuple[int, int]]]
"""Returns the start and end of each match in a text."""


def found_spans(text: str, finders: Sequence[tuple[Kind, Finder]]) -> list[Span]:
    """The matches of all finders in order; of those that overlap, the one that begins first, else the longest."""
    found = [Span(start, end, kind) for kind, find in finders for start, end in find(text)]
    return list(_apart(sorted(found, key=lambda span: (span.start, -span.end))))


def _apart(ordered: Iterable[Span]) -> Iterator[Span]:
    end = 0
    for span in ordered:
        if span.start >= end:
            yield span
            end = span.end


def replaced(text: str, spans: Sequence[Span]) -> str:
    """The text with the placeholder of its kind in place of each span."""
    parts, end = [], 0
    for span in spans:
        parts += [text[end : span.start], PLACEHOLDERS[span.kind]]
        end = span.end
    return "".join([*parts, text[end:]])
