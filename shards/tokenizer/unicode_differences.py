"""Characters that the fast engine and the reference libraries sort into different classes.

Patterns split text by classes of characters: letters, numbers, marks, white space. The class of a character, and so the
ids, depends on the Unicode version of the library. gigatoken 0.10 has Unicode 17.0 (September 2025); tiktoken 0.14 and
`tokenizers` 0.23 have 16.0. 4,699 characters are letters, numbers or marks in 17.0 and unassigned in 16.0, and U+0295
has no case in 17.0. The reference encodes every text that contains one of them.

The table is valid for every pattern of `shards.tokenizer.engine_specs`. A test in `tests/shards/tokenizer/` computes it
from the installed libraries, over planes 0 to 3, the tags of plane 14 and a sample of the private planes, and fails if
the table lacks a character.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from colophon.shards.tokenizer.text_rows import Positions, TextRows

UNEQUAL_RANGES: tuple[tuple[int, int], ...] = (
    *((0x0295, 0x0295), (0x088F, 0x088F), (0x0C5C, 0x0C5C), (0x0CDC, 0x0CDC), (0x1ACF, 0x1ADD), (0x1AE0, 0x1AEB)),
    *((0xA7CE, 0xA7CF), (0xA7D2, 0xA7D2), (0xA7D4, 0xA7D4), (0xA7F1, 0xA7F1), (0x10940, 0x10959), (0x10EC5, 0x10EC7)),
    *((0x10EFA, 0x10EFB), (0x11B60, 0x11B67), (0x11DB0, 0x11DDB), (0x11DE0, 0x11DE9), (0x16EA0, 0x16EB8)),
    *((0x16EBB, 0x16ED3), (0x16FF2, 0x16FF6), (0x187F8, 0x187FF), (0x18D09, 0x18D1E), (0x18D80, 0x18DF2)),
    *((0x1E6C0, 0x1E6DE), (0x1E6E0, 0x1E6F5), (0x1E6FE, 0x1E6FF), (0x2B73A, 0x2B73F), (0x2CEA2, 0x2CEAD)),
    (0x323B0, 0x33479),
)
"""First and last code point of each range, ascending. A constant: Python has a third Unicode version, which does not
show where two others differ."""

_BLOCK = 256 << 10  # bytes; a block stays in a core's cache between the passes over it


def unequal_rows(texts: pa.Array, rows: TextRows) -> Positions:
    """Rows of `texts` that contain a character of the table: int64, ascending.

    Cost: a few passes of numpy find the texts in which the first two bytes of such a character occur, in 0.3 ns a byte.
    Only these are searched with the regular expression, which takes 1.5 ns a byte, a third of the time of tokenizing.
    """
    found = _first_bytes(rows)
    candidates: Positions = np.unique(np.searchsorted(rows.offsets, found, side="right") - 1)
    if not candidates.size:
        return candidates
    matches = pc.match_substring_regex(texts.take(pa.array(candidates)), unequal_expression())
    found_rows: Positions = candidates[matches.fill_null(False).to_numpy(zero_copy_only=False)]
    return found_rows


def unequal_expression() -> str:
    """The RE2 expression that matches a character of the table."""
    return f"[{''.join(rf'{chr(first)}-{chr(last)}' for first, last in UNEQUAL_RANGES)}]"


def sampled_characters() -> str:
    """About 12,000 characters outside the table: the neighbours of its ranges, and a regular sample of all used planes.

    Scripts fill blocks of 16 and more code points, so libraries with other Unicode versions than the table's are likely
    to differ on one of these characters.
    """
    edges = {c for first, last in UNEQUAL_RANGES for c in (first - 1, last + 1)}
    sample = {*edges, *range(0x80, 0x3000, 3), *range(0x3000, 0x20000, 11), *range(0x20000, 0x38000, 149), 0xE0001}
    return "".join(map(chr, sorted(sample - unequal_code_points() - set(range(0xD800, 0xE000)))))


def unequal_code_points() -> set[int]:
    """All code points of the table."""
    return {c for first, last in UNEQUAL_RANGES for c in range(first, last + 1)}


def _first_bytes(rows: TextRows) -> Positions:
    """Positions in `rows.data` of the first two bytes of a character of the table."""
    pairs, leads = _tables()
    begin, end = int(rows.offsets[0]), int(rows.offsets[-1])
    found = [np.empty(0, np.int64)]
    for start in range(begin, end, _BLOCK):
        block = rows.data[start : min(start + _BLOCK, end)]
        mask = np.zeros(block.size, dtype=bool)
        for first, last in leads:
            mask |= (block - first) <= last - first  # uint8: a byte below `first` wraps around to a large number
        places = np.flatnonzero(mask) + start
        found.append(places[pairs[rows.data[places], rows.data[np.minimum(places + 1, end - 1)]]])
    return np.concatenate(found)


@cache
def _tables() -> tuple[npt.NDArray[np.bool_], list[tuple[np.uint8, np.uint8]]]:
    """bool [256, 256]: whether a pair of bytes begins a character of the table; and the ranges of the first bytes."""
    starts = [chr(c).encode()[:2] for c in unequal_code_points()]
    pairs = np.zeros((256, 256), dtype=bool)
    pairs[[start[0] for start in starts], [start[1] for start in starts]] = True
    leads = np.flatnonzero(pairs.any(axis=1)).astype(np.uint8)
    runs = np.split(leads, np.flatnonzero(np.diff(leads) > 1) + 1)
    return pairs, [(run[0], run[-1]) for run in runs]
