"""The path from texts to probabilities through one model: words, sums of rows, the last function."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel import heads
from colophon.annotators.fasttext.kernel.cached_tables import cached_model
from colophon.annotators.fasttext.kernel.compiled.collapsed import sum_rows
from colophon.annotators.fasttext.kernel.compiled.structures import Doubles, Floats, Words
from colophon.annotators.fasttext.kernel.exact import ExactLogits
from colophon.annotators.fasttext.kernel.tables import build_model
from colophon.annotators.fasttext.kernel.words import words_of
from colophon.annotators.fasttext.model_file import read_layout
from colophon.annotators.fasttext.model_layout import FastTextHeader
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.shards.common.arrays import NumPyArray

_ROUNDING = 1e-7
"""The distance of the library's float32 sums of n rows from ours, over the square root of n and the largest output."""
_TOLERANCE = 2e-5
"""A text is scored in the library's order if the library's rounding may change a probability by more than this."""
_MAX_ROWS = 50_000
_MAX_REPEATS = 50
"""A text of more than `_MAX_ROWS` rows whose words repeat more than this often on average is scored in the library's
order: in measurements the rounding of its repeated rows went in one direction."""
_MAX_SUBWORD_ROWS = 20_000
"""The limit instead of `_MAX_ROWS` for models with subwords, which repeat in every text."""


class ClassifierKernel:
    """Scores texts with the model in one file."""

    def __init__(self, path: str, header: FastTextHeader, *, cached: bool) -> None:
        """Map the tables from the cache, where all processes of the machine share them, or build them in memory.

        Raises:
            AnnotatorError: the file has changed since `header` was read, cannot be read, or holds NaN.
        """
        _check_size(path, header)
        self._header = header
        self._model = cached_model(path) if cached else build_model(read_layout(path), allocate=_allocate_in_memory)
        self._tree = heads.huffman_tree(self._model.label_counts) if header.loss == "hs" else None

    def probabilities(self, texts: pa.Array, preparation: TextPreparation) -> Floats:
        """See `FastTextModel.probabilities`."""
        words, step = words_of(texts, preparation), self._header.rows_at_once
        if len(texts) <= step:
            return self._rows(words, np.arange(len(texts)))
        probabilities = np.empty((len(texts), len(self._header.labels)), np.float32)
        for start in range(0, len(texts), step):
            which = np.arange(start, min(start + step, len(texts)))
            probabilities[which] = self._rows(words, which)
        return probabilities

    def _rows(self, words: Words, texts: npt.NDArray[np.int64]) -> Floats:
        """float32 [texts, labels] for consecutive `texts` of `words`."""
        if not self._header.is_collapsed:
            return self._head(self._exact(words, texts))
        logits, counts = self._logits(words, texts)
        doubtful = np.flatnonzero(self._is_doubtful(words, texts, logits, counts))
        if len(doubtful):
            logits[doubtful] = self._exact(words, texts[doubtful])
        return self._head(logits)

    def _logits(self, words: Words, texts: npt.NDArray[np.int64]) -> tuple[Doubles, npt.NDArray[np.int64]]:
        """Logits float64 [texts, labels] (NaN without words), and the number of rows of each text, int64 [texts]."""
        sums, counts = np.empty((len(texts), self._model.shape.stride)), np.empty(len(texts), np.int64)
        sum_rows(words, texts, self._model.tables, self._model.shape, sums, counts)
        sums[counts == 0] = np.nan
        return (sums / np.maximum(counts, 1)[:, None])[:, : len(self._header.labels)], counts

    def _is_doubtful(
        self, words: Words, texts: npt.NDArray[np.int64], logits: Doubles, counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """bool [texts]: whether the library's rounding may be visible in its probabilities."""
        # 10,000 rows with a largest logit of 5 -> 1e-7 * 100 * 6 = 6e-5
        rounding = _ROUNDING * np.sqrt(counts) * (1 + np.abs(logits).max(axis=1))
        likeliest = self._head(logits).max(axis=1)
        is_visible = np.asarray(likeliest * (1 - likeliest) * rounding > _TOLERANCE)
        if self._model.shape.max_chars:
            return np.asarray(is_visible | (counts > _MAX_SUBWORD_ROWS))
        for row in np.flatnonzero(counts > _MAX_ROWS):
            keys = words.keys[words.firsts[texts[row]] : words.firsts[texts[row] + 1]]
            is_visible[row] |= _MAX_REPEATS * len(np.unique(keys)) < len(keys)
        return is_visible

    def _head(self, logits: Doubles | Floats) -> Floats:
        if self._tree is not None:
            return heads.hierarchical(logits, self._tree)
        if self._header.loss == "softmax":
            return heads.softmax(np.asarray(logits, np.float64))
        return heads.stepped_sigmoid(np.asarray(logits, np.float32))

    @cached_property
    def _exact(self) -> ExactLogits:
        return ExactLogits(self._model, often=not self._header.is_collapsed)


def _check_size(path: str, header: FastTextHeader) -> None:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror}") from None
    if size != header.file_bytes:
        raise AnnotatorError(f"{path}: the file has changed since its header was read")


def _allocate_in_memory(_: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NumPyArray:
    return np.zeros(shape, dtype)
