"""Text of documents on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with control characters, escape sequences among them, as `\\x1b`; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
