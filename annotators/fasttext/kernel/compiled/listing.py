"""The rows of a text in the library's order: its words with their subwords, then its n-grams of words."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.features import (
    append_subwords,
    is_label,
    longer_hash,
    ngram_row,
    prefetch_slot,
    word_number,
)
from colophon.annotators.fasttext.kernel.compiled.instructions import VECTOR, copy_eight, prefetch
from colophon.annotators.fasttext.kernel.compiled.structures import Shape, Tables, Words

_LABEL = -2
_AHEAD = 8
_LINE_INTS = 16


@compiled
def most_words(words: Words, texts: npt.NDArray[np.int64]) -> int:
    """The number of words of the longest of some texts."""
    most = 0
    for text in texts:
        most = max(most, words.firsts[text + 1] - words.firsts[text])
    return most


@compiled
def find_numbers(
    words: Words,
    first: Any,
    numbers: npt.NDArray[np.int32],
    hashes: npt.NDArray[np.uint64],
    tables: Tables,
    shape: Shape,
) -> int:
    """Fill `numbers` with those of the words from number `first` on: -1 for unknown ones, -2 for labels.

    `hashes`, if it has room, gets the hashes of the words that are no labels. Returns how many these words are.
    """
    slots, keys = tables.slots, words.keys[first : first + numbers.size]
    sizes, word_hashes = words.sizes[first : first + numbers.size], words.hashes[first : first + numbers.size]
    num_hashes = 0
    for i in range(numbers.size):
        prefetch_slot(slots, keys, i, shape.slot_factor, shape.slot_shift)
        number = word_number(slots, keys[i], shape.slot_factor, shape.slot_shift)
        if is_label(number, sizes[i], shape.num_words):
            numbers[i] = _LABEL
        else:
            numbers[i] = number
            if hashes.size:
                hashes[num_hashes] = np.uint64(np.int64(word_hashes[i]))
            num_hashes += 1
    return num_hashes


@compiled
def list_words(
    words: Words,
    first: Any,
    numbers: npt.NDArray[np.int32],
    begin: Any,
    part: Any,
    tables: Tables,
    shape: Shape,
    letters: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.uint32],
    room: Any,
    expand: bool,
) -> Any:
    """Fill `rows` with the rows of words, from word `first + begin` on; their `numbers` are those of `find_numbers`.

    A word that is not known has the rows of its subwords; with `expand` a known one has them too, after its own.
    Returns the number of rows, the word that is next (`numbers.size`, or less if there are `room` rows), and the place
    in its subwords at which its next part begins, which is `part` of the next call; 0 for a word that is not begun.
    """
    # Taken out of the tuple here: in the loop, numba would count references to each.
    kept, lists, list_firsts = tables.kept, tables.lists, tables.list_firsts
    has_subwords, spells_known = shape.max_chars > 0, expand and not list_firsts.size
    n, i = 0, begin
    while i < numbers.size and n < room:
        if list_firsts.size:
            _prefetch_list(lists, list_firsts, numbers, i)
        number = numbers[i]
        if number >= 0:
            if part == 0:
                rows[n] = np.uint32(number)
                n += 1
            if list_firsts.size:
                place, end = list_firsts[np.uintp(number)] + part, list_firsts[np.uintp(number) + np.uintp(1)]
                stop = min(end, place + max(room - n, 1))
                _copy(lists, np.intp(place), np.intp(stop), rows, np.intp(n))
                n += stop - place
                part = part + stop - place if stop < end else 0
        if has_subwords and number != _LABEL and (number < 0 or spells_known):
            n, part = append_subwords(words, first + i, part, letters, kept, shape, rows, n, room)
        if part > 0:
            break
        i += 1
    return n, i, part


@inlined
def _prefetch_list(lists: Any, list_firsts: Any, numbers: npt.NDArray[np.int32], i: Any) -> None:
    """Prefetch the beginning of the list of a word that follows some words later, and for a later one its place."""
    if i + 2 * _AHEAD < numbers.size:
        prefetch(list_firsts, np.intp(max(numbers[i + 2 * _AHEAD], 0)))
    if i + _AHEAD < numbers.size:
        place = np.intp(list_firsts[np.uintp(max(numbers[i + _AHEAD], 0))])
        prefetch(lists, place)
        prefetch(lists, place + _LINE_INTS)


@inlined
def _copy(lists: Any, place: Any, end: Any, rows: npt.NDArray[np.uint32], n: Any) -> None:
    """Copy `lists[place:end]` to `rows` from n on; up to seven places more are written, which mean nothing."""
    if end + VECTOR <= lists.size:
        for j in range(0, end - place, VECTOR):
            copy_eight(rows, n + j, lists, place + j)
    else:
        for j in range(end - place):
            rows[n + j] = np.uint32(lists[place + j])


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
