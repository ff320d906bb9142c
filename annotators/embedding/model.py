"""The probabilities of all heads of an `embedding` model for a column of texts, or of ready vectors.

Its file is safetensors with a description (`EmbeddingInfo`) and the tensors `heads.N.*` of `heads.head.head_tensors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from colophon.annotators.base import AnnotatorError
from colophon.annotators.embedding.embedder import Embedder
from colophon.annotators.embedding.vector_column import VectorColumn
from colophon.annotators.heads.head import Floats, HeadInfo, head_probabilities, head_tensors
from colophon.annotators.heads.tensor_file import ModelInfo, map_model, read_info
from colophon.shards.common.arrays import NumPyArray


class EmbeddingInfo(ModelInfo):
    """The description of an `embedding` model."""

    kind: ClassVar[str] = "embedding"

    format: Literal["colophon-embedding-1"] = "colophon-embedding-1"
    embedder: str
    """The identity of the embedder whose vectors the heads read, see `Embedder.identity`."""
    dim: int = Field(ge=1, le=1 << 16)
    """Numbers of a vector."""
    heads: tuple[HeadInfo, ...] = Field(min_length=1)

    def tensors(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """The dtype and the shape of each tensor, in the order of the file."""
        return head_tensors(self.heads, self.dim)


VectorSource = Embedder | VectorColumn
"""The source of vectors: an embedder of texts, or the input itself."""


class EmbeddingModel:
    """Heads, and the embedder whose vectors they read. `load` maps the file and loads the embedder."""

    def __init__(self, path: str | Path, embedder: Callable[[], VectorSource]) -> None:
        """Read the description.

        Args:
            path: the file of the heads.
            embedder: builds the embedder, once in each process.

        Raises:
            AnnotatorError: no such file, not an `embedding` model, or of a different embedder.
        """
        self.path = str(path)
        self.info: EmbeddingInfo = read_info(path, EmbeddingInfo)
        self._build = embedder
        self._loaded: tuple[VectorSource, dict[str, NumPyArray]] | None = None
        source = embedder()
        self.embedder = source.identity
        self.column = source.column if isinstance(source, VectorColumn) else None
        if self.embedder != self.info.embedder:
            raise AnnotatorError(
                f"{path}: was trained with the embedder {self.info.embedder!r:.120}, not with {self.embedder!r:.120}"
            )

    @property
    def heads(self) -> Sequence[HeadInfo]:
        """Its heads, in the order of their probabilities."""
        return self.info.heads

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def load(self) -> None:
        """Map the file, check it, and load the embedder.

        Raises:
            AnnotatorError: one of them cannot be loaded.
        """
        if self._loaded is None:
            _, arrays = map_model(self.path, EmbeddingInfo)
            embedder = self._build()
            if embedder.identity != self.embedder:
                raise AnnotatorError(f"{self.path}: the embedder has changed since the run began")
            embedder.load()
            self._loaded = embedder, arrays

    def probabilities(self, rows: pa.Array) -> list[Floats]:
        """For each head float32 [len(rows), num_labels]; NaN for a row without a vector, see `vectors_of`.

        Args:
            rows: string or large_string; of a `VectorColumn` `VECTOR`.

        Raises:
            AnnotatorError: see `load`; or the vectors are not as long as those of the training.
        """
        self.load()
        assert self._loaded is not None
        embedder, arrays = self._loaded
        vectors = vectors_of(embedder, rows, dim=self.info.dim)
        is_known = np.asarray(np.isfinite(vectors).all(axis=1))
        vectors[~is_known] = 0
        return head_probabilities(vectors, self.info.heads, arrays, is_known=is_known)


def vectors_of(source: VectorSource, rows: pa.Array, *, dim: int | None = None) -> Floats:
    """The vectors of rows, float32 [len(rows), dim]; a row with NaN or an infinite number is one without a vector.

    Raises:
        AnnotatorError: a vector does not have `dim` numbers, see `VectorColumn.vectors` and `text_vectors`.
    """
    return source.vectors(rows, dim=dim) if isinstance(source, VectorColumn) else text_vectors(source, rows, dim=dim)


def text_vectors(embedder: Embedder, texts: pa.Array, *, dim: int | None = None) -> Floats:
    """The vectors of a loaded embedder, float32 [len(texts), dim]; a row of NaN for a null or empty text.

    Raises:
        AnnotatorError: the embedder did not return a row of numbers for each text, or not `dim` of them.
    """
    has_text = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
    some = texts.filter(has_text)
    if not len(some):
        return np.full((len(texts), dim or 0), np.nan, np.float32)
    found = np.asarray(embedder.embed(some.to_pylist()), np.float32)
    if found.ndim != 2 or len(found) != len(some) or found.shape[1] != (dim or found.shape[1]):
        expected = f"[{len(some)}, {dim or 'dim'}]"
        raise AnnotatorError(f"the embedder returned an array {list(found.shape)}; expected {expected}")
    vectors = np.full((len(texts), found.shape[1]), np.nan, np.float32)
    vectors[has_text.to_numpy(zero_copy_only=False)] = found
    return vectors
