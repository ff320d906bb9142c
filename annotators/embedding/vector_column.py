"""Ready vectors: a column of the input, which another program has computed, on GPUs say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from colophon.annotators.base import AnnotatorError
from colophon.annotators.heads.head import Floats

VECTOR = pa.list_(pa.float32())
"""The type in which vectors are read, from lists of any numbers; a number that is null is NaN."""


@dataclass(frozen=True)
class VectorColumn:
    """An embedder whose vectors are in the input."""

    column: str
    """The name of the input's column, which stands for the model that made the vectors."""

    @property
    def identity(self) -> str:
        """See `Embedder.identity`."""
        return f"column {self.column}"

    def load(self) -> None:
        """Nothing to load."""

    def vectors(self, lists: pa.Array, *, dim: int | None = None) -> Floats:
        """float32 [rows, dim]; a row of NaN for null and for an empty list.

        Args:
            lists: of type `VECTOR`.
            dim: the length of all vectors; None: that of the first.

        Raises:
            AnnotatorError: a vector has a different length.
        """
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        has_vector = lengths > 0
        given = lengths[has_vector]
        expected = dim or (int(given[0]) if len(given) else 0)
        if (given != expected).any():
            other = int(given[given != expected][0])
            raise AnnotatorError(f"column '{self.column}' has a vector of {other:,} numbers; expected {expected:,}")
        vectors = np.full((len(lists), expected), np.nan, np.float32)
        vectors[has_vector] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, expected or 1)
        return vectors
