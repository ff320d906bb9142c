"""The features of a word: its number, and the rows of its n-grams and subwords in the input matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.fasttext.kernel.compiled.instructions import VECTOR, multiply_high, prefetch
from colophon.annotators.fasttext.kernel.compiled.splitting import END_KEY, FNV_32, hashed
from colophon.annotators.fasttext.kernel.compiled.structures import LABEL_SIGN, Shape, Words

_NGRAM_FACTOR = 116049371
_AHEAD = 16


@compiled
def slot_of(key: Any, factor: Any, shift: Any) -> Any:
    """The slot at which the search for a key begins."""
    return (key * np.uint64(factor)) >> np.uint64(shift)


@compiled
def word_number(slots: npt.NDArray[np.uint64], key: Any, factor: Any, shift: Any) -> Any:
    """int64: the number of the word or label with this key, -1 if the model does not know it."""
    slot, mask = slot_of(key, factor, shift), np.uint64(slots.shape[0] - 1)
    while slots[slot, 0] != np.uint64(0):
        if slots[slot, 0] == key:
            return np.int64(slots[slot, 1])
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@inlined
def prefetch_slot(slots: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64], i: Any, factor: Any, shift: Any) -> None:
    """Prefetch the slot of a word that comes some words after word i."""
    if i + _AHEAD < keys.size:
        prefetch(slots, 2 * np.intp(slot_of(keys[i + _AHEAD], factor, shift)))


@compiled
def is_label(number: Any, size: Any, num_words: Any) -> Any:
    """Whether the library takes a word with this number and size for a label."""
    return number >= num_words or (number < 0 and (size & LABEL_SIGN) != 0)


@compiled
def longer_hash(h: Any, word_hash: Any) -> Any:
    """The hash of n + 1 words from that of the first n and that of the last one."""
    return h * np.uint64(_NGRAM_FACTOR) + np.uint64(word_hash)


@compiled
def ngram_row(kept: npt.NDArray[np.int32], h: Any, buckets: Any, inverse: Any) -> Any:
    """int64: the row of a hash among those of n-grams, -1 if it was pruned."""
    bucket = h - multiply_high(h, inverse) * np.uint64(buckets)  # h modulo buckets, or one time `buckets` more
    if bucket >= np.uint64(buckets):
        bucket -= np.uint64(buckets)
    return np.int64(kept[bucket]) if kept.size else np.int64(bucket)


@compiled
def room_for_letters(words: Words, shape: Shape) -> npt.NDArray[np.uint8]:
    """Room for the longest of the words as `spell` writes it; none where words have no subwords."""
    longest = np.int32(0)
    for size in words.sizes if shape.max_chars > 0 else words.sizes[:0]:
        longest = max(longest, size & ~np.int32(LABEL_SIGN))
    return np.empty(np.int64(longest) + 2 if shape.max_chars > 0 else 0, np.uint8)


@compiled
def most_rows_at_once(shape: Shape) -> int:
    """An upper bound for the rows that are appended without a check for room: those of a word itself, of the subwords
    that begin at one character, and of the n-grams of words that begin at one word.

    Some more that are written with the last ones are in it.
    """
    return VECTOR + 1 + shape.word_ngrams + max(shape.max_chars - max(shape.min_chars, 1) + 1, 0)


@compiled
def append_subwords(
    words: Words,
    i: Any,
    first: Any,
    letters: npt.NDArray[np.uint8],
    kept: npt.NDArray[np.int32],
    shape: Shape,
    rows: npt.NDArray[np.uint32],
    n: Any,
    room: Any,
) -> Any:
    """Append the rows of the subwords of word i that begin at byte `first` or later to `rows`, which has n.

    A word of megabytes has more rows than memory should hold: it is read in parts. Returns the new n, and the byte at
    which the next part begins: 0 if the word is at its end, otherwise at least `room` rows are listed. `letters` keeps
    the word between its parts.

    Subwords are character n-grams of `<word>`, but not `<` or `>` alone; characters are UTF-8's, damaged ones included.
    `</s>` has none.
    """
    size = _spell(words, i, letters, first > 0)
    num_words, buckets, inverse = shape.num_words, shape.hash_buckets, shape.inverse
    for begin in range(np.uintp(first), size):
        if _is_inside_character(letters[begin]):
            continue
        if n >= room and begin > np.uintp(first):
            return n, np.int64(begin)
        at: Any = begin
        h, length = np.uint64(FNV_32), 0
        while at < size and length < shape.max_chars:
            h = hashed(h, letters[at])
            at += np.uintp(1)
            while at < size and _is_inside_character(letters[at]):
                h = hashed(h, letters[at])
                at += np.uintp(1)
            length += 1
            if length >= shape.min_chars and not (length == 1 and (begin == 0 or at == size)):
                row = ngram_row(kept, np.uint64(np.uint32(h)), buckets, inverse)
                if row >= 0:
                    rows[n] = np.uint32(row + num_words)
                    n += 1
    return n, np.int64(0)


@compiled
def _spell(words: Words, i: Any, letters: npt.NDArray[np.uint8], is_spelled: bool) -> Any:
    """Write word i as `<word>`, unless it is there; returns its bytes, 0 for `</s>`."""
    if words.keys[i] == END_KEY:
        return np.uintp(0)
    start, size = np.uintp(words.starts[i]), np.uintp(words.sizes[i] & ~np.int32(LABEL_SIGN))
    if is_spelled:
        return size + np.uintp(2)
    letters[0] = 60
    for at in range(size):
        letters[np.uintp(at) + np.uintp(1)] = words.data[start + np.uintp(at)]
    letters[size + np.uintp(1)] = 62
    return size + np.uintp(2)


@inlined
def _is_inside_character(byte: Any) -> Any:
    return (byte & np.uint8(0xC0)) == np.uint8(0x80)
