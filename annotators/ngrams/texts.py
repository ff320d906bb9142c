"""The texts of an Arrow column as compiled functions read them, and their n-grams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.ngrams.compiled import Texts, list_ngrams
from colophon.annotators.ngrams.folding import folded_characters
from colophon.shards.common.arrays import NumPyArray

_ALL = 1 << 62
"""More words than a text has."""


class Ngrams(NamedTuple):
    """The n-grams of some texts."""

    keys: NumPyArray
    """uint64 [n-grams]: those of all texts, in order."""
    firsts: NumPyArray
    """int64 [texts + 1]: where each text's begin in `keys`."""
    num_words: NumPyArray
    """int64 [texts]."""


def texts_of(column: pa.Array) -> Texts:
    """The texts of a string or large_string column; null is a text without a word."""
    column = TextPreparation.valid(column).cast(pa.large_string()).fill_null("")
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1] if len(column) else None
    return Texts(
        np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8),
        np.zeros(1, np.int64) if places is None else places,
        folded_characters(),
    )


def ngrams_of(column: pa.Array, *, length: int, whole: bool = False) -> Ngrams:
    """The n-grams of texts, string or large_string.

    Args:
        column: the texts; null is a text without a word.
        length: words of an n-gram.
        whole: whether a text of fewer words is one n-gram; else it has none.
    """
    texts = texts_of(column)
    num_bytes = int(texts.offsets[-1] - texts.offsets[0])
    keys = np.empty((num_bytes + len(column)) // 2 + 1, np.uint64)  # only what is filled takes memory
    firsts, num_words = np.empty(len(column) + 1, np.int64), np.empty(len(column), np.int64)
    list_ngrams(texts, length, whole, keys, firsts, num_words)
    return Ngrams(keys[: firsts[-1]], firsts, num_words)


def words_of(column: pa.Array) -> tuple[NumPyArray, NumPyArray]:
    """One key for the words of each text: uint64 [texts], and bool [texts]: whether it has a word.

    Texts with the same words in the same order have the same key.
    """
    ngrams = ngrams_of(column, length=_ALL, whole=True)
    keys, has_words = np.zeros(len(column), np.uint64), ngrams.num_words > 0
    keys[has_words] = ngrams.keys
    return keys, has_words
