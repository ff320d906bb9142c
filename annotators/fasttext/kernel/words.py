"""The words of a column of texts as fastText reads them, split and hashed once for all models of a pass.

Words end at space, line feed, carriage return, tab, vertical tab, form feed and NUL. A word `</s>` ends the text, and
every text with a word ends with this one, as a line does for the library. Each word has fastText's hash (32 bits, from
which the hashes of n-grams are computed) and a key of 64 bits, by which a model's dictionary finds it.
Cost: 450 MB of text a second on one core of 2.6 GHz, 24 bytes of memory a word.
"""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colophon.annotators.fasttext.kernel.compiled.splitting import find_words
from colophon.annotators.fasttext.kernel.compiled.structures import Words
from colophon.annotators.fasttext.text_preparation import TextPreparation

_KEPT_BYTES = 64 << 20


class _RecentWords(threading.local):
    """The words of the last columns that this thread split, so that several models of a pass share the work.

    At most `_KEPT_BYTES` are kept, with the texts: those of one very long text are split again for each model.
    """

    def __init__(self) -> None:
        self.found: dict[Any, tuple[pa.Array, Words]] = {}

    def add(self, key: Any, texts: pa.Array, words: Words) -> None:
        self.found[key] = (texts, words)  # the array stays alive, or another could take its address
        while sum(_num_bytes(*kept) for kept in self.found.values()) > _KEPT_BYTES:
            del self.found[next(iter(self.found))]


_recent = _RecentWords()


def words_of(texts: pa.Array, preparation: TextPreparation) -> Words:
    """The words of `texts` (string or large_string) after `preparation`; none for a null.

    A preparation that only turns line feeds into spaces copies nothing: line feeds separate words as spaces do.
    """
    is_raw = preparation.only_separates_words
    places = tuple(None if buffer is None else (buffer.address, buffer.size) for buffer in texts.buffers())
    key = (is_raw or preparation, texts.type, texts.offset, len(texts), places)
    if key in _recent.found:
        return _recent.found[key][1]
    words = split(preparation.valid(texts) if is_raw else preparation(texts))
    _recent.add(key, texts, words)
    return words


def split(texts: pa.Array) -> Words:
    """The words of `texts` (string or large_string) without preparation."""
    validity, offset_buffer, data_buffer = texts.buffers()
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    if not len(texts) or data_buffer is None or not data_buffer.size:
        return split_spans(np.zeros(1, np.uint8), np.zeros((len(texts), 2), np.int64))
    offsets = np.frombuffer(offset_buffer, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    spans = np.stack([offsets[:-1], offsets[1:]], axis=1)
    if validity is not None and texts.null_count:
        spans[~texts.is_valid().to_numpy(zero_copy_only=False)] = 0
    return split_spans(np.frombuffer(data_buffer, np.uint8), spans)


def split_spans(data: npt.NDArray[np.uint8], spans: npt.NDArray[np.int64]) -> Words:
    """The words of the texts `data[begin:end]`, for each begin and end of `spans` (int64 [texts, 2])."""
    # Room for the largest possible number of words; pages that are never written use no memory.
    room = int((spans[:, 1] - spans[:, 0] + 1).sum()) // 2 + 2 * len(spans)
    words = Words(
        data=data,
        firsts=np.zeros(len(spans) + 1, np.int64),
        hashes=np.empty(room, np.int32),
        keys=np.empty(room, np.uint64),
        starts=np.empty(room, np.int64),
        sizes=np.empty(room, np.int32),
    )
    num_words = find_words(words, spans)
    return Words(words.data, words.firsts, *(cast(Any, column[:num_words]) for column in words[2:]))


def _num_bytes(texts: pa.Array, words: Words) -> int:
    return int(texts.nbytes) + sum(column.nbytes for column in words[1:])  # `data` may be larger than `texts`
