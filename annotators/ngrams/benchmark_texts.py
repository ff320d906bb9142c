"""The n-grams of benchmarks: a hash table in this machine's cache, which all processes map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.lists.list_files import check_tables, check_utf8, digests, files_of, table_batches
from colophon.annotators.lists.mapped_arrays import cached_arrays, write_arrays
from colophon.annotators.ngrams.compiled import Index, fill_slots, look_up
from colophon.annotators.ngrams.folding import UNICODE_VERSION
from colophon.annotators.ngrams.texts import Ngrams, ngrams_of
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.common.digests import fingerprint
from colophon.shards.common.errors import short_reason
from colophon.shards.common.text_encoding import utf8_text

_FORMAT = 1
Source = tuple[str, str, Sequence[str]]
"""Name, path, and columns of a benchmark; no columns: its files are texts."""


class BenchmarkTexts:
    """Finds the n-grams of documents among those of benchmarks. Memory: some 45 bytes for each n-gram, mapped."""

    def __init__(self, sources: Sequence[Source], *, length: int) -> None:
        """Map the n-grams; the first process of a machine writes them to the cache.

        Raises:
            AnnotatorError: a file cannot be read or lacks a column, or a benchmark has no n-gram.
        """
        self._length = length
        identity = [
            [name, [[file.name, sha256] for file, sha256 in zip(files, digests(files), strict=True)], [*columns]]
            for name, files, columns in ((name, files_of(path), columns) for name, path, columns in sources)
        ]
        digest = fingerprint([_FORMAT, UNICODE_VERSION, length, identity])
        arrays = cached_arrays("contamination", digest, lambda place: write_arrays(place, _arrays(sources, length)))
        self._index = Index(arrays["slots"], arrays["places"], arrays["keys"], arrays["lists"])
        self.num_texts: NumPyArray = arrays["texts"]
        """int64 [benchmarks]: texts with a word."""
        self.num_short: NumPyArray = arrays["short"]
        """int64 [benchmarks]: those of them that have no n-gram."""

    def shared(self, texts: pa.Array) -> tuple[Ngrams, NumPyArray, NumPyArray]:
        """The n-grams of texts, the number that a benchmark has, and the number that each has.

        Returns:
            The n-grams, int64 [texts], int64 [texts, benchmarks].
        """
        ngrams = ngrams_of(texts, length=self._length)
        matches, by_list = np.empty(len(texts), np.int64), np.empty((len(texts), len(self.num_texts)), np.int64)
        look_up(ngrams.keys, ngrams.firsts, self._index, matches, by_list)
        return ngrams, matches, by_list


def _arrays(sources: Sequence[Source], length: int) -> dict[str, NumPyArray]:
    found, num_texts, num_short = [], [], []
    for name, path, columns in sources:
        try:
            keys, texts, short = _of_benchmark(path, columns, length)
        except AnnotatorError as error:
            raise type(error)(f"{name}: {error}") from None
        if not len(keys):
            raise AnnotatorError(f"{name}: {path}: no text has {length} words: give a smaller ngram, or other columns")
        found.append(keys)
        num_texts.append(texts)
        num_short.append(short)
    lists = np.repeat(np.arange(len(found), dtype=np.int32), [len(keys) for keys in found])
    joined = np.concatenate(found)
    order = np.argsort(joined, kind="stable")
    num_slots = 1 << max(2 * len(joined) - 1, 1).bit_length()
    slots, places = np.zeros(num_slots, np.uint64), np.zeros(num_slots, np.int64)
    index = Index(slots, places, joined[order], lists[order])
    fill_slots(index)
    return {**index._asdict(), "texts": np.array(num_texts), "short": np.array(num_short)}


def _of_benchmark(path: str, columns: Sequence[str], length: int) -> tuple[NumPyArray, int, int]:
    """The different n-grams of a benchmark in ascending order, the number of texts, and of those without an n-gram."""
    found, num_texts, num_short = [np.empty(0, np.uint64)], 0, 0
    for texts in _texts(path, columns):
        ngrams = ngrams_of(texts, length=length)
        num_texts += int((ngrams.num_words > 0).sum())
        num_short += int(((ngrams.num_words > 0) & (ngrams.num_words < length)).sum())
        found.append(np.unique(ngrams.keys))
    return np.unique(np.concatenate(found)), num_texts, num_short


def _texts(path: str, columns: Sequence[str]) -> Iterator[pa.Array]:
    """large_string: the texts of a benchmark, of each column and file apart."""
    files = files_of(path)
    check_tables(files, columns, key="columns")
    for file in files:
        if not columns:
            yield pa.array([_whole_text(file)], pa.large_string())
            continue
        for batch in table_batches(file, columns):
            check_utf8(batch, file)
            yield from batch.columns


def _whole_text(file: Path) -> str:
    try:
        with pa.input_stream(str(file), compression="detect") as stream:
            return utf8_text(stream.read())
    except (pa.ArrowException, OSError) as error:
        raise AnnotatorError(f"{file}: cannot be read: {short_reason(error)}") from None
    except ValueError as error:
        raise AnnotatorError(f"{file}: {error}") from None
