"""Folding: which characters are part of a word when texts are compared, and as which character each counts.

Case, accents, punctuation, white space and the form of a character (full width, ligature) do not count.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np

from colophon.shards.common.arrays import NumPyArray

NUM_FOLDED = 0x20000
"""Code points with an entry in the table; those above it, up to 0x3FFFF, are Han characters, each a word."""
ALONE, SKIPPED = 1 << 30, 1 << 31
UNICODE_VERSION = unicodedata.unidata_version
"""The version of the categories of characters: part of the settings of all that compares texts."""

_ACCENTS = range(0x300, 0x370)
_WITHOUT_SPACES = (
    range(0x0E00, 0x0F00),  # Thai, Lao
    range(0x1000, 0x10A0),  # Myanmar
    range(0x1780, 0x1800),  # Khmer
    range(0x3005, 0x3008),  # iteration marks of Japanese
    range(0x3040, 0x3100),  # Hiragana, Katakana
    range(0x31F0, 0x3200),
    range(0x3400, 0x4DC0),  # Han
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
)
"""Scripts that put no space between words: each character is a word."""
_OF_WORDS = ("L", "M", "N")


@cache
def folded_characters() -> NumPyArray:
    """uint32 [NUM_FOLDED]: for each code point the one that it counts as, plus `ALONE` if it is a word of its own;
    0 between words; `SKIPPED` if it does not count, as accents and soft hyphens. 0.3 s, once a process."""
    table = np.zeros(NUM_FOLDED, np.uint32)
    for code in range(NUM_FOLDED):
        table[code] = _folded(chr(code))
    table.flags.writeable = False
    return table


def _folded(character: str) -> int:
    category = unicodedata.category(character)
    if ord(character) in _ACCENTS or category == "Cf":
        return SKIPPED
    if not category.startswith(_OF_WORDS):
        return 0
    plain = ord(_plain(character))
    return plain | (ALONE if any(plain in block for block in _WITHOUT_SPACES) else 0)


def _plain(character: str) -> str:
    """The character without accents and case; itself where that would be several characters, as of ß."""
    parts = "".join(part for part in unicodedata.normalize("NFKD", character) if ord(part) not in _ACCENTS)
    plain = parts if len(parts) == 1 else character
    folded = plain.casefold()
    return folded if len(folded) == 1 else plain
