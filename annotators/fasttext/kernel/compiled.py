"""Everything that numba compiles: finding words, summing rows, and building a model's tables.

One file on purpose: numba keeps compiled code on disk and compiles it again when the file of a function has changed,
but not when a function that it calls has changed in another file. Numba knows no keyword-only arguments, hence the many
positional ones; indices are unsigned where a check for negative ones would cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LABEL_SIGN = 1 << 30
"""Set in the size of a word that begins with `__label__`: fastText reads it as a label unless it is a known word."""

_SEPARATOR = np.zeros(256, np.uint8)
_SEPARATOR[[0, 9, 10, 11, 12, 13, 32]] = 1
_LABEL = np.frombuffer(b"__label__", np.uint8)
_FNV_32, _FNV_32_PRIME = 2166136261, 16777619
_FNV_64, _FNV_64_PRIME = 14695981039346656037, 1099511628211
_END_HASH = np.int32(-677604519)
END_KEY = np.uint64(8922757976467958425)
"""The key of `</s>`."""
_NGRAM_FACTOR = 116049371  # with it fastText goes from the hash of n words to that of n + 1
_SLOT_FACTOR = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: spreads keys over the upper bits
_AHEAD = 16
_ROOM = 4096
_MAX_CHOSEN = 1024
_MAX_CHOSEN_FLOATS = 32768
_LINE_FLOATS = 16

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled at the first call and kept on disk beside the source, else in numba's user-wide cache; frees the GIL."""
    try:
        return cast(Callable[P, R], njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # neither place can be written: each process compiles for itself, some seconds
        return cast(Callable[P, R], njit(nogil=True, error_model="numpy")(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Inlined into the compiled functions that call it: across a call numba counts references to every array."""
    return cast(Callable[P, R], njit(inline="always")(function))


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array`'s element `index` (counted over the flat array), without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(call, [address, number(0), number(3), number(1)])  # to read, into all levels, data
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply_high(_: Any, __: Any, ___: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, wide(64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


class Words(NamedTuple):
    """Words of some texts, one after the other. Numba accepts it as an argument."""

    data: npt.NDArray[np.uint8]
    """The bytes of the texts."""
    firsts: npt.NDArray[np.int64]
    """int64 [texts + 1]: the first word of each text; those of text i end where those of text i + 1 begin."""
    hashes: npt.NDArray[np.int32]
    """int32 [words]: 32-bit FNV-1a over signed bytes, as fastText computes it."""
    keys: npt.NDArray[np.uint64]
    """uint64 [words]: 64-bit FNV-1a, never 0. Two words of a text collection share one with odds of 1 in 10^19."""
    starts: npt.NDArray[np.int64]
    """int64 [words]: where each begins in `data`."""
    sizes: npt.NDArray[np.int32]
    """int32 [words]: bytes of each, plus `LABEL_SIGN` for some."""


class Shape(NamedTuple):
    """The numbers by which a model reads words."""

    stride: int
    """Floats of a row of `Tables.rows`, padding included: 2, 4 or a multiple of 8; 0 if there are none."""
    num_words: int
    """Known words; higher numbers in `slots` are labels."""
    word_ngrams: int
    min_chars: int
    max_chars: int
    """Longest character n-gram; 0: words have no subwords."""
    hash_buckets: int
    inverse: np.uint64
    """2^64 // `hash_buckets`: with it the remainder of a hash needs no division."""
    slot_shift: int
    """64 - log2 of the number of slots."""


class Tables(NamedTuple):
    """The arrays of a model that scoring reads. Numba accepts it as an argument."""

    slots: npt.NDArray[np.uint64]
    """uint64 [2^k, 2]: an open hash table of keys and word numbers; key 0 is an empty slot."""
    rows: npt.NDArray[np.float32]
    """float32 [(num_words + n-gram rows) * stride]: input times output matrix, where labels are no more than
    dimensions. With subwords, a word's row is the sum over its subwords."""
    counts: npt.NDArray[np.int32]
    """int32 [num_words]: how many rows each word's row is the sum of; empty if all are 1."""
    kept: npt.NDArray[np.int32]
    """int32 [hash_buckets]: the n-gram row of a hash, -1 where it was pruned; empty if nothing was pruned."""
    list_firsts: npt.NDArray[np.int64]
    """int64 [num_words + 1]: where the subwords of each word begin in `lists`; empty if there are none."""
    lists: npt.NDArray[np.int32]
    """int32: numbers of the rows of the words' subwords, for models without `rows`."""


@compiled
def find_words(words: Words, spans: npt.NDArray[np.int64]) -> int:
    """Fill `words` with the words of the texts `words.data[begin:end]` for each of `spans`; returns their number."""
    data = words.data
    n = 0
    for text in range(spans.shape[0]):
        at, end = np.uintp(spans[text, 0]), np.uintp(spans[text, 1])
        while True:
            while at < end and _SEPARATOR[data[at]]:
                at += np.uintp(1)
            if at >= end:
                break
            start = at
            h, key = np.uint64(_FNV_32), np.uint64(_FNV_64)
            while at < end and not _SEPARATOR[data[at]]:
                h = _hashed(h, data[at])
                key = (key ^ np.uint64(data[at])) * np.uint64(_FNV_64_PRIME)
                at += np.uintp(1)
            words.hashes[n] = np.int32(np.uint32(h))
            words.keys[n] = max(key, np.uint64(1))
            words.starts[n] = np.int64(start)
            words.sizes[n] = np.int32(at - start)
            if data[start] == _LABEL[0] and _begins_as_label(data, start, at):
                words.sizes[n] |= np.int32(LABEL_SIGN)
            n += 1
            if key == END_KEY:
                break
        if n > words.firsts[text] and words.keys[n - 1] != END_KEY:
            words.hashes[n], words.keys[n], words.starts[n], words.sizes[n] = _END_HASH, END_KEY, 0, 0
            n += 1
        words.firsts[text + 1] = n
    return n


@inlined
def _hashed(h: Any, byte: Any) -> Any:
    """One step of the library's hash: bytes above 127 count as negative numbers. The lower 32 bits matter."""
    return (h ^ np.uint64(np.int64(np.int8(byte)))) * np.uint64(_FNV_32_PRIME)


@compiled
def _begins_as_label(data: npt.NDArray[np.uint8], start: Any, end: Any) -> bool:
    if end - start < _LABEL.size:
        return False
    for i in range(_LABEL.size):
        if data[start + np.uintp(i)] != _LABEL[i]:
            return False
    return True


@compiled
def sum_rows(words: Words, tables: Tables, shape: Shape, sums: Doubles, counts: npt.NDArray[np.int64]) -> None:
    """Fill `sums` (float64 [texts, stride]) with the sums of rows over each text, `counts` with how many they are.

    Rows are far apart in memory, so each is prefetched when its number is known and added some hundred numbers later.
    Sums are float32 over those and float64 over their sums, so that long texts lose no precision. A text without words
    keeps its zeros. Cost: 130 to 280 MB of text a second on one core of 2.6 GHz, for 24 and 2 floats a
    row and bigrams.
    """
    # Few enough rows that all of them are still in the cache when they are added.
    room = max(64, min(_MAX_CHOSEN, _MAX_CHOSEN_FLOATS // shape.stride)) + shape.word_ngrams + shape.max_chars
    chosen, spans = np.empty(room, np.uint32), np.zeros(max(shape.word_ngrams, 2), np.uint64)
    letters, found = letters_of(words, shape), np.empty(shape.max_chars, np.int64)
    for text in range(sums.shape[0]):
        if words.firsts[text] < words.firsts[text + 1]:
            counts[text] = _sum_text(words, text, tables, shape, chosen, spans, letters, found, sums[text])


@inlined
def _sum_text(
    words: Words,
    text: Any,
    tables: Tables,
    shape: Shape,
    chosen: npt.NDArray[np.uint32],
    spans: npt.NDArray[np.uint64],
    letters: npt.NDArray[np.uint8],
    found: npt.NDArray[np.int64],
    sums: Doubles,
) -> Any:
    """Add the rows of one text to `sums`; returns their number. `spans[n - 1]` is the hash of the last n words."""
    rows, stride, buckets = tables.rows, shape.stride, np.uint64(shape.hash_buckets)
    per_word = shape.word_ngrams + shape.max_chars
    total, n, depth = 0, 0, 0
    for i in range(words.firsts[text], words.firsts[text + 1]):
        if i + _AHEAD < words.keys.size:
            prefetch(tables.slots, 2 * np.intp(slot_of(words.keys[i + _AHEAD], shape.slot_shift)))
        number = word_number(tables.slots, words.keys[i], shape.slot_shift)
        if number >= shape.num_words or (number < 0 and (words.sizes[i] & LABEL_SIGN) != 0):
            continue
        if n + per_word > chosen.size:
            total += n
            n = _add(rows, stride, chosen, n, sums)
        if number >= 0:
            chosen[n] = np.uint32(number)  # not prefetched: most words are frequent ones, whose rows are in the cache
            n += 1
            if tables.counts.size:
                total += tables.counts[number] - 1
        elif shape.max_chars > 0 and words.keys[i] != END_KEY:
            size = spell(words, i, letters)
            for begin in range(size):
                if n + per_word > chosen.size:
                    total += n
                    n = _add(rows, stride, chosen, n, sums)
                for j in range(subwords_at(letters, size, begin, tables.kept, shape, found)):
                    n = _choose(found[j], rows, stride, chosen, n)
        h = np.uint64(np.int64(words.hashes[i]))
        for length in range(depth, 0, -1):
            spans[length] = spans[length - 1] * np.uint64(_NGRAM_FACTOR) + h
            row = ngram_row(tables.kept, _remainder(spans[length], buckets, shape.inverse))
            if row >= 0:
                n = _choose(shape.num_words + row, rows, stride, chosen, n)
        spans[0] = h
        depth = min(depth + 1, shape.word_ngrams - 1)
    total += n
    _add(rows, stride, chosen, n, sums)
    return total


@inlined
def _choose(row: Any, rows: npt.NDArray[np.float32], stride: Any, chosen: Any, n: Any) -> Any:
    """Prefetch a row and append its number to `chosen`, which must have room; returns the new n."""
    place = np.intp(row) * stride
    prefetch(rows, place)
    if stride > _LINE_FLOATS:
        prefetch(rows, place + _LINE_FLOATS)
    chosen[n] = np.uint32(row)
    return n + 1


@inlined
def _remainder(h: Any, buckets: Any, inverse: Any) -> Any:
    """`h % buckets` without a division: the quotient by the inverse is at most one too small."""
    rest = h - multiply_high(h, inverse) * buckets
    return rest - buckets if rest >= buckets else rest


@compiled
def slot_of(key: Any, shift: Any) -> Any:
    """The slot at which the search for a key begins."""
    return (key * np.uint64(_SLOT_FACTOR)) >> np.uint64(shift)


@compiled
def word_number(slots: npt.NDArray[np.uint64], key: Any, shift: Any) -> Any:
    """int64: the number of the word or label with this key, -1 if the model does not know it."""
    slot, mask = slot_of(key, shift), np.uint64(slots.shape[0] - 1)
    while slots[slot, 0] != np.uint64(0):
        if slots[slot, 0] == key:
            return np.int64(slots[slot, 1])
        slot = (slot + np.uint64(1)) & mask
    return np.int64(-1)


@compiled
def ngram_row(kept: npt.NDArray[np.int32], bucket: Any) -> Any:
    """int64: the row of a hash among those of n-grams, -1 if it was pruned."""
    return np.int64(kept[bucket]) if kept.size else np.int64(bucket)


@compiled
def letters_of(words: Words, shape: Shape) -> npt.NDArray[np.uint8]:
    """Room for the longest of the words as `spell` writes it; none where words have no subwords."""
    longest = np.int32(0)
    for size in words.sizes if shape.max_chars > 0 else words.sizes[:0]:
        longest = max(longest, size & ~np.int32(LABEL_SIGN))
    return np.empty(np.int64(longest) + 2, np.uint8)


@compiled
def spell(words: Words, i: Any, letters: npt.NDArray[np.uint8]) -> Any:
    """Write word i as `<word>`; returns its bytes."""
    start, size = np.uintp(words.starts[i]), np.uintp(words.sizes[i] & ~np.int32(LABEL_SIGN))
    letters[0] = 60
    for at in range(size):
        letters[np.uintp(at) + np.uintp(1)] = words.data[start + np.uintp(at)]
    letters[size + np.uintp(1)] = 62
    return np.int64(size) + 2


@compiled
def subwords_at(
    letters: npt.NDArray[np.uint8],
    size: Any,
    begin: Any,
    kept: npt.NDArray[np.int32],
    shape: Shape,
    found: npt.NDArray[np.int64],
) -> int:
    """Fill `found` (int64 [max_chars]) with the n-gram rows of the subwords that begin at a byte; returns how many.

    Subwords are character n-grams of `<word>`, but not `<` or `>` alone; characters are UTF-8's, damaged ones included.
    """
    n = 0
    if _is_inside_character(letters[np.uintp(begin)]):
        return n
    h, at = np.uint64(_FNV_32), np.uintp(begin)
    for length in range(1, shape.max_chars + 1):
        if at >= size:
            break
        h = _hashed(h, letters[at])
        at += np.uintp(1)
        while at < size and _is_inside_character(letters[at]):
            h = _hashed(h, letters[at])
            at += np.uintp(1)
        if length >= shape.min_chars and not (length == 1 and (begin == 0 or at == size)):
            row = ngram_row(kept, _remainder(np.uint64(np.uint32(h)), np.uint64(shape.hash_buckets), shape.inverse))
            if row >= 0:
                found[n] = row + shape.num_words
                n += 1
    return n


@compiled
def _is_inside_character(byte: Any) -> bool:
    return bool((byte & np.uint8(0xC0)) == np.uint8(0x80))


@compiled
def _add(rows: npt.NDArray[np.float32], stride: Any, chosen: Any, n: Any, sums: Any) -> int:
    """Add the n chosen rows to `sums`, 2, 4 or 8 columns at a time, which stay in registers; returns 0, the new n."""
    zero = np.float32(0)
    if stride == 2:
        a, b = zero, zero
        for j in range(n):
            p = np.uintp(chosen[j]) * np.uintp(2)
            a += rows[p]
            b += rows[p + np.uintp(1)]
        sums[0] += a
        sums[1] += b
        return 0
    if stride == 4:
        a, b, c, d = zero, zero, zero, zero
        for j in range(n):
            p = np.uintp(chosen[j]) * np.uintp(4)
            a += rows[p]
            b += rows[p + np.uintp(1)]
            c += rows[p + np.uintp(2)]
            d += rows[p + np.uintp(3)]
        sums[0] += a
        sums[1] += b
        sums[2] += c
        sums[3] += d
        return 0
    for column in range(0, stride, 8):
        a, b, c, d = zero, zero, zero, zero
        e, f, g, h = zero, zero, zero, zero
        for j in range(n):
            p = np.uintp(chosen[j]) * np.uintp(stride) + np.uintp(column)
            a += rows[p]
            b += rows[p + np.uintp(1)]
            c += rows[p + np.uintp(2)]
            d += rows[p + np.uintp(3)]
            e += rows[p + np.uintp(4)]
            f += rows[p + np.uintp(5)]
            g += rows[p + np.uintp(6)]
            h += rows[p + np.uintp(7)]
        sums[column] += a
        sums[column + 1] += b
        sums[column + 2] += c
        sums[column + 3] += d
        sums[column + 4] += e
        sums[column + 5] += f
        sums[column + 6] += g
        sums[column + 7] += h
    return 0


@compiled
def logits_in_order(
    words: Words,
    texts: npt.NDArray[np.int64],
    tables: Tables,
    shape: Shape,
    inputs: Floats,
    output: Floats,
    logits: Floats,
) -> None:
    """Fill `logits` (float32 [texts, labels]) for some texts of `words` as the library does, rounding included.

    `inputs` (float32 [rows, dim]) need not be aligned. NaN for a text without rows. Cost: about that of the library.
    """
    total, rows = np.empty(inputs.shape[1], np.float32), np.empty(_ROOM, np.int64)
    for i in range(texts.size):
        count = list_rows(words, texts[i], tables, shape, rows)
        if count > rows.size:
            rows = np.empty(2 * count, np.int64)
            list_rows(words, texts[i], tables, shape, rows)
        total[:] = 0
        add_in_order(inputs, rows[:count], total)
        dots_in_order(total, count, output, logits[i])


@compiled
def list_rows(words: Words, text: Any, tables: Tables, shape: Shape, rows: npt.NDArray[np.int64]) -> int:
    """Fill `rows` with the rows of a text in the library's order: words with their subwords, then n-grams.

    Returns their number; rows beyond the room of `rows` are counted, not written.
    """
    first, last = words.firsts[text], words.firsts[text + 1]
    hashes = np.empty(last - first, np.uint64)
    letters, found = letters_of(words, shape), np.empty(shape.max_chars, np.int64)
    num_hashes, n = 0, 0
    for i in range(first, last):
        number = word_number(tables.slots, words.keys[i], shape.slot_shift)
        if number >= shape.num_words or (number < 0 and (words.sizes[i] & LABEL_SIGN) != 0):
            continue
        hashes[num_hashes] = np.uint64(np.int64(words.hashes[i]))
        num_hashes += 1
        if number >= 0:
            n = _append(rows, n, number)
        if number >= 0 and tables.list_firsts.size:
            for j in range(tables.list_firsts[number], tables.list_firsts[number + 1]):
                n = _append(rows, n, tables.lists[j])
        elif shape.max_chars > 0 and words.keys[i] != END_KEY:
            size = spell(words, i, letters)
            for begin in range(size):
                for j in range(subwords_at(letters, size, begin, tables.kept, shape, found)):
                    n = _append(rows, n, found[j])
    for i in range(num_hashes):
        h = hashes[i]
        for j in range(i + 1, min(i + shape.word_ngrams, num_hashes)):
            h = h * np.uint64(_NGRAM_FACTOR) + hashes[j]
            row = ngram_row(tables.kept, _remainder(h, np.uint64(shape.hash_buckets), shape.inverse))
            if row >= 0:
                n = _append(rows, n, row + shape.num_words)
    return n


@inlined
def _append(rows: npt.NDArray[np.int64], n: Any, row: Any) -> Any:
    if n < rows.size:
        rows[n] = row
    return n + 1


@compiled
def add_in_order(inputs: Floats, rows: npt.NDArray[np.int64], total: Floats) -> None:
    """total (float32 [dim]) += the rows of `inputs` (float32 [rows, dim], need not be aligned), one after the other."""
    for i in range(rows.size):
        if i + _AHEAD < rows.size:
            for column in range(0, total.size, _LINE_FLOATS):
                prefetch(inputs, rows[i + _AHEAD] * total.size + column)
        row = rows[i]
        for column in range(total.size):
            total[column] += inputs[row, column]


@compiled
def dots_in_order(total: Floats, count: int, output: Floats, logits: Floats) -> None:
    """The dot products of `total / count` (float32 [dim]) and the rows of `output`: float32 [labels]; NaN for none.

    Each is one float32, every product rounded before it is added, as GCC compiles the library.
    """
    scale = np.float32(1.0 / count) if count else np.float32(np.nan)
    for label in range(output.shape[0]):
        product = np.float32(0)
        for column in range(total.size):
            product += output[label, column] * (total[column] * scale)
        logits[label] = product


@compiled
def fill_slots(slots: npt.NDArray[np.uint64], keys: Any, firsts: Any, numbers: Any, shift: Any) -> None:
    """Put the first key of each of the texts `numbers` into the hash table, with its number."""
    mask = np.uint64(slots.shape[0] - 1)
    for number in numbers:
        key = keys[firsts[number]]
        slot = slot_of(key, shift)
        while slots[slot, 0] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        slots[slot, 0] = key
        slots[slot, 1] = np.uint64(number)


@compiled
def sum_subwords(words: Words, numbers: Any, tables: Tables, shape: Shape) -> None:
    """Replace the row of each word by the sum over the word itself and its subwords; `</s>` has none."""
    rows = tables.rows.reshape(-1, shape.stride)
    total = np.empty(shape.stride, np.float64)
    letters, found = letters_of(words, shape), np.empty(shape.max_chars, np.int64)
    tables.counts[:] = 1
    for number in numbers:
        i = words.firsts[number]
        if words.keys[i] == END_KEY:
            continue
        for column in range(shape.stride):
            total[column] = rows[number, column]
        size = spell(words, i, letters)
        for begin in range(size):
            num_found = subwords_at(letters, size, begin, tables.kept, shape, found)
            for j in range(num_found):
                for column in range(shape.stride):
                    total[column] += rows[found[j], column]
            tables.counts[number] += num_found
        for column in range(shape.stride):
            rows[number, column] = np.float32(total[column])


@compiled
def list_subwords(
    words: Words, numbers: Any, kept: npt.NDArray[np.int32], shape: Shape, firsts: Any, lists: npt.NDArray[np.int32]
) -> None:
    """Fill `lists` with the subword rows of each word, from the place in `firsts` (int64 [num_words + 1]) on.

    With empty `lists` it fills `firsts` instead, with the number of subword rows of each word.
    """
    letters, found = letters_of(words, shape), np.empty(shape.max_chars, np.int64)
    for number in numbers:
        i = words.firsts[number]
        n = firsts[number] if lists.size else 0
        for begin in range(spell(words, i, letters) if words.keys[i] != END_KEY else 0):
            size = np.int64(words.sizes[i] & ~np.int32(LABEL_SIGN)) + 2
            for j in range(subwords_at(letters, size, begin, kept, shape, found)):
                if lists.size:
                    lists[n] = found[j]
                n += 1
        if not lists.size:
            firsts[number] = n
