"""A model file as a scorer: its tables out of the cache, and the path from texts to probabilities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.lib.format import open_memmap

from annotators.base import AnnotatorError
from annotators.fasttext_file import FastTextHeader, FastTextLayout, read_layout
from annotators.kernel import heads
from annotators.kernel.compiled import Doubles, Floats, Shape, Tables, Words, multiply, sum_rows
from annotators.kernel.exact import logits_as_the_library
from annotators.kernel.tables import Allocate, Linear, build, label_counts
from annotators.kernel.words import words_of
from annotators.model_cache import file_sha256, made_once
from annotators.text_preparation import TextPreparation

_FORMAT = 1
"""Of the cached files; a new number makes them anew."""
_SHAPE_FILE = "shape.json"
_ROUNDING = 1e-7
_TOLERANCE = 2e-5
"""Where its rounding may change a probability by more, the text is scored in its own order."""
_MAX_ROWS = 50_000
"""Above, sums of much the same rows were met that rounded in one direction."""


class Scorer:
    """Scores texts with the model in one file; the tables are mapped, and shared by all processes of the machine."""

    def __init__(self, path: str, header: FastTextHeader, *, cached: bool) -> None:
        """Map the tables, after making them where that has not been done.

        Raises:
            AnnotatorError: the file is not the one of `header`, cannot be read, or holds NaN.
        """
        self._path, self._header = path, header
        self._known_layout: FastTextLayout | None = None
        self._check_size()
        self._linear = _mapped(self._cache()) if cached else build(self._layout(), allocate=_in_memory)
        self._tree = heads.huffman_tree(label_counts(self._layout())) if header.loss == "hs" else None

    def probabilities(self, texts: pa.Array, preparation: TextPreparation) -> Floats:
        """See `FastTextModel.probabilities`."""
        words = words_of(texts, preparation)
        means, counts = self._means(words)
        logits = self._logits(means)
        rounding = self._rounding(means, logits, counts)
        if self._header.loss in ("ova", "ns"):
            doubtful = heads.near_a_step(logits, rounding[:, None]).any(axis=1)
        else:
            likeliest = self._head(logits).max(axis=1, initial=0)
            doubtful = likeliest * (1 - likeliest) * rounding > _TOLERANCE
        return self._head(self._as_the_library(logits, np.flatnonzero(doubtful | (counts > _MAX_ROWS)), counts, words))

    def _rounding(self, means: Doubles, logits: Doubles, counts: npt.NDArray[np.int64]) -> Doubles:
        """float64 [texts]: a bound, met by experience, of how far the library's float32 sums are from ours.

        Rounding grows with the square root of the number of rows and with what is summed: with the terms of the dot
        product where these are known, else with its result.
        """
        size = 1 + np.abs(logits).max(axis=1)
        if len(self._linear.output):
            squares = np.zeros_like(logits)
            multiply(means**2, self._linear.output**2, squares)
            size = np.sqrt(squares.max(axis=1))
        return cast(Doubles, _ROUNDING * np.sqrt(counts) * size)

    def _head(self, logits: Doubles) -> Floats:
        if self._tree is not None:
            return heads.hierarchical(logits, self._tree)
        return heads.softmax(logits) if self._header.loss == "softmax" else heads.stepped_sigmoid(logits)

    def _means(self, words: Words) -> tuple[Doubles, npt.NDArray[np.int64]]:
        """float64 [texts, stride], the mean rows (NaN for a text without words), and int64 [texts], how many rows."""
        num_texts = len(words.firsts) - 1
        sums, counts = np.zeros((num_texts, self._linear.shape.stride)), np.zeros(num_texts, np.int64)
        sum_rows(words, self._linear.tables, self._linear.shape, sums, counts)
        sums[counts == 0] = np.nan
        return sums / np.maximum(counts, 1)[:, None], counts

    def _logits(self, means: Doubles) -> Doubles:
        """float64 [texts, labels] of the mean rows."""
        if not len(self._linear.output):
            return means[:, : len(self._header.labels)]
        logits = np.zeros((len(means), self._linear.output.shape[1]))
        multiply(means, self._linear.output, logits)
        return logits

    def _as_the_library(
        self, logits: Doubles, doubtful: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], words: Words
    ) -> Doubles:
        """`logits`, with those texts computed in the library's own order for which its rounding would show."""
        if len(doubtful):
            tables, shape, _ = self._linear
            logits = logits.copy()
            logits[doubtful] = logits_as_the_library(
                words, doubtful, counts=counts, layout=self._layout(), tables=tables, shape=shape
            )
        return logits

    def _check_size(self) -> None:
        try:
            size = Path(self._path).stat().st_size
        except OSError as error:
            raise AnnotatorError(f"{self._path}: {error.strerror}") from None
        if size != self._header.file_bytes:
            raise AnnotatorError(f"{self._path}: the file has changed since its header was read")

    def _layout(self) -> FastTextLayout:
        if self._known_layout is None:
            self._known_layout = read_layout(self._path)
        return self._known_layout

    def _cache(self) -> Path:
        return made_once(f"fasttext/{file_sha256(self._path)}-{_FORMAT}", self._make)

    def _make(self, directory: Path) -> None:
        linear = build(self._layout(), allocate=_in_files(directory))
        numbers = {name: int(number) for name, number in linear.shape._asdict().items()}
        (directory / _SHAPE_FILE).write_text(json.dumps(numbers))


def _in_memory(_: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.zeros(shape, dtype)


def _in_files(directory: Path) -> Allocate:
    def allocate(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        path = directory / f"{name}.npy"
        if not all(shape):
            return np.zeros(shape, dtype)
        array: npt.NDArray[Any] = open_memmap(path, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
        with path.open("r+b") as file:
            # A disk that is full says so here, not by a signal when a page is written.
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    return allocate


def _mapped(directory: Path) -> Linear:
    """The tables in a directory of the cache."""
    numbers = json.loads((directory / _SHAPE_FILE).read_text())
    shape = Shape(**(numbers | {"inverse": np.uint64(numbers["inverse"])}))

    def array(name: str, empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
        path = directory / f"{name}.npy"
        return np.asarray(np.load(path, mmap_mode="r")) if path.is_file() else empty

    tables = Tables(
        slots=array("slots", np.empty((0, 2), np.uint64)),
        rows=array("rows", np.empty(0, np.float32)),
        counts=array("counts", np.empty(0, np.int32)),
        kept=array("kept", np.empty(0, np.int32)),
    )
    return Linear(tables, shape, array("output", np.empty((0, 0), np.float32)))
