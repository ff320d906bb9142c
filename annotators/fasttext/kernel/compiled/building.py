"""Filling the tables of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.compilation import compiled
from colophon.annotators.fasttext.kernel.compiled.features import (
    append_subwords,
    most_rows_at_once,
    room_for_letters,
    slot_of,
)
from colophon.annotators.fasttext.kernel.compiled.structures import Shape, Tables, Words

_ROOM = 1024


@compiled
def fill_slots(slots: npt.NDArray[np.uint64], keys: Any, firsts: Any, numbers: Any, factor: Any, shift: Any) -> None:
    """Put the first key of each of the texts `numbers` into the hash table, with its number; the last of equal keys."""
    mask = np.uint64(slots.shape[0] - 1)
    for number in numbers:
        key = keys[firsts[number]]
        slot = slot_of(key, factor, shift)
        while slots[slot, 0] != np.uint64(0) and slots[slot, 0] != key:
            slot = (slot + np.uint64(1)) & mask
        slots[slot, 0] = key
        slots[slot, 1] = np.uint64(number)


@compiled
def sum_subwords(words: Words, numbers: Any, tables: Tables, shape: Shape) -> None:
    """Replace the row of each word by the sum over the word itself and its subwords; `</s>` has none."""
    rows = tables.rows.reshape(-1, shape.stride)
    total = np.empty(shape.stride, np.float64)
    letters = room_for_letters(words, shape)
    found = np.empty(_ROOM + most_rows_at_once(shape), np.uint32)
    for number in numbers:
        for column in range(shape.stride):
            total[column] = rows[number, column]
        count, at, is_done = 1, np.int64(0), False
        while not is_done:
            i = words.firsts[number]
            num_found, at = append_subwords(words, i, at, letters, tables.kept, shape, found, 0, _ROOM)
            for j in range(num_found):
                for column in range(shape.stride):
                    total[column] += rows[found[j], column]
            count += num_found
            is_done = at == 0
        tables.counts[number] = count
        for column in range(shape.stride):
            rows[number, column] = np.float32(total[column])


@compiled
def list_subwords(
    words: Words, numbers: Any, kept: npt.NDArray[np.int32], shape: Shape, firsts: Any, lists: npt.NDArray[np.int32]
) -> None:
    """Fill `lists` with the subword rows of each word, from the place in `firsts` (int64 [num_words + 1]) on.

    With empty `lists` it fills `firsts` instead, with the number of subword rows of each word.
    """
    letters = room_for_letters(words, shape)
    found = np.empty(_ROOM + most_rows_at_once(shape), np.uint32)
    for number in numbers:
        count, at, is_done = 0, np.int64(0), False
        while not is_done:
            num_found, at = append_subwords(words, words.firsts[number], at, letters, kept, shape, found, 0, _ROOM)
            if lists.size:
                for j in range(num_found):
                    lists[firsts[number] + count + j] = found[j]
            count += num_found
            is_done = at == 0
        if not lists.size:
            firsts[number] = count
