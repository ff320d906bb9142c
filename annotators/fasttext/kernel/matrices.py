"""The matrices in a fastText file: plain floats, or codes of a product quantizer. The file is memory-mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled.instructions import FLOAT_BYTES, VECTOR
from colophon.annotators.fasttext.kernel.compiled.structures import Floats, Inputs, Outputs
from colophon.annotators.fasttext.model_layout import MatrixPlace, QuantizedPlace
from colophon.shards.common.arrays import NumPyArray

_CENTROIDS = 256
_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """A matrix of a model file. Its file is memory-mapped, so all processes share what the page cache holds of it."""

    path: str
    place: MatrixPlace

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns."""
        return self.place.rows, self.place.columns

    def rows(self, which: slice | npt.NDArray[np.int64]) -> Floats:
        """float32 [rows, columns]: the rows `which`, in that order."""
        if self.place.codes is None:
            return np.asarray(self._mapped(self.place.at, np.float32, self.shape)[which])
        norms = self._norms(self.place.codes, which)
        decoded = self._decoded(self.place.codes, which)
        return decoded if norms is None else np.asarray(decoded * norms[:, None], np.float32)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """All rows in blocks of about 16 MB, mapped one at a time so that resident memory stays small."""
        rows, columns = self.shape
        step = max(_BLOCK_BYTES // (4 * max(columns, 1)), 1)
        for start in range(0, rows, step):
            which = slice(start, min(start + step, rows))
            yield which, self.rows(which)

    def as_inputs(self, *, often: bool) -> Inputs:
        """The matrix as compiled code reads it, row by row.

        Args:
            often: read for every text: the kernel reads the file ahead. Otherwise it reads single pages, so that a few
                texts do not make the whole file resident.
        """
        (rows, columns), codes = self.shape, self.place.codes
        data = _file_bytes(self.path, often=often)
        no_floats, no_bytes = np.empty(0, np.float32), data[:0]
        if codes is None:
            floats = _with_room(data[self.place.at :], FLOAT_BYTES * rows * columns)
            return Inputs(columns, floats, no_bytes, 0, 0, no_floats, no_floats, no_bytes)
        centroids = self._mapped(codes.centroids_at, np.float32, (_CENTROIDS * columns,)).copy()
        norms, norm_codes = no_floats, no_bytes
        if codes.norm_codes_at is not None and codes.norm_centroids_at is not None:
            norms = self._mapped(codes.norm_centroids_at, np.float32, (_CENTROIDS,)).copy()
            norm_codes = data[codes.norm_codes_at :][:rows]
        row_codes = data[codes.codes_at :][: rows * codes.parts]
        return Inputs(columns, no_bytes, row_codes, codes.parts, codes.part_columns, centroids, norms, norm_codes)

    def as_outputs(self) -> Outputs:
        """The matrix as compiled code multiplies with it."""
        labels, columns = self.shape
        codes, every = self.place.codes, slice(None)
        stride = -(-labels // VECTOR) * VECTOR
        turned, factors = np.zeros((columns, stride), np.float32), np.ones(stride, np.float32)
        turned[:, :labels] = (self.rows(every) if codes is None else self._decoded(codes, every)).T
        norms = None if codes is None else self._norms(codes, every)
        if norms is not None:
            factors[:labels] = norms
        return Outputs(turned.reshape(-1), factors)

    def _mapped(self, at: int, dtype: Any, shape: tuple[int, ...]) -> NumPyArray:
        if not all(shape):
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", at, shape)

    def _decoded(self, codes: QuantizedPlace, which: slice | npt.NDArray[np.int64]) -> Floats:
        """Rows decoded from centroids, one for each part, without the rows' norms."""
        rows, columns = self.shape
        chosen = np.asarray(self._mapped(codes.codes_at, np.uint8, (rows, codes.parts))[which])
        centroids = self._mapped(codes.centroids_at, np.float32, (_CENTROIDS * columns,))
        decoded = np.empty((len(chosen), columns), np.float32)
        for part in range(codes.parts):
            first = part * codes.part_columns
            width = min(codes.part_columns, columns - first)  # the last part may be narrower
            table = centroids[_CENTROIDS * first :][: _CENTROIDS * width].reshape(_CENTROIDS, width)
            decoded[:, first : first + width] = table[chosen[:, part]]
        return cast(Floats, decoded)

    def _norms(self, codes: QuantizedPlace, which: slice | npt.NDArray[np.int64]) -> Floats | None:
        """float32 [rows]: the norms of rows; None where the file has no norms."""
        if codes.norm_codes_at is None or codes.norm_centroids_at is None:
            return None
        norms = self._mapped(codes.norm_centroids_at, np.float32, (_CENTROIDS,))
        return np.asarray(norms[self._mapped(codes.norm_codes_at, np.uint8, (self.place.rows,))[which]])


def products_are_finite(inputs: Matrix, outputs: Matrix) -> bool:
    """Whether products of their rows stay within float32, judged by the largest number of each; False for NaN."""
    largest = [np.max([np.abs(block).max(initial=0) for _, block in matrix.blocks()]) for matrix in (inputs, outputs)]
    return float(largest[0]) * float(largest[1]) * inputs.shape[1] < float(np.finfo(np.float32).max)


def _file_bytes(path: str, *, often: bool) -> npt.NDArray[np.uint8]:
    with Path(path).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_WILLNEED if often else mmap.MADV_RANDOM)
    return np.frombuffer(mapped, np.uint8)


def _with_room(data: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """`data`, copied if less than a vector of it follows the first `size` bytes: compiled code reads whole vectors."""
    if len(data) - size >= VECTOR * FLOAT_BYTES:
        return data
    copy: npt.NDArray[np.uint8] = np.concatenate([data[:size], np.zeros(VECTOR * FLOAT_BYTES, np.uint8)])
    copy.flags.writeable = False
    return copy
