"""Building a model's tables from its file: the dictionary as a hash table, and the rows that scoring sums.

The rows of a collapsed model (see `FastTextHeader.is_collapsed`) are input times output matrix: 2 or 24 floats instead
of 100 or 256. Otherwise scoring reads the rows of the input matrix itself, and the tables list each word's subwords.
Cost: 1 to 8 s a GB of model, 16 MB of memory besides the result.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel.compiled.building import fill_slots, list_subwords, sum_subwords
from colophon.annotators.fasttext.kernel.compiled.instructions import VECTOR
from colophon.annotators.fasttext.kernel.compiled.structures import LABEL_SIGN, Floats, Shape, Tables, Words
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.kernel.words import split_spans
from colophon.annotators.fasttext.model_layout import FastTextLayout
from colophon.shards.common.arrays import NumPyArray

Allocate = Callable[[str, tuple[int, ...], type[np.generic]], NumPyArray]
"""Returns zeros for a name, shape and dtype: in memory, or in a file of that name."""


class LinearModel(NamedTuple):
    """A model as scoring needs it, all but its last function."""

    tables: Tables
    shape: Shape
    inputs: Matrix
    outputs: Matrix
    label_counts: tuple[int, ...]
    """The number of training texts of each label."""


def build_model(layout: FastTextLayout, *, allocate: Allocate) -> LinearModel:
    """The model in `layout.path` with its tables.

    Raises:
        AnnotatorError: its matrices hold NaN or infinite numbers.
    """
    header = layout.header
    words, known = _dictionary(layout)
    capacity = 1 << max((2 * len(known)).bit_length(), 4)  # 10 words -> 32 slots: at most half of them are used
    shape = _shape(layout, slot_shift=64 - capacity.bit_length() + 1, slot_factor=_slot_factor(layout))
    has_subwords, num_rows = shape.max_chars > 0, header.num_words + header.buckets
    tables = Tables(
        slots=allocate("slots", (capacity, 2), np.uint64),
        rows=allocate("rows", (num_rows * shape.stride,), np.float32),
        counts=allocate("counts", (header.num_words if has_subwords and shape.stride else 0,), np.int32),
        kept=_kept_rows(layout, allocate=allocate),
        list_firsts=np.empty(0, np.int64),
        lists=np.empty(0, np.int32),
    )
    fill_slots(tables.slots, words.keys, words.firsts, known, shape.slot_factor, shape.slot_shift)
    _fill_rows(tables.rows.reshape(-1, shape.stride) if shape.stride else None, layout)
    known_words = known[known < header.num_words]
    if has_subwords and shape.stride:
        sum_subwords(words, known_words, tables, shape)
    elif has_subwords:
        tables = _with_subword_lists(words, known_words, tables, shape, allocate=allocate)
    for array in tables:
        array.flags.writeable = False  # as mapped arrays are: numba compiles again for writeable ones
    return LinearModel(
        tables=tables,
        shape=shape,
        inputs=Matrix(path=layout.path, place=layout.inputs),
        outputs=Matrix(path=layout.path, place=layout.outputs),
        label_counts=_label_counts(layout),
    )


def _with_subword_lists(
    words: Words, known: npt.NDArray[np.int64], tables: Tables, shape: Shape, *, allocate: Allocate
) -> Tables:
    counts = np.zeros(shape.num_words, np.int64)
    list_subwords(words, known, tables.kept, shape, counts, np.empty(0, np.int32))
    firsts = allocate("list_firsts", (shape.num_words + 1,), np.int64)
    np.cumsum(counts, out=firsts[1:])
    lists = allocate("lists", (max(int(firsts[-1]), 1),), np.int32)
    list_subwords(words, known, tables.kept, shape, firsts, lists)
    return tables._replace(list_firsts=firsts, lists=lists)


def _label_counts(layout: FastTextLayout) -> tuple[int, ...]:
    data = np.memmap(layout.path, np.uint8, "r")
    ends = layout.entry_ends[layout.header.num_words :]
    return tuple(int(np.frombuffer(data[end + 1 : end + 9].tobytes(), np.int64)[0]) for end in ends)


def _dictionary(layout: FastTextLayout) -> tuple[Words, npt.NDArray[np.int64]]:
    """The words of each dictionary entry as one text, and the numbers of the entries that are one word.

    The other entries hold white space, so no word of a text can equal them.
    """
    tail = 10  # NUL, int64 count and type byte between two strings
    starts = np.concatenate([[layout.entries_at], layout.entry_ends[:-1] + tail])
    spans = np.stack([starts, layout.entry_ends], axis=1)
    words = split_spans(np.asarray(np.memmap(layout.path, np.uint8, "r")), spans)
    with_words = np.flatnonzero(np.diff(words.firsts))
    sizes = words.sizes[words.firsts[with_words]] & ~LABEL_SIGN
    return words, with_words[sizes == (spans[:, 1] - spans[:, 0])[with_words]]


def _slot_factor(layout: FastTextLayout) -> np.uint64:
    """A factor from the dictionary's own sha256: words chosen to collide by one factor have another one."""
    entries = np.memmap(layout.path, np.uint8, "r")[layout.entries_at : int(layout.entry_ends[-1])]
    return np.uint64(int.from_bytes(sha256(entries.data).digest()[:8], "little") | 1)


def _shape(layout: FastTextLayout, *, slot_shift: int, slot_factor: np.uint64) -> Shape:
    header, buckets = layout.header, layout.hash_buckets
    width = len(header.labels) if header.is_collapsed else 0
    return Shape(
        # 2 labels -> 2 floats a row, 3 -> 8, 24 -> 24, 25 -> 32; 0 for a model that is not collapsed
        stride=width if width == 0 else 2 if width <= 2 else -(-width // VECTOR) * VECTOR,
        num_words=header.num_words,
        word_ngrams=header.word_ngrams if buckets else 1,
        min_chars=header.min_chars,
        max_chars=header.max_chars if buckets else 0,
        hash_buckets=max(buckets, 1),
        inverse=np.uint64(min((1 << 64) // max(buckets, 1), (1 << 64) - 1)),
        slot_shift=slot_shift,
        slot_factor=slot_factor,
    )


def _fill_rows(rows: Floats | None, layout: FastTextLayout) -> None:
    """Fill `rows`, if any, with input times output matrix, after checking that all of their numbers are finite."""
    output = Matrix(path=layout.path, place=layout.outputs).rows(slice(None))
    for which, block in Matrix(path=layout.path, place=layout.inputs).blocks():
        with np.errstate(over="ignore", invalid="ignore"):  # the check below raises
            values = block if rows is None else block @ output.T
        if not (np.isfinite(values).all() and np.isfinite(output).all()):
            raise AnnotatorError(f"{layout.path}: its matrices hold NaN or infinite numbers; train it again")
        if rows is not None:
            part = rows[which]  # the file may have more rows than words and n-grams
            part[:, : values.shape[1]] = values[: len(part)]


def _kept_rows(layout: FastTextLayout, *, allocate: Allocate) -> npt.NDArray[np.int32]:
    if layout.pruned_at is None:
        return allocate("kept", (0,), np.int32)
    kept = allocate("kept", (max(layout.hash_buckets, 1),), np.int32)
    kept[:] = -1
    if layout.header.buckets:
        pairs = np.memmap(layout.path, np.int32, "r", layout.pruned_at, (layout.header.buckets, 2))
        sound = (pairs[:, 0] >= 0) & (pairs[:, 0] < len(kept)) & (pairs[:, 1] >= 0)
        if not (sound & (pairs[:, 1] < layout.header.buckets)).all():
            raise AnnotatorError(f"{layout.path}: its pruned n-grams point outside of its matrix")
        kept[pairs[:, 0]] = pairs[:, 1]
    return kept
