"""The library's own arithmetic: rows of the input matrix added one after the other in float32, in the library's order.

The sum of each column is the library's to the last bit: columns do not depend on each other, so several are added at
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.features import most_rows_at_once, room_for_letters
from colophon.annotators.fasttext.kernel.compiled.instructions import (
    FLOAT_BYTES,
    VECTOR,
    add_four_vectors,
    add_rows_of_two_vectors,
    add_scaled_vector,
    add_vector,
    prefetch,
)
from colophon.annotators.fasttext.kernel.compiled.listing import find_numbers, list_ngrams, list_words, most_words
from colophon.annotators.fasttext.kernel.compiled.structures import Floats, Inputs, Outputs, Shape, Tables, Words

_ROOM = 4096
_AHEAD = 16
_DECODED = 8
_LINE_BYTES = 64


@compiled
def logits_in_order(
    words: Words,
    texts: npt.NDArray[np.int64],
    tables: Tables,
    shape: Shape,
    inputs: Inputs,
    outputs: Outputs,
    logits: Floats,
) -> None:
    """Fill `logits` (float32 [texts, stride of `outputs`]) for some texts of `words`; NaN for a text without rows.

    Cost: 60 to 120 MB of text a second on one core for bigrams and 50 dimensions, a tenth of it with subwords.
    """
    letters, most = room_for_letters(words, shape), most_words(words, texts)
    all_numbers, hashes = np.empty(most, np.int32), np.empty(most if shape.word_ngrams > 1 else 0, np.uint64)
    rows = np.empty(_ROOM + most_rows_at_once(shape), np.uint32)
    width = np.int64(-(-inputs.dim // VECTOR) * VECTOR)
    total, decoded = np.empty(width, np.float32), np.zeros(width * _DECODED if inputs.codes.size else 0, np.float32)
    for i in range(texts.size):
        total[:] = 0
        first, last = words.firsts[texts[i]], words.firsts[texts[i] + 1]
        numbers = all_numbers[: last - first]
        num_hashes = find_numbers(words, first, numbers, hashes, tables, shape)
        at, part, count = 0, 0, 0
        while at < numbers.size:
            n, at, part = list_words(words, first, numbers, at, part, tables, shape, letters, rows, _ROOM, True)
            _add_rows(inputs, rows[:n], total, decoded)
            count += n
        at = 0
        while at < num_hashes and shape.word_ngrams > 1:
            n, at = list_ngrams(hashes[:num_hashes], at, tables.kept, shape, rows, _ROOM)
            _add_rows(inputs, rows[:n], total, decoded)
            count += n
        _multiply(total, inputs.dim, count, outputs, logits[i])


@compiled
def _add_rows(inputs: Inputs, rows: npt.NDArray[np.uint32], total: Floats, decoded: Floats) -> None:
    """Add rows of the input matrix to `total` one after the other.

    Vectors may reach into the next row: the columns of `total` past the last one hold whatever that gives.
    """
    if inputs.codes.size:
        _add_quantized_rows(inputs, rows, total, decoded)
        return
    floats, size = inputs.floats, np.intp(FLOAT_BYTES * inputs.dim)
    if total.size == 2 * VECTOR:
        add_rows_of_two_vectors(total, floats, rows, np.intp(rows.size), size)
        return
    _prefetch_rows(floats, size, rows, 0, _AHEAD)
    i = 0
    while i + 4 <= rows.size:
        _prefetch_rows(floats, size, rows, i + _AHEAD, i + _AHEAD + 4)
        a, b = np.intp(rows[i]) * size, np.intp(rows[i + 1]) * size
        c, d = np.intp(rows[i + 2]) * size, np.intp(rows[i + 3]) * size
        for column in range(0, total.size, VECTOR):
            byte = column * FLOAT_BYTES
            add_four_vectors(total, column, floats, a + byte, b + byte, c + byte, d + byte)
        i += 4
    while i < rows.size:
        for column in range(0, total.size, VECTOR):
            add_vector(total, column, floats, np.intp(rows[i]) * size + column * FLOAT_BYTES)
        i += 1


@inlined
def _prefetch_rows(floats: Any, size: Any, rows: npt.NDArray[np.uint32], first: Any, last: Any) -> None:
    for i in range(first, min(last, rows.size)):
        place = np.intp(rows[i]) * size
        for byte in range(0, size, _LINE_BYTES):
            prefetch(floats, place + byte)
        prefetch(floats, place + size - 1)


@compiled
def _add_quantized_rows(inputs: Inputs, rows: npt.NDArray[np.uint32], total: Floats, decoded: Floats) -> None:
    """Decode some rows, then add them: a row that is read just after it was written would wait for its bytes."""
    codes, norms, norm_codes, parts = inputs.codes, inputs.norms, inputs.norm_codes, np.intp(inputs.parts)
    width = total.size
    for first in range(0, rows.size, _DECODED):
        last = min(first + _DECODED, rows.size)
        for i in range(last, min(last + _DECODED, rows.size)):
            prefetch(codes, np.intp(rows[i]) * parts)
        for i in range(first, last):
            _decode(codes, np.uintp(rows[i]) * np.uintp(parts), inputs, decoded, np.uintp((i - first) * width))
        for i in range(first, last):
            norm = norms[norm_codes[rows[i]]] if norms.size else np.float32(1)
            for column in range(0, width, VECTOR):
                add_scaled_vector(total, column, decoded, (i - first) * width + column, norm)


@compiled
def _decode(codes: Any, at: Any, inputs: Inputs, decoded: Floats, start: Any) -> None:
    """Write a row without its norm to `decoded` from `start` on: a centroid for each part, by the codes from `at` on.

    The centroids of a part follow those of the part before it: 256 of its columns each.
    """
    centroids: Any = inputs.centroids
    size: Any = np.uintp(inputs.part_columns)
    last: Any = np.uintp(inputs.parts - 1)
    if size == 2:  # the default
        for part in range(last):
            place = (np.uintp(256) * part + codes[at + part]) * np.uintp(2)
            decoded[start] = centroids[place]
            decoded[start + np.uintp(1)] = centroids[place + np.uintp(1)]
            start += np.uintp(2)
    else:
        for part in range(last):
            place = (np.uintp(256) * part + codes[at + part]) * size
            for column in range(size):
                decoded[start + column] = centroids[place + column]
            start += size
    last_size = np.uintp(inputs.dim) - last * size
    place = np.uintp(256) * last * size + codes[at + last] * last_size
    for column in range(last_size):
        decoded[start + column] = centroids[place + column]


@compiled
def _multiply(total: Floats, dim: Any, count: Any, outputs: Outputs, logits: Floats) -> None:
    """Fill `logits` with the products of `total / count` and the columns of `outputs`; NaN for no rows.

    Every product is rounded before it is added, column after column, as GCC compiles the library.
    """
    scale = np.float32(1.0 / count) if count else np.float32(np.nan)
    logits[:] = 0
    for column in range(dim):
        for label in range(0, logits.size, VECTOR):
            place = column * logits.size + label
            add_scaled_vector(logits, label, outputs.columns, place, total[column] * scale)
    for label in range(logits.size):
        logits[label] *= outputs.factors[label]
