"""Characters that the fast engine and the reference libraries sort into different classes.

Patterns split text by classes of characters: letters, numbers, marks, white space. Which character belongs to which
class depends on the Unicode version that a library was built with, and so do ids. gigatoken 0.10 has Unicode 17.0
(September 2025), tiktoken 0.14 and the engine of `tokenizers` 0.23 have 16.0: 4,699 characters are letters, numbers or
marks to the first and unassigned to the others. A text with one of them goes through the reference.

The table holds for every pattern that `shards.tokenizer_engine` knows. `tests/shards/test_tokenizer_unicode.py` derives
it anew from the installed libraries, over all code points, and fails where the table lacks one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

UNEQUAL_RANGES: tuple[tuple[int, int], ...] = (
    *((0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0x1ACF, 0x1ADD), (0x1AE0, 0x1AEB), (0xA7CE, 0xA7CF)),
    *((0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7)),
    *((0x10EFA, 0x10EFB), (0x11B60, 0x11B67), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9), (0x16EA0, 0x16EB8)),
    *((0x16EBB, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E), (0x18D80, 0x18DF2)),
    *((0x1E6C0, 0x1E6DE), (0x1E6E0, 0x1E6F5), (0x1E6FE, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD)),
    (0x323B0, 0x33479),
)
"""First and last code point of each range, in order. Written down rather than asked of a library: a third Unicode
version (Python's own) would not tell where two others differ."""

_SPECIAL = re.compile(r"[^A-Za-z0-9\x80-\U0010ffff]")


def unequal_expression(strings: Iterable[str] = ()) -> str:
    """The RE2 expression that finds a character of the table, or one of `strings`."""
    classes = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in UNEQUAL_RANGES)
    return "|".join([f"[{classes}]", *map(_escaped, strings)])


def sampled_characters() -> str:
    """Some 12,000 characters outside the table: its neighbours, and a regular sample of all planes in use.

    Scripts come in blocks of 16 code points and more, so that libraries of other versions than the table was made for
    are likely to differ on one of them.
    """
    edges = {c for first, last in UNEQUAL_RANGES for c in (first - 1, last + 1)}
    sample = {*edges, *range(0x80, 0x3000, 3), *range(0x3000, 0x20000, 11), *range(0x20000, 0x38000, 149), 0xE0001}
    return "".join(chr(c) for c in sorted(sample) if not (0xD800 <= c < 0xE000 or is_unequal(c)))


def is_unequal(code_point: int) -> bool:
    """Whether the table holds it."""
    return any(first <= code_point <= last for first, last in UNEQUAL_RANGES)


def _escaped(text: str) -> str:
    # RE2 knows no \N and refuses escapes of letters; code points are always understood.
    return _SPECIAL.sub(lambda found: rf"\x{{{ord(found.group()):x}}}", text)
