"""Rows of the matrices in a fastText file as float32, read as they are needed: plain, or decoded from codes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from colophon.annotators.fasttext.kernel.compiled import Floats
from colophon.annotators.fasttext.model_layout import MatrixPlace
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
        mapped = self.mapped()
        return np.asarray(mapped[which]) if mapped is not None else self._decoded(which)

    def mapped(self) -> Floats | None:
        """The file's own floats, which need not be aligned; None for a quantized matrix."""
        if self.place.codes is not None:
            return None
        return np.asarray(self._mapped(self.place.at, np.float32, self.shape))

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """All rows in blocks of about 16 MB, mapped one at a time so that resident memory stays small."""
        rows, columns = self.shape
        step = max(_BLOCK_BYTES // (4 * max(columns, 1)), 1)
        for start in range(0, rows, step):
            which = slice(start, min(start + step, rows))
            yield which, self.rows(which)

    def _mapped(self, at: int, dtype: Any, shape: tuple[int, ...]) -> NumPyArray:
        if not all(shape):
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", at, shape)

    def _decoded(self, which: slice | npt.NDArray[np.int64]) -> Floats:
        """Rows decoded from centroids, one for each part, times the row's norm where the file has norms."""
        (rows, columns), codes = self.shape, self.place.codes
        assert codes is not None
        chosen = np.asarray(self._mapped(codes.codes_at, np.uint8, (rows, codes.parts))[which])
        centroids = self._mapped(codes.centroids_at, np.float32, (_CENTROIDS * columns,))
        decoded = np.empty((len(chosen), columns), np.float32)
        for part in range(codes.parts):
            first = part * codes.part_columns
            width = min(codes.part_columns, columns - first)  # the last part may be narrower
            table = centroids[_CENTROIDS * first :][: _CENTROIDS * width].reshape(_CENTROIDS, width)
            decoded[:, first : first + width] = table[chosen[:, part]]
        if codes.norm_codes_at is not None and codes.norm_centroids_at is not None:
            norms = self._mapped(codes.norm_centroids_at, np.float32, (_CENTROIDS,))
            decoded *= norms[self._mapped(codes.norm_codes_at, np.uint8, (rows,))[which]][:, None]
        return cast(Floats, decoded)


def products_are_finite(inputs: Matrix, outputs: Matrix) -> bool:
    """Whether products of their rows stay within float32, judged by the largest number of each; False for NaN."""
    largest = [np.max([np.abs(block).max(initial=0) for _, block in matrix.blocks()]) for matrix in (inputs, outputs)]
    return float(largest[0]) * float(largest[1]) * inputs.shape[1] < float(np.finfo(np.float32).max)
