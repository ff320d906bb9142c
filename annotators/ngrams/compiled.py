"""Everything that numba compiles here: the words of texts, their n-grams as 64-bit keys, look-ups, minimal hashes.

A word's hash is FNV-1a over its folded characters, mixed by the last step of MurmurHash3. The key of an n-gram is a
polynomial in the hashes of its words, mixed in the same way: each n-gram costs the same whatever n is. Two different
n-grams have the same key with a probability of about 2^-64. Numba knows no keyword-only arguments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled, inlined
from colophon.annotators.ngrams.folding import ALONE, NUM_FOLDED, SKIPPED

_LAST_HAN = 0x3FFFF
_SEED, _PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)
_BASE = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio
_FIRST_FACTOR, _SECOND_FACTOR = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_NONE, _LARGEST = np.uint64(0), np.uint64((1 << 64) - 1)
_MERSENNE = np.uint64((1 << 61) - 1)


class Texts(NamedTuple):
    """Texts that are compared."""

    data: npt.NDArray[np.uint8]
    """UTF-8 of all texts."""
    offsets: npt.NDArray[np.int64]
    """int64 [texts + 1]: where each text begins in `data`."""
    folded: npt.NDArray[np.uint32]
    """See `folding.folded_characters`."""


class Index(NamedTuple):
    """The n-grams of some lists, in a hash table with linear probing."""

    slots: npt.NDArray[np.uint64]
    """uint64 [2^k]: the keys of the table; 0: the slot is free."""
    places: npt.NDArray[np.int64]
    """int64 [2^k]: the first place of each slot's key in `keys`."""
    keys: npt.NDArray[np.uint64]
    """uint64 [entries]: sorted; a key that several lists have is there once for each."""
    lists: npt.NDArray[np.int32]
    """int32 [entries]: the list of each."""


@inlined
def _mixed(h: Any) -> Any:
    """MurmurHash3's last step; never 0."""
    h = (h ^ (h >> np.uint64(33))) * _FIRST_FACTOR
    h = (h ^ (h >> np.uint64(33))) * _SECOND_FACTOR
    return max(h ^ (h >> np.uint64(33)), np.uint64(1))


@inlined
def _find_words(texts: Any, text: Any, words: Any) -> Any:
    """Fill `words` with the hashes of the words of a text; return their number."""
    data, folded = texts.data, texts.folded
    at, end = texts.offsets[text], texts.offsets[text + 1]
    num_words, h = 0, _SEED
    while at < end:
        code = np.uint32(data[at])
        at += 1
        if code >= 0x80:  # 110xxxxx, 1110xxxx and 11110xxx begin two, three and four bytes
            more = 1 + (code >= 0xE0) + (code >= 0xF0)
            code &= np.uint32(0x3F >> more)
            for _ in range(more):
                code = (code << np.uint32(6)) | np.uint32(data[at] & 0x3F)
                at += 1
        if code < NUM_FOLDED:
            code = folded[code]
        elif code <= _LAST_HAN:
            code = np.uint32(code | ALONE)
        else:
            code = np.uint32(0)
        if code == SKIPPED:
            continue
        is_alone = (code & ALONE) != 0
        if (code == 0 or is_alone) and h != _SEED:
            words[num_words] = _mixed(h)
            num_words += 1
            h = _SEED
        if code != 0:
            h = (h ^ np.uint64(code)) * _PRIME
        if is_alone:
            words[num_words] = _mixed(h)
            num_words += 1
            h = _SEED
    if h != _SEED:
        words[num_words] = _mixed(h)
        num_words += 1
    return num_words


@inlined
def _longest(offsets: Any) -> Any:
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@inlined
def _power(length: Any) -> Any:
    """`_BASE` to the power of `length`."""
    power, square = np.uint64(1), _BASE
    while length:
        if length & 1:
            power *= square
        square *= square
        length >>= 1
    return power


@compiled
def list_ngrams(
    texts: Texts,
    length: int,
    whole: bool,
    keys: npt.NDArray[np.uint64],
    firsts: npt.NDArray[np.int64],
    num_words: npt.NDArray[np.int64],
) -> None:
    """Fill `keys` with the keys of the n-grams of each text, `firsts` with the number of n-grams before each text, and
    `num_words` with the words of each.

    Args:
        texts: the texts.
        length: words of an n-gram.
        whole: whether a text of fewer words is one n-gram; else it has none.
        keys: uint64 [(bytes + texts) // 2 + 1 or more], filled from the start.
        firsts: int64 [texts + 1].
        num_words: int64 [texts].
    """
    words = np.empty(_longest(texts.offsets) // 2 + 1, np.uint64)
    top = _power(length)
    num_keys = 0
    firsts[0] = 0
    for text in range(texts.offsets.size - 1):
        last = _find_words(texts, text, words)
        total = np.uint64(0)
        for place in range(last):
            total = total * _BASE + words[place]
            if place >= length:
                total -= words[place - length] * top
            if place + 1 >= length or (whole and place + 1 == last):
                keys[num_keys] = _mixed(total)
                num_keys += 1
        firsts[text + 1] = num_keys
        num_words[text] = last


@compiled
def look_up(
    keys: npt.NDArray[np.uint64],
    firsts: npt.NDArray[np.int64],
    index: Index,
    matches: npt.NDArray[np.int64],
    by_list: npt.NDArray[np.int64],
) -> None:
    """Fill `matches` (int64 [texts]) with the n-grams of each text that some list has, and `by_list`
    (int64 [texts, lists]) with those that each list has; `keys` and `firsts` are those of `list_ngrams`."""
    last = np.uint64(index.slots.size - 1)
    for text in range(firsts.size - 1):
        by_list[text] = 0
        found = 0
        for number in range(firsts[text], firsts[text + 1]):
            key = keys[number]
            slot = key & last
            while index.slots[slot] != key and index.slots[slot] != _NONE:
                slot = (slot + np.uint64(1)) & last
            if index.slots[slot] == key:
                found += 1
                entry = index.places[slot]
                while entry < index.keys.size and index.keys[entry] == key:
                    by_list[text, index.lists[entry]] += 1
                    entry += 1
        matches[text] = found


@compiled
def fill_slots(index: Index) -> None:
    """Fill `slots` and `places`, which are zeros, from `keys`."""
    last = np.uint64(index.slots.size - 1)
    for entry in range(index.keys.size):
        key = index.keys[entry]
        if entry and index.keys[entry - 1] == key:
            continue
        slot = key & last
        while index.slots[slot] != _NONE:
            slot = (slot + np.uint64(1)) & last
        index.slots[slot] = key
        index.places[slot] = entry


@compiled
def fill_smallest(
    keys: npt.NDArray[np.uint64],
    firsts: npt.NDArray[np.int64],
    multipliers: npt.NDArray[np.uint64],
    addends: npt.NDArray[np.uint64],
    hashes: npt.NDArray[np.uint64],
) -> None:
    """Fill `hashes` (uint64 [texts, functions]) with the smallest (multiplier · key + addend mod 2^64) mod (2^61 - 1)
    over the n-grams of each text; 2^64 - 1 where there are none. `keys` and `firsts` are those of `list_ngrams`."""
    for text in range(firsts.size - 1):
        smallest = hashes[text]
        smallest[:] = _LARGEST
        for number in range(firsts[text], firsts[text + 1]):
            key = keys[number]
            for function in range(multipliers.size):
                value = key * multipliers[function] + addends[function]
                value = (value & _MERSENNE) + (value >> np.uint64(61))
                value -= _MERSENNE if value >= _MERSENNE else _NONE
                smallest[function] = min(smallest[function], value)


@compiled
def combine_bands(hashes: npt.NDArray[np.uint64], salts: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]) -> None:
    """Fill `keys` (uint64 [texts, bands]) with a number for each band of `hashes` (uint64 [texts, bands * rows])."""
    bands = keys.shape[1]
    rows = hashes.shape[1] // bands
    for text in range(keys.shape[0]):
        for band in range(bands):
            total = _mixed(salts[text] + np.uint64(band))
            for row in range(rows):
                total = total * _BASE + hashes[text, band * rows + row]
            keys[text, band] = _mixed(total)
