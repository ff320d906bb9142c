"""The probabilities of all labels of a fastText model for a column of texts, and its labels as names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from annotators.base import AnnotatorError
from annotators.fasttext_file import FastTextHeader, read_header

__all__ = ["FastTextHeader", "FastTextModel", "decode_label", "encode_label", "file_sha256", "read_header"]

LABEL_PREFIX = "__label__"

# What fastText reads as the end of a word; a label that holds one of them would fall apart in a training file.
_SEPARATORS = re.compile(r"[ \n\r\t\v\f\0%]")
_ESCAPE = re.compile(r"%(20|0A|0D|09|0B|0C|00|25)")

# The library adds this to each probability before it takes the logarithm.
_OFFSET = 1e-5
_SLICE_ROWS = 1024
_SLICE_BYTES = 16 << 20


def encode_label(name: str) -> str:
    """A label as one fastText token: `__label__` and `name`, with white space, NUL and `%` as `%20` and so on.

    Raises:
        AnnotatorError: the name is empty.
    """
    if not name:
        raise AnnotatorError("a label is empty")
    return LABEL_PREFIX + _SEPARATORS.sub(lambda match: f"%{ord(match[0]):02X}", name)


def decode_label(label: str) -> str:
    """The name in a model's label: `encode_label` undone; other labels (`__label__eng_Latn`) lose only the prefix."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), label.removeprefix(LABEL_PREFIX))


def file_sha256(path: str | Path) -> str:
    """sha256 of a file in hexadecimal; remembered for as long as its size and modification time stay (1 to 2 s a GB).

    Raises:
        AnnotatorError: the file cannot be read.
    """
    try:
        status = Path(path).stat()
        return _sha256(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise AnnotatorError(f"{path}: {error.strerror}") from None


@lru_cache(maxsize=64)
def _sha256(path: str, _size: int, _modified: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class FastTextModel:
    """A supervised model whose matrices are loaded by the first call of `probabilities`, or by `load`."""

    def __init__(self, path: str | Path, *, header: FastTextHeader | None = None) -> None:
        """`header`: what `read_header` gave for the same file, where the caller has it already."""
        self.path = str(path)
        self.header = read_header(path) if header is None else header
        self._model: Any = None
        self._columns = {label: column for column, label in enumerate(self.header.labels)}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels as names, in the order of `header.labels`."""
        return tuple(decode_label(label) for label in self.header.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_model": None}

    def load(self) -> None:
        """Read the matrices into memory.

        Raises:
            AnnotatorError: the file is no longer the one whose header was read, or the library refuses it.
        """
        if self._model is not None:
            return
        try:
            unchanged = Path(self.path).stat().st_size == self.header.file_bytes
            self._model = fasttext.load_model(self.path).f if unchanged else None
        except OSError as error:
            raise AnnotatorError(f"{self.path}: {error.strerror}") from None
        except (ValueError, RuntimeError, MemoryError) as error:
            raise AnnotatorError(f"{self.path}: {str(error) or 'too large for the memory there is'}") from None
        if self._model is None:
            raise AnnotatorError(f"{self.path}: the file has changed since its header was read")

    def probabilities(self, texts: pa.Array) -> npt.NDArray[np.float32]:
        r"""float32 [len(texts), num_labels], in the order of `header.labels`; NaN rows for null texts.

        `texts` (string or large_string) are prepared: a text is read up to its first `\n`, and up to a word `</s>`.
        The library's offset of 1e-5 is taken off, so that a softmax row sums to 1 within 1e-6 times the labels.
        A text without any word that the model knows gets a NaN row if the model has no end-of-line word either.

        Raises:
            AnnotatorError: the model cannot be loaded, or its matrices hold NaN.
        """
        self.load()
        rows = np.full((len(texts), len(self.header.labels)), np.nan, np.float32)
        for start, part in _slices(texts):
            known = np.flatnonzero(part.is_valid().to_numpy(zero_copy_only=False))
            rows[start + known] = self._predict([value + b"\n" for value in part.drop_null().to_pylist()])
        return rows

    def _predict(self, lines: list[bytes]) -> npt.NDArray[np.float32]:
        num_labels = len(self.header.labels)
        rows = np.zeros((len(lines), num_labels), np.float32)
        try:
            # Bytes instead of str: nothing is decoded and encoded again, and no surrogate can raise.
            predicted = self._model.multilinePredict(lines, -1, 0.0, "strict")
        except RuntimeError as error:
            raise AnnotatorError(f"{self.path}: {error}") from None
        for row, labels, values in zip(rows, *predicted, strict=True):
            row[[self._columns[label] for label in labels]] = values
            if not labels:
                row[:] = np.nan
        return self._without_offset(rows)

    def _without_offset(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if self.header.loss == "hs":
            # Here each node on the way to a label adds an offset, and labels below 1e-5 are left out: scale instead.
            return cast(npt.NDArray[np.float32], rows / rows.sum(axis=1, keepdims=True))
        return np.clip(rows - np.float32(_OFFSET), 0.0, 1.0)


def _slices(texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """(first row, texts as binary) in slices of bounded size, so that few texts at a time are Python objects."""
    large = texts.cast(pa.large_string()).cast(pa.large_binary())
    start = 0
    while start < len(large):
        stop = min(start + _SLICE_ROWS, len(large))
        while stop > start + 1 and large.slice(start, stop - start).nbytes > _SLICE_BYTES:
            stop = start + (stop - start) // 2
        yield start, large.slice(start, stop - start)
        start = stop
