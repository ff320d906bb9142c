"""A model file as a scorer: its tables out of the cache, and the path from texts to probabilities."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.lib.format import open_memmap

from colophon.annotators.base import AnnotatorError
from colophon.annotators.fasttext.kernel import heads
from colophon.annotators.fasttext.kernel.compiled import Doubles, Floats, Shape, Tables, Words, sum_rows
from colophon.annotators.fasttext.kernel.exact import ExactLogits
from colophon.annotators.fasttext.kernel.matrices import Matrix
from colophon.annotators.fasttext.kernel.tables import Allocate, Linear, build
from colophon.annotators.fasttext.kernel.words import words_of
from colophon.annotators.fasttext.model_cache import file_sha256, made_once
from colophon.annotators.fasttext.model_file import FastTextHeader, MatrixPlace, read_layout
from colophon.annotators.fasttext.text_preparation import TextPreparation

_FORMAT = 3
"""Of the cached files; a new number makes them anew."""
_NUMBERS_FILE = "numbers.json"
_ROUNDING = 1e-7
"""How far the library's float32 sums of n rows are from ours, over the square root of n and the largest output."""
_TOLERANCE = 2e-5
"""Where its rounding may change a probability by more, the text is scored in its own order."""
_MAX_ROWS = 50_000
_MAX_REPEATS = 50
"""Where more rows are those of words that stand there so often each, they were met to round in one direction."""
_MAX_SUBWORD_ROWS = 20_000
"""The same of subwords, which repeat in every text."""


class Scorer:
    """Scores texts with the model in one file; the tables are mapped, and shared by all processes of the machine."""

    def __init__(self, path: str, header: FastTextHeader, *, cached: bool) -> None:
        """Map the tables, after making them where that has not been done.

        Raises:
            AnnotatorError: the file is not the one of `header`, cannot be read, or holds NaN.
        """
        self._path, self._header = path, header
        self._check_size()
        self._linear = _mapped(self._cache(), path, header) if cached else build(read_layout(path), allocate=_in_memory)
        self._tree = heads.huffman_tree(self._linear.label_counts) if header.loss == "hs" else None

    def probabilities(self, texts: pa.Array, preparation: TextPreparation) -> Floats:
        """See `FastTextModel.probabilities`."""
        words = words_of(texts, preparation)
        if not self._header.is_collapsible:
            return self._head(self._exact.of_all(words).astype(np.float64))
        logits, counts = self._logits(words)
        for text in np.flatnonzero(self._is_doubtful(words, logits, counts)):
            logits[text] = self._exact.of_one(words, text, num_rows=counts[text])
        return self._head(logits)

    def _logits(self, words: Words) -> tuple[Doubles, npt.NDArray[np.int64]]:
        """float64 [texts, labels] (NaN for a text without words), and int64 [texts], of how many rows they are."""
        num_texts = len(words.firsts) - 1
        sums, counts = np.zeros((num_texts, self._linear.shape.stride)), np.zeros(num_texts, np.int64)
        sum_rows(words, self._linear.tables, self._linear.shape, sums, counts)
        sums[counts == 0] = np.nan
        return (sums / np.maximum(counts, 1)[:, None])[:, : len(self._header.labels)], counts

    def _is_doubtful(self, words: Words, logits: Doubles, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """bool [texts]: where the library's rounding may show in its probabilities."""
        rounding = _ROUNDING * np.sqrt(counts) * (1 + np.abs(logits).max(axis=1))
        if self._header.loss in ("ova", "ns"):
            # A step jumps, so that the bound must hold for the worst text and not only for nearly all.
            shows = np.asarray(heads.near_a_step(logits, 16 * rounding[:, None]).any(axis=1))
        else:
            likeliest = self._head(logits).max(axis=1)
            shows = np.asarray(likeliest * (1 - likeliest) * rounding > _TOLERANCE)
        if self._linear.shape.max_chars:
            return np.asarray(shows | (counts > _MAX_SUBWORD_ROWS))
        for text in np.flatnonzero(counts > _MAX_ROWS):
            keys = words.keys[words.firsts[text] : words.firsts[text + 1]]
            shows[text] |= _MAX_REPEATS * len(np.unique(keys)) < len(keys)
        return shows

    def _head(self, logits: Doubles) -> Floats:
        if self._tree is not None:
            return heads.hierarchical(logits, self._tree)
        return heads.softmax(logits) if self._header.loss == "softmax" else heads.stepped_sigmoid(logits)

    @cached_property
    def _exact(self) -> ExactLogits:
        return ExactLogits(self._linear)

    def _check_size(self) -> None:
        try:
            size = Path(self._path).stat().st_size
        except OSError as error:
            raise AnnotatorError(f"{self._path}: {error.strerror}") from None
        if size != self._header.file_bytes:
            raise AnnotatorError(f"{self._path}: the file has changed since its header was read")

    def _cache(self) -> Path:
        return made_once(f"fasttext/{file_sha256(self._path)}-{_FORMAT}", self._make)

    def _make(self, directory: Path) -> None:
        linear = build(read_layout(self._path), allocate=_in_files(directory))
        numbers = {
            "shape": {name: int(number) for name, number in linear.shape._asdict().items()},
            "inputs": asdict(linear.inputs.place),
            "outputs": asdict(linear.outputs.place),
            "label_counts": linear.label_counts,
        }
        (directory / _NUMBERS_FILE).write_text(json.dumps(numbers))


def _in_memory(_: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.zeros(shape, dtype)


def _in_files(directory: Path) -> Allocate:
    def allocate(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        path = directory / f"{name}.npy"
        if not all(shape):
            return np.zeros(shape, dtype)
        array: npt.NDArray[Any] = open_memmap(path, mode="w+", dtype=dtype, shape=shape)  # type: ignore[no-untyped-call]
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as file:
                # A disk that is full says so here, not by a signal when a page is written.
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array

    return allocate


def _mapped(directory: Path, path: str, header: FastTextHeader) -> Linear:
    """The tables in a directory of the cache, for the model in `path`."""
    numbers = json.loads((directory / _NUMBERS_FILE).read_text())

    def array(name: str, empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
        path = directory / f"{name}.npy"
        if path.is_file():
            return np.asarray(np.load(path, mmap_mode="r"))
        empty.flags.writeable = False
        return empty

    tables = Tables(
        slots=array("slots", np.empty((0, 2), np.uint64)),
        rows=array("rows", np.empty(0, np.float32)),
        counts=array("counts", np.empty(0, np.int32)),
        kept=array("kept", np.empty(0, np.int32)),
        list_firsts=array("list_firsts", np.empty(0, np.int64)),
        lists=array("lists", np.empty(0, np.int32)),
    )
    return Linear(
        tables=tables,
        shape=Shape(**(numbers["shape"] | {"inverse": np.uint64(numbers["shape"]["inverse"])})),
        decoded=array("decoded", np.empty((0, header.dim), np.float32)),
        inputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["inputs"])),
        outputs=Matrix(path=path, place=MatrixPlace.from_json(numbers["outputs"])),
        label_counts=tuple(numbers["label_counts"]),
    )
