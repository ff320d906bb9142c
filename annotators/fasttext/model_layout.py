"""The content of a fastText model file: its header, and where its dictionary and matrices are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_MAX_ROWS = 1024
_MAX_PROBABILITIES = 1 << 21


@dataclass(frozen=True, kw_only=True)
class FastTextHeader:
    """The settings, labels and sizes of a supervised model, checked against the length of its file."""

    version: int
    loss: str
    """`softmax`, `ova` (one versus all), `hs` (hierarchical softmax) or `ns` (negative sampling)."""
    labels: tuple[str, ...]
    """As written in the file, `__label__` included, in the order of the output matrix."""
    num_words: int
    num_tokens: int
    """Tokens of the training text."""
    dim: int
    word_ngrams: int
    min_chars: int
    """Shortest and longest character n-grams (`minn`, `maxn`); 0 and 0: none."""
    max_chars: int
    buckets: int
    """Rows of the input matrix that hashed n-grams share."""
    quantized: bool
    file_bytes: int

    @property
    def rows_at_once(self) -> int:
        """The number of texts that are scored at once: 1,024, or fewer of a model with more than 2,048 labels.

        Memory besides the result is below 100 MB: some 40 bytes for each of 2 million numbers.
        """
        return max(min(_MAX_ROWS, _MAX_PROBABILITIES // len(self.labels)), 1)

    @property
    def is_collapsed(self) -> bool:
        """Whether scoring reads input times output matrix instead of the input matrix.

        Its rows must not be longer than those of the input matrix. One-versus-all and negative sampling have a sigmoid
        of steps: near a step, which of the two numbers the library gives depends on the rounding of its own sums.
        """
        return len(self.labels) <= self.dim and self.loss in ("softmax", "hs")


@dataclass(frozen=True, kw_only=True)
class MatrixPlace:
    """The place of a matrix in the file: float32 [rows, columns], or the codes of a product quantizer."""

    at: int
    rows: int
    columns: int
    codes: QuantizedPlace | None = None

    @staticmethod
    def from_json(values: dict[str, Any]) -> MatrixPlace:
        """The inverse of `dataclasses.asdict`."""
        codes = values["codes"]
        return MatrixPlace(**{**values, "codes": QuantizedPlace(**codes) if codes else None})


@dataclass(frozen=True, kw_only=True)
class QuantizedPlace:
    """The places of codes uint8 [rows, parts] and of their centroids; of norms, where rows were normalized before."""

    codes_at: int
    parts: int
    part_columns: int
    centroids_at: int
    norm_codes_at: int | None
    norm_centroids_at: int | None


@dataclass(frozen=True, kw_only=True)
class FastTextLayout:
    """The header of a model file and the byte positions of everything after it."""

    path: str
    header: FastTextHeader
    entries_at: int
    entry_ends: npt.NDArray[np.int64]
    """int64 [words + labels]: positions of the NUL after each dictionary entry's string."""
    hash_buckets: int
    """The divisor of hashes; a pruned model has fewer n-gram rows than that."""
    pruned_at: int | None
    """Pairs int32 [header.buckets, 2] of a hash and its row among the n-grams; None if nothing was pruned."""
    inputs: MatrixPlace
    outputs: MatrixPlace
