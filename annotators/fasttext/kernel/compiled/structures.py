"""The arrays and numbers that compiled functions pass to each other. Numba accepts named tuples as arguments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LABEL_SIGN = 1 << 30
"""Set in the size of a word that begins with `__label__`: fastText reads it as a label unless it is a known word."""


class Words(NamedTuple):
    """Words of some texts, one after the other."""

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
    """Floats of a row of `Tables.rows`, padding included: 2 or a multiple of 8; 0 if there are none."""
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
    slot_factor: np.uint64
    """An odd number that depends on the whole dictionary: nobody can choose words that share a slot."""


class Tables(NamedTuple):
    """The arrays of a model that are built from its file."""

    slots: npt.NDArray[np.uint64]
    """uint64 [2^k, 2]: an open hash table of keys and word numbers; key 0 is an empty slot. Of equal words the last one
    is in it, as in the library."""
    rows: npt.NDArray[np.float32]
    """float32 [(num_words + n-gram rows) * stride]: input times output matrix of a collapsed model. With subwords, a
    word's row is the sum over its subwords."""
    counts: npt.NDArray[np.int32]
    """int32 [num_words]: how many rows each word's row is the sum of; empty if all are 1."""
    kept: npt.NDArray[np.int32]
    """int32 [hash_buckets]: the n-gram row of a hash, -1 where it was pruned; empty if nothing was pruned."""
    list_firsts: npt.NDArray[np.int64]
    """int64 [num_words + 1]: where the subwords of each word begin in `lists`; empty if there are none."""
    lists: npt.NDArray[np.int32]
    """int32: numbers of the rows of the words' subwords, for models without `rows`."""


class Inputs(NamedTuple):
    """The input matrix of a model file as its bytes: floats, or codes of a product quantizer."""

    dim: int
    floats: npt.NDArray[np.uint8]
    """uint8 [4 * rows * dim, and at least 28 more]: float32 rows. Empty for a quantized matrix."""
    codes: npt.NDArray[np.uint8]
    """uint8 [rows * parts]."""
    parts: int
    part_columns: int
    """Columns of a part; the last may have fewer."""
    centroids: npt.NDArray[np.float32]
    """float32 [256 * dim]: 256 centroids for each part."""
    norms: npt.NDArray[np.float32]
    """float32 [256]: centroids of the rows' norms; empty if rows were not normalized."""
    norm_codes: npt.NDArray[np.uint8]
    """uint8 [rows]: the norm of each row."""


class Outputs(NamedTuple):
    """The output matrix, turned: a column for each label."""

    columns: npt.NDArray[np.float32]
    """float32 [dim * stride]: stride is the number of labels, rounded up to a multiple of 8."""
    factors: npt.NDArray[np.float32]
    """float32 [stride]: the library multiplies each product by the norm of a quantized row, else by 1."""
