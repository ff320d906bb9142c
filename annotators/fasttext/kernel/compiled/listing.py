"""The rows of a text in the library's order: its words with their subwords, then its n-grams of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled
from colophon.annotators.fasttext.kernel.compiled.features import (
    append_subwords,
    is_label,
    longer_hash,
    ngram_row,
    prefetch_slot,
    word_number,
)
from colophon.annotators.fasttext.kernel.compiled.structures import Shape, Tables, Words


@compiled
def most_words(words: Words, texts: npt.NDArray[np.int64]) -> int:
    """The number of words of the longest of some texts."""
    most = 0
    for text in texts:
        most = max(most, words.firsts[text + 1] - words.firsts[text])
    return most


@compiled
def list_words(
    words: Words,
    first: Any,
    last: Any,
    tables: Tables,
    shape: Shape,
    letters: npt.NDArray[np.uint8],
    hashes: npt.NDArray[np.uint64],
    num_hashes: Any,
    rows: npt.NDArray[np.uint32],
    room: Any,
    expand: bool,
) -> Any:
    """Fill `rows` with the rows of words from number `first` on, and append the hashes of these words to `hashes`.

    A word that is not known has the rows of its subwords; with `expand` a known one has them too, after its own.
    Returns the numbers of rows and of hashes, and the word that is next: `last`, or less if there are `room` rows.
    """
    slots, keys, kept, lists, list_firsts = tables.slots, words.keys, tables.kept, tables.lists, tables.list_firsts
    n, i = 0, first
    while i < last and n < room:
        prefetch_slot(slots, keys, i, shape.slot_shift)
        number = word_number(slots, keys[i], shape.slot_shift)
        if not is_label(number, words.sizes[i], shape.num_words):
            hashes[num_hashes] = np.uint64(np.int64(words.hashes[i]))
            num_hashes += 1
            if number >= 0:
                rows[n] = np.uint32(number)
                n += 1
            if number >= 0 and list_firsts.size:
                for j in range(list_firsts[number], list_firsts[number + 1]):
                    rows[n] = np.uint32(lists[j])
                    n += 1
            elif shape.max_chars > 0 and (number < 0 or expand):
                n = append_subwords(words, i, letters, kept, shape, rows, n)
        i += 1
    return n, num_hashes, i


@compiled
def list_ngrams(
    hashes: npt.NDArray[np.uint64],
    first: Any,
    kept: npt.NDArray[np.int32],
    shape: Shape,
    rows: npt.NDArray[np.uint32],
    room: Any,
) -> Any:
    """Fill `rows` with the rows of n-grams that begin at word `first` or later.

    Returns their number, and the word that is next: less than the number of words if there are `room` rows.
    """
    n, i = 0, first
    while i < hashes.size and n < room:
        h = hashes[i]
        for j in range(i + 1, min(i + shape.word_ngrams, hashes.size)):
            h = longer_hash(h, hashes[j])
            row = ngram_row(kept, h, shape.hash_buckets, shape.inverse)
            if row >= 0:
                rows[n] = np.uint32(shape.num_words + row)
                n += 1
        i += 1
    return n, i
