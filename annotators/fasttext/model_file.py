"""Reading the layout of fastText model files without the library, with every number checked.

Format (fastText 0.9, `.bin` and `.ftz`, little endian): magic and version, 13 settings, the dictionary (words, then
labels; each a NUL-terminated string, an int64 count and a type byte), pruned n-grams, input matrix, output matrix.
The library itself reads a truncated or foreign file without an error, or allocates as much memory as a wrong number
demands. Here every size is checked against the file's length, so the caller can allocate by the header's numbers.
"""

from __future__ import annotations

import mmap
from array import array
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.model_layout import FastTextHeader, FastTextLayout, MatrixPlace, QuantizedPlace
from colophon.shards.common.paths import why_missing

_MAGIC = (793712314).to_bytes(4, "little")
_VERSIONS = (11, 12)
_MODELS = {1: "cbow", 2: "skipgram", 3: "supervised"}
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
_START = Struct("<4si12id")
_SIZES = Struct("<3i2q")
_ENTRY_TAIL = 9  # int64 count and int8 type after the NUL of each dictionary entry
_BOOL = Struct("<?")
_MATRIX = Struct("<2q")
_QUANTIZED_MATRIX = Struct("<?2qi")
_QUANTIZER = Struct("<4i")
_CENTROIDS = 256
_MAX_NGRAM = 100
"""Longest n-gram (words) and subword (characters). Models have 1 to 10; buffers are allocated for as many."""
_MAX_UNPACKED = 64
_UNPACKED_ANYWAY_BYTES = 1 << 28
"""A model may unpack to this many bytes, or to `_MAX_UNPACKED` times the size of its file where that is more. A
quantizer with parts of 8 columns packs 8 floats, 32 bytes, into one byte."""
_MAX_LABEL_BYTES = 1000
"""Every document's annotation has a label; those of published models have up to 50 bytes."""
_MAX_LABEL_COUNT = 10**15 - 1
"""The library builds its Huffman tree from the labels' counts and marks unused nodes with 10^15."""


def read_header(path: str | Path) -> FastTextHeader:
    """The header of the supervised fastText model in `path`, with every size checked against the file's length.

    Cost: the file is memory-mapped; reads the dictionary (about 0.3 s for 2 million words) and skips the matrices.

    Raises:
        AnnotatorError: the file is missing, truncated, not a fastText model, or a model without labels.
    """
    return read_layout(path).header


def read_layout(path: str | Path) -> FastTextLayout:
    """The header and the layout of a model file; cost and errors as for `read_header`."""
    path = Path(path)
    if path.is_file() and path.stat().st_size == 0:
        raise AnnotatorError(f"{path}: not a usable fastText model: it is empty")  # an empty file cannot be mapped
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Parser(data, path=str(path)).layout()
    except FileNotFoundError:
        raise AnnotatorError(f"{path}: {why_missing(path)}") from None
    except (OSError, ValueError) as error:  # a folder, no permission, an empty file, or what the parser found
        reason = error.strerror if isinstance(error, OSError) else error
        raise AnnotatorError(f"{path}: not a usable fastText model: {reason}") from None


class _Parser:
    """Reads one model file from front to back, and checks every read against the end.

    Its methods raise ValueError with the reason why the file is not usable.
    """

    def __init__(self, data: mmap.mmap, *, path: str) -> None:
        self._data = data
        self._path = path
        self._at = 0

    def layout(self) -> FastTextLayout:
        if self._data[: len(_MAGIC)] != _MAGIC:
            raise ValueError("its magic number is missing")
        _, version, dim, *_, word_ngrams, loss, model, buckets, min_chars, max_chars, _, _ = self._read(_START)
        if version not in _VERSIONS:
            raise ValueError(f"format version {version}; known: {', '.join(map(str, _VERSIONS))}")
        if _MODELS.get(model) != "supervised":
            raise ValueError(f"it holds {_MODELS.get(model, 'unknown')} vectors without labels; train a classifier")
        sound = min(dim, word_ngrams) >= 1 and min(buckets, min_chars, max_chars) >= 0
        if loss not in _LOSSES or not sound or max(word_ngrams, min_chars, max_chars) > _MAX_NGRAM:
            raise ValueError(
                f"invalid settings: dim {dim}, wordNgrams {word_ngrams}, loss {loss}, bucket {buckets}, "
                f"minn {min_chars}, maxn {max_chars}"
            )
        num_words, num_tokens, pruned, labels, entries_at, entry_ends = self._dictionary()
        dictionary_bytes = self._at - entries_at
        if _LOSSES[loss] == "hs":
            self._check_label_counts(entry_ends[num_words:])
        pruned_at = self._pruned(pruned, buckets=buckets) if pruned >= 0 else None
        num_rows = buckets if pruned_at is None else pruned
        inputs = self._input_matrix(min_rows=num_words + num_rows, dim=dim)
        outputs = self._output_matrix(rows=len(labels), dim=dim, may_be_quantized=inputs.codes is not None)
        matrices = sum(4 * place.rows * dim for place in (inputs, outputs) if place.codes is not None)
        subwords = 4 * dictionary_bytes * max(max_chars - max(min_chars, 1) + 1, 0)
        self._check_unpacked(matrices + subwords + (4 * buckets if pruned_at is not None else 0))
        header = FastTextHeader(
            version=version,
            loss=_LOSSES[loss],
            labels=labels,
            num_words=num_words,
            num_tokens=num_tokens,
            dim=dim,
            word_ngrams=word_ngrams,
            min_chars=min_chars,
            max_chars=0 if version == 11 else max_chars,  # as in the library: version 11 classifiers have no subwords
            buckets=num_rows,
            quantized=inputs.codes is not None,
            file_bytes=len(self._data),
        )
        return FastTextLayout(
            path=self._path,
            header=header,
            entries_at=entries_at,
            entry_ends=entry_ends,
            hash_buckets=buckets,
            pruned_at=pruned_at,
            inputs=inputs,
            outputs=outputs,
        )

    def _dictionary(self) -> tuple[int, int, int, tuple[str, ...], int, npt.NDArray[np.int64]]:
        size, num_words, num_labels, num_tokens, pruned = self._read(_SIZES)
        if min(num_words, num_labels, num_tokens) < 0 or size != num_words + num_labels or pruned < -1:
            raise ValueError(
                f"invalid dictionary sizes: {size} entries, {num_words} words, {num_labels} labels, "
                f"{num_tokens} tokens, {pruned} pruned n-grams"
            )
        if num_labels == 0:
            raise ValueError("it has no labels")
        self._need(size * (1 + _ENTRY_TAIL))
        start = self._at
        ends = self._entry_ends(size)
        kinds = np.frombuffer(self._data, np.int8)[ends + _ENTRY_TAIL]
        if kinds[:num_words].any() or not (kinds[num_words:] == 1).all():
            raise ValueError("its dictionary does not list words, then labels")
        first = int(ends[num_words - 1]) + 1 + _ENTRY_TAIL if num_words else start
        labels = self._labels(first, ends[num_words:])
        return num_words, num_tokens, pruned, labels, start, ends

    def _entry_ends(self, size: int) -> npt.NDArray[np.int64]:
        """Positions of the NUL after each dictionary entry's string; leaves the cursor after the last entry."""
        find, start, step = self._data.find, self._at, 1 + _ENTRY_TAIL
        ends = array("q")
        at = start
        for _ in range(size):
            at = find(b"\0", at)
            if at < 0:
                raise ValueError("its dictionary is cut short")
            ends.append(at)
            at += step
        self._at = at
        self._need(0)
        return np.frombuffer(ends, np.int64)

    def _labels(self, start: int, ends: npt.NDArray[np.int64]) -> tuple[str, ...]:
        starts = [start, *(int(end) + 1 + _ENTRY_TAIL for end in ends[:-1])]
        longest = max(int(end) - begin for begin, end in zip(starts, ends, strict=True))
        if longest > _MAX_LABEL_BYTES:
            raise ValueError(f"a label has {longest:,} bytes; at most {_MAX_LABEL_BYTES:,} are read")
        try:
            labels = tuple(self._data[a:b].decode() for a, b in zip(starts, map(int, ends), strict=True))
        except UnicodeDecodeError:
            raise ValueError("a label is not UTF-8") from None
        if len(set(labels)) < len(labels):
            raise ValueError("a label occurs twice")
        return labels

    def _check_label_counts(self, ends: npt.NDArray[np.int64]) -> None:
        """Check that counts are positive and descend, as training writes them.

        Otherwise the tree of n labels may be n deep, or have a loop.
        """
        counts = [int.from_bytes(self._data[end + 1 : end + 9], "little", signed=True) for end in map(int, ends)]
        if counts != sorted(counts, reverse=True) or counts[-1] < 1 or sum(counts) > _MAX_LABEL_COUNT:
            raise ValueError("the counts of its labels must be positive and descend, with a sum below 10^15")

    def _pruned(self, size: int, *, buckets: int) -> int:
        """Position of the pairs of a hash and its row, after checking that all are within their bounds."""
        at = self._skip(8 * size)
        # A copy, because the mapped file cannot be closed while a view of it exists.
        pairs = np.frombuffer(self._data, np.int32, 2 * size, at).copy()
        hashes, rows = pairs.reshape(-1, 2).T
        if size and (min(hashes.min(), rows.min()) < 0 or hashes.max() >= buckets or rows.max() >= size):
            raise ValueError("its pruned n-grams point outside of its matrix")
        return at

    def _check_unpacked(self, num_bytes: int) -> None:
        """Check that the memory for codes, pruned hashes and subwords is in proportion to the file."""
        if num_bytes > max(_UNPACKED_ANYWAY_BYTES, _MAX_UNPACKED * len(self._data)):
            times = num_bytes // len(self._data)
            raise ValueError(f"it would unpack to {num_bytes / 1e9:.1f} GB, {times:,} times its own size")

    def _input_matrix(self, *, min_rows: int, dim: int) -> MatrixPlace:
        (quantized,) = self._read(_BOOL)
        place = self._quantized_matrix() if quantized else self._matrix()
        # The library does not check the row of a word or n-gram against the size of the matrix.
        if place.rows < min_rows or place.columns != dim:
            raise ValueError(f"its input matrix is {place.rows} x {place.columns}, not {min_rows} x {dim}")
        return place

    def _output_matrix(self, *, rows: int, dim: int, may_be_quantized: bool) -> MatrixPlace:
        (quantized,) = self._read(_BOOL)
        place = self._quantized_matrix() if quantized and may_be_quantized else self._matrix()
        if (place.rows, place.columns) != (rows, dim):
            raise ValueError(f"its output matrix is {place.rows} x {place.columns}, not {rows} x {dim}")
        return place

    def _matrix(self) -> MatrixPlace:
        rows, columns = self._read(_MATRIX)
        if min(rows, columns) < 0:
            raise ValueError("a matrix has a negative size")
        return MatrixPlace(at=self._skip(4 * rows * columns), rows=rows, columns=columns)

    def _quantized_matrix(self) -> MatrixPlace:
        normed, rows, columns, num_codes = self._read(_QUANTIZED_MATRIX)
        if min(rows, columns, num_codes) < 0:
            raise ValueError("a matrix has a negative size")
        codes_at = self._skip(num_codes)
        parts, part_columns, centroids_at = self._quantizer(columns)
        if num_codes != rows * parts:
            raise ValueError("a quantized matrix does not have the codes of its rows")
        norm_codes_at = self._skip(rows) if normed else None
        codes = QuantizedPlace(
            codes_at=codes_at,
            parts=parts,
            part_columns=part_columns,
            centroids_at=centroids_at,
            norm_codes_at=norm_codes_at,
            norm_centroids_at=self._quantizer(1)[2] if normed else None,
        )
        return MatrixPlace(at=codes_at, rows=rows, columns=columns, codes=codes)

    def _quantizer(self, dim: int) -> tuple[int, int, int]:
        """Skip a product quantizer; returns the codes of a row, the columns of each, and where its centroids begin."""
        own_dim, num_parts, part, last_part = self._read(_QUANTIZER)
        sound = own_dim == dim and num_parts >= 1 and 1 <= last_part <= part
        if not sound or (num_parts - 1) * part + last_part != dim:
            raise ValueError(
                f"a quantized matrix of {dim} columns has invalid parts: {num_parts} of {part} columns, "
                f"the last of {last_part}, for {own_dim} columns"
            )
        return int(num_parts), int(part), self._skip(4 * dim * _CENTROIDS)

    def _read(self, layout: Struct) -> tuple[Any, ...]:
        self._need(layout.size)
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def _skip(self, num_bytes: int) -> int:
        """Move past `num_bytes`; returns where they begin."""
        self._need(num_bytes)
        self._at += num_bytes
        return self._at - num_bytes

    def _need(self, num_bytes: int) -> None:
        if self._at + num_bytes > len(self._data):
            raise ValueError("it is cut short")
