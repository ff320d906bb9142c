"""Everything that numba compiles: the rows of a text's n-grams of ids, and their mean.

Numba knows no keyword-only arguments, hence the many positional ones.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.instructions import add_byte_rows
from colophon.annotators.fasttext.kernel.strips import STRIP

_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, and a prime of xxHash
_SECOND_FACTOR = np.uint64(0xC2B2AE3D27D4EB4F)
_ONE = np.uint64(1)
_EPSILON = 1e-5  # as in `trainer.classifiers.network`
_BLOCK_ROWS = 256
"""Rows that are summed in int16: 256 times 127 is 32,512."""


class Features(NamedTuple):
    """The rows of n-grams of ids: first one for each unit, then one for each bucket of longer n-grams."""

    units: npt.NDArray[np.int32]
    """int32 [num_ids]: the unit of each id; -1: the id is skipped, and n-grams reach across it."""
    seen: npt.NDArray[np.uint8]
    """uint8 [(rows + 7) // 8]: bit row % 8 of byte row // 8 is 1 if training has seen the row. Others are not counted.

    A bit a row fits into the first cache, where a number for each would not."""
    num_units: int
    shift: int
    """64 - k for 2^k buckets."""
    ngrams: int
    """The longest n-gram."""


@inlined
def _find_units(ids: Any, first: Any, last: Any, unit_of_id: Any, units: Any) -> Any:
    """Fill `units` with those of ids[first:last] that have one; return their number."""
    num_units = 0
    for i in range(first, last):
        unit = unit_of_id[ids[i]]
        units[num_units] = unit
        num_units += unit >= 0
    return num_units


@inlined
def _ngram_row(units: Any, place: Any, length: Any, num_units: Any, shift: Any) -> Any:
    """The row of the n-gram of `length` units that ends at `place`; `num_units` and `shift` are uint64."""
    key = np.uint64(units[place])
    for back in range(1, length):
        key = (key * _FACTOR + np.uint64(units[place - back]) + _ONE) * _SECOND_FACTOR
    return num_units + (key >> shift)


@inlined
def _bit(bits: Any, number: Any) -> Any:
    return (bits[number >> np.uint64(3)] >> np.uint8(number & np.uint64(7))) & np.uint8(1)


@compiled
def list_rows(ids: Any, offsets: Any, features: Features, rows: npt.NDArray[np.int32], firsts: Any) -> None:
    """Fill `rows` with `ngrams` rows for each unit of each text, those of the n-grams that end with it, and `firsts`
    with the number of units before each text. The row is -1 where the text begins within the n-gram.

    Args:
        ids: uint16 or uint32, the ids of all texts.
        offsets: int32 [texts + 1]: where each text begins in `ids`.
        features: the rows of n-grams.
        rows: int32 [ids * ngrams], filled from the start.
        firsts: int64 [texts + 1].
    """
    unit_of_id, ngrams = features.units, features.ngrams
    first_bucket, shift = np.uint64(features.num_units), np.uint64(features.shift)
    units = np.empty(max(_longest(offsets), 1), np.int32)
    num_rows = 0
    firsts[0] = 0
    for text in range(offsets.size - 1):
        num_units = _find_units(ids, offsets[text], offsets[text + 1], unit_of_id, units)
        for place in range(num_units):
            rows[num_rows] = units[place]
            for length in range(2, ngrams + 1):
                row = np.int32(-1)
                if place + 1 >= length:
                    row = np.int32(_ngram_row(units, place, length, first_bucket, shift))
                rows[num_rows + length - 1] = row
            num_rows += ngrams
        firsts[text + 1] = firsts[text] + num_units


@compiled
def pool_rows(
    ids: Any, offsets: Any, features: Features, table: npt.NDArray[np.int8], sums: Any, counts: npt.NDArray[np.int64]
) -> None:
    """Fill `sums` (int32 [texts, dim]) with the sums of the rows of each text, `counts` with how many they are.

    Sums of integers are the same in any order. `table` is int8 [rows, dim].
    """
    unit_of_id, seen, ngrams, dim = features.units, features.seen, features.ngrams, np.intp(table.shape[1])
    first_bucket, shift = np.uint64(features.num_units), np.uint64(features.shift)
    longest = max(_longest(offsets), 1)
    units, rows = np.empty(longest, np.int32), np.empty(longest * ngrams, np.int32)
    for text in range(offsets.size - 1):
        num_units = _find_units(ids, offsets[text], offsets[text + 1], unit_of_id, units)
        num_rows = 0
        for place in range(num_units):  # a row that training has not seen is written over by the next
            row = np.uint64(units[place])
            rows[num_rows] = row
            num_rows += _bit(seen, row)
        for length in range(2, ngrams + 1):
            for place in range(length - 1, num_units):
                row = _ngram_row(units, place, length, first_bucket, shift)
                rows[num_rows] = row
                num_rows += _bit(seen, row)
        total = sums[text]
        total[:] = 0
        counts[text] = num_rows
        for begin in range(0, num_rows, _BLOCK_ROWS):
            block = rows[begin : min(begin + _BLOCK_ROWS, num_rows)]
            for strip in range(0, dim, STRIP):
                add_byte_rows(total, table, block, np.intp(block.size), np.intp(strip), dim)


@compiled
def mean_rows(
    sums: npt.NDArray[np.int32], counts: npt.NDArray[np.int64], scale: Any, vectors: npt.NDArray[np.float32]
) -> None:
    """Fill `vectors` (float32 [texts, dim]) from `sums` and `counts` of `pool_rows`.

    A vector is the mean row, sums / counts * `scale` (float32 [dim]), normalized as by a LayerNorm without weights.
    """
    for text in range(sums.shape[0]):
        _normalize(sums[text], counts[text], scale, vectors[text])


@inlined
def _normalize(sums: Any, count: Any, scale: Any, x: Any) -> None:
    """Fill `x` with the mean row, less the mean of its columns, over their standard deviation."""
    per_row = 1 / max(np.float64(count), 1.0)
    total = np.float64(0)
    for column in range(x.size):
        total += sums[column] * per_row * scale[column]
    mean, squares = total / x.size, np.float64(0)
    for column in range(x.size):
        squares += (sums[column] * per_row * scale[column] - mean) ** 2
    factor = 1 / np.sqrt(squares / x.size + _EPSILON)
    for column in range(x.size):
        x[column] = np.float32((sums[column] * per_row * scale[column] - mean) * factor)


@inlined
def _longest(offsets: Any) -> Any:
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest
